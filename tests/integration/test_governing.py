"""Limits that several processes share, and processes that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kaizen.core.errors import StoreError
from kaizen.core.identity import Claim, Limits, Quota, Refused, Taken
from kaizen.core.ids import new_id
from tests.integration.governing import CALL, SCOPE, open_quota

WORKER = Path(__file__).parent / "governing.py"
KINDS = ("sqlite", "postgres", "redis")


class Workers:
    """Processes that share the accounts of one kind of store."""

    def __init__(self, kind: str, where: str) -> None:
        self.kind, self.where = kind, where
        self.running: list[subprocess.Popen[str]] = []

    def start(
        self, limits: Mapping[str, int], *, tasks: int, seconds: float, lease: float = 30.0
    ) -> subprocess.Popen[str]:
        words = (self.kind, self.where, lease, json.dumps(limits), tasks, seconds)
        worker = subprocess.Popen(
            [sys.executable, str(WORKER), *map(str, words)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.running.append(worker)
        return worker

    def quota(self, lease: float = 30.0) -> Quota:
        return open_quota(self.kind, self.where, lease)


@pytest.fixture(params=KINDS)
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    kind = request.param
    where = str(tmp_path / "govern.db")
    if kind != "sqlite":
        where = f"{request.getfixturevalue(f'{kind}_url')}#w_{new_id()}"
    made = Workers(kind, where)
    yield made
    for worker in made.running:
        worker.kill()
        worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()


def test_two_processes_that_hammer_one_key_never_pass_its_limits(workers: Workers) -> None:
    limits = {"requests_per_minute": 240, "usd_per_day": 10_000 * CALL.usd}
    started = time.monotonic()
    both = [workers.start(limits, tasks=8, seconds=1.5) for _ in range(2)]
    taken = sum(worker.communicate()[0].count("taken") for worker in both)
    most = 240 + 4 * (time.monotonic() - started)
    assert 240 <= taken <= most
    assert [worker.returncode for worker in both] == [0, 0]


def test_two_processes_never_pass_a_budget(workers: Workers) -> None:
    both = [workers.start({"usd_per_day": 500 * CALL.usd}, tasks=8, seconds=1.0) for _ in range(2)]
    assert sum(worker.communicate()[0].count("taken") for worker in both) == 500


async def test_what_a_killed_process_held_ends_with_its_lease(workers: Workers) -> None:
    limits = Limits(concurrent=5, usd_per_day=100 * CALL.usd)
    doomed = workers.start({"concurrent": 5, "usd_per_day": 100 * CALL.usd}, tasks=5, seconds=0, lease=1.5)
    assert doomed.stdout is not None
    for _ in range(5):
        assert await asyncio.to_thread(doomed.stdout.readline) == "taken\n"
    quota, claims = workers.quota(1.5), [Claim("key:1", limits)]
    refused = await quota.take(SCOPE, claims, CALL)
    assert isinstance(refused, Refused)
    assert refused.limit == "concurrent"
    await asyncio.sleep(2.0)
    assert isinstance(await quota.take(SCOPE, claims, CALL), Refused)  # it lives, so it holds on
    os.kill(doomed.pid, signal.SIGKILL)
    killed = time.monotonic()
    while isinstance(await quota.take(SCOPE, claims, CALL), Refused):
        assert time.monotonic() - killed < 2.5
        await asyncio.sleep(0.05)
    (standing,) = await quota.standing(SCOPE, ["key:1"])
    assert (standing.calls, standing.usd_day) == (1, 6 * CALL.usd)  # what was sent stays charged
    await quota.close()


async def test_a_store_that_is_away_refuses_and_comes_back(tmp_path: Path) -> None:
    """Nobody can count, so nothing is taken; and nothing is broken afterwards."""
    file = tmp_path / "home" / "govern.db"
    file.parent.mkdir()
    file.write_bytes(b"no database, but long enough to be looked at" * 100)
    quota, claims = open_quota("sqlite", str(file), 30), [Claim("key:1", Limits(requests_per_minute=1))]
    with pytest.raises(StoreError, match=r"govern\.db"):
        await quota.take(SCOPE, claims, CALL)
    file.unlink()
    assert isinstance(await quota.take(SCOPE, claims, CALL), Taken)
    await quota.close()
    for kind, where in (("postgres", "postgresql://127.0.0.1:9/x#s"), ("redis", "redis://127.0.0.1:9#p")):
        away = open_quota(kind, where, 30)
        with pytest.raises(StoreError) as caught:
            await away.take(SCOPE, claims, CALL)
        assert caught.value.retryable
        await away.close()
