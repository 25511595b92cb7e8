"""What was answered survives kill -9, and processes that write at once lose and delay nothing."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from kaizen.core.record import RecordQuery
from kaizen.core.scope import LOCAL
from kaizen.stores.sqlite import SqliteStore

CHILD = Path(__file__).with_name("appending.py")


def start(path: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, CHILD, path, name], stdout=subprocess.PIPE)


def end(child: subprocess.Popen[bytes], first: bytes) -> dict[str, float]:
    """Kill it; what it reported as kept, with the seconds each append took."""
    child.kill()
    whole = (first + child.communicate()[0]).rpartition(b"\n")[0]
    return {name: float(seconds) for name, seconds in (line.split() for line in whole.decode().splitlines())}


async def all_kept(path: Path, reported: set[str]) -> None:
    store = SqliteStore(path)
    there = {record.id async for record in store.records(LOCAL, RecordQuery())}
    assert reported <= there
    for name in there:
        assert await store.payload(LOCAL, name) == name.encode() * 10
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_answered_survives_the_death_of_the_process(tmp_path: Path, seed: int) -> None:
    moment = random.Random(seed)
    path, reported = tmp_path / "ledger.db", set[str]()
    for name in ("first", "second"):  # the second begins with what the first one's death left
        with start(path, name) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            time.sleep(moment.uniform(0, 0.2))  # noqa: ASYNC251 - nothing else runs here
            reported |= end(child, first).keys()
    assert len(reported) > 1
    await all_kept(path, reported)


@pytest.mark.alone
async def test_four_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    children = [start(path, f"writer {number}") for number in range(4)]
    firsts = [child.stdout.readline() for child in children if child.stdout is not None]
    time.sleep(1)  # noqa: ASYNC251 - nothing else runs here
    reports = [end(child, first) for child, first in zip(children, firsts, strict=True)]
    counts = [len(report) for report in reports]
    assert min(counts) > max(counts) / 10  # none is starved
    # The bar is 100 ms (benchmarks/records.py measures it); a test machine that is busy gets some slack.
    assert max(seconds for report in reports for seconds in report.values()) < 1
    await all_kept(path, {name for report in reports for name in report})
