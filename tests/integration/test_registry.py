"""The registry on real files and a real database: several processes, damage, forks, and what it costs to look."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kaizen.app import build
from kaizen.app.learn.registry import make_archive
from kaizen.core.artifact import Arm, Artifact, Move
from kaizen.core.errors import ConfigError, StoreError
from kaizen.core.ids import new_id
from kaizen.core.protocols import Archive
from kaizen.core.scope import LOCAL
from kaizen.settings import load_settings
from kaizen.stores.registry import sqlite
from kaizen.stores.registry.postgres import PostgresArchive
from kaizen.stores.registry.sqlite import SqliteArchive
from tests.integration.registering import opened

PROGRAM = Path(__file__).with_name("registering.py")


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an archive lies, for ``registering.opened``."""
    if request.param == "sqlite":
        return str(tmp_path / "home" / "registry.db")
    return f"r{new_id()}@{request.getfixturevalue('postgres_url')}"


async def put(archive: Archive, body: str = "1", kind: str = "params") -> Artifact:
    made = await archive.put(LOCAL, Artifact(kind, "a.B", body.encode()), author="a", reason="", at=1.0)
    return made.artifact


def test_processes_that_put_at_once_get_numbers_without_gaps(place: str) -> None:
    spans = ((0, 12), (6, 12), (0, 12), (30, 6))  # the first three share bodies
    processes = [
        subprocess.Popen([sys.executable, PROGRAM, place, f"{first}", f"{count}"], stdout=subprocess.PIPE, text=True)
        for first, count in spans
    ]
    got: dict[int, set[int]] = {}
    for process, (first, count) in zip(processes, spans, strict=True):
        numbers = [int(word) for word in process.communicate(timeout=50)[0].split()]
        assert process.returncode == 0
        for body, number in zip(range(first, first + count), numbers, strict=True):
            got.setdefault(body, set()).add(number)
    assert all(len(numbers) == 1 for numbers in got.values())  # one body, one number, whoever put it

    async def look() -> tuple[list[int], int]:
        archive = opened(place)
        numbers = [head.number for head in await archive.heads(LOCAL)]
        state = await archive.state(LOCAL, "params")
        await archive.close()
        return numbers, state

    assert asyncio.run(look()) == (list(range(1, len(got) + 1)), len(got))


async def test_a_damaged_body_is_noticed(place: str) -> None:
    archive = opened(place)
    first = await put(archive)
    child = await archive.put(LOCAL, Artifact("params", "a.B", b"2", ("p",)), author="a", reason="", at=1.0)
    if isinstance(archive, SqliteArchive):
        with sqlite3.connect(place) as db:
            db.execute("UPDATE versions SET body = x'00'")
        db.close()
    else:
        assert isinstance(archive, PostgresArchive)
        await archive._database.execute("UPDATE registry_versions SET body = '\\x00'")
    for ask in (
        archive.find(LOCAL, "params", "a.B", first.version),
        archive.children(LOCAL, "p"),
        put(archive),
    ):
        with pytest.raises(StoreError, match=r"version \d of params/a\.B is damaged") as caught:
            await ask
        assert not caught.value.retryable
    assert [head.version for head in await archive.heads(LOCAL)] == [first.version, child.artifact.version]
    await archive.close()


async def test_a_closed_archive_answers_no_more(place: str) -> None:
    archive = opened(place)
    await put(archive)
    await archive.close()
    for ask in (archive.heads(LOCAL), put(archive)):
        with pytest.raises(StoreError, match="closed"):
            await ask


# -- the file -------------------------------------------------------------------------------------


async def test_to_look_makes_no_file(tmp_path: Path) -> None:
    archive = SqliteArchive(tmp_path / "home" / "registry.db")
    assert await archive.heads(LOCAL) == []
    assert await archive.moves(LOCAL) == []
    assert await archive.state(LOCAL, "params") == 0
    assert not (tmp_path / "home").exists()
    await put(archive)
    assert (tmp_path / "home" / "registry.db").stat().st_mode & 0o777 == 0o600


async def test_a_file_that_stays_as_it_is_is_not_opened_to_ask_whether_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "registry.db"
    archive, other = SqliteArchive(path), SqliteArchive(path)
    await put(archive)
    used: list[int] = []
    use = archive._use
    monkeypatch.setattr(archive, "_use", lambda act: (used.append(1), use(act))[1])
    assert [await archive.state(LOCAL, "params") for _ in range(3)] == [1] * 3
    assert len(used) == 3  # just written: it may be written again within one tick of the clock
    past = time.time() - 5
    os.utime(path, (past, past))
    assert [await archive.state(LOCAL, "params") for _ in range(5)] == [1] * 5
    assert len(used) == 4
    assert await archive.state(LOCAL, "dataset") == 0
    assert len(used) == 5
    await put(other, "2")
    assert await archive.state(LOCAL, "params") == 2
    await other.move(LOCAL, Move("m", "params", "a.B", "prod", (Arm("1"),), "a", "", 1.0))
    assert await archive.state(LOCAL, "params") == 3


async def test_a_change_is_seen_while_another_process_holds_the_file_open(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    archive = SqliteArchive(path)
    await put(archive)
    holder = sqlite3.connect(path)  # so that what is written stays beside the file, not folded into it
    holder.execute("SELECT count(*) FROM versions").fetchone()
    past = time.time() - 5
    os.utime(path, (past, past))
    assert await archive.state(LOCAL, "params") == 1
    await put(SqliteArchive(path), "2")
    assert await archive.state(LOCAL, "params") == 2
    holder.close()


async def test_a_file_that_is_none_and_one_of_a_newer_kaizen_are_errors(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_text("no database, but long enough to be taken for one" * 50)
    with pytest.raises(StoreError, match=r"registry\.db"):
        await SqliteArchive(tmp_path / "registry.db").heads(LOCAL)
    newer = SqliteArchive(tmp_path / "newer.db")
    await put(newer)
    with sqlite3.connect(tmp_path / "newer.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="has version 99"):
        await newer.heads(LOCAL)


async def test_a_change_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = SqliteArchive(tmp_path / "registry.db")
    await put(archive)
    monkeypatch.setattr(sqlite, "_COUNT", "INSERT INTO no_such_table VALUES (?, ?, ?)")
    with pytest.raises(StoreError):
        await put(archive, "2")
    monkeypatch.undo()
    assert [head.number for head in await archive.heads(LOCAL)] == [1]
    await put(archive, "3")
    assert [head.number for head in await archive.heads(LOCAL)] == [1, 2]


def test_a_forked_child_reads_and_writes_as_its_parent_does(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from kaizen.core.scope import LOCAL
from tests.integration.test_registry import put
from kaizen.stores.registry.sqlite import SqliteArchive
archive = SqliteArchive(Path({str(tmp_path / "registry.db")!r}))
asyncio.run(put(archive, "1"))
child = os.fork()
if not child:
    signal.alarm(20)
asyncio.run(put(archive, "child" if not child else "parent"))
numbers = [head.number for head in asyncio.run(archive.heads(LOCAL))]
if not child:
    os._exit(0 if numbers[:2] == [1, 2] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(asyncio.run(archive.heads(LOCAL))))
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.stderr) == ("0 3\n", "")


def test_a_question_holds_what_a_fork_waits_for(tmp_path: Path) -> None:
    """A child that was forked in the middle of one would believe for ever that it holds the file's lock."""
    archive = SqliteArchive(tmp_path / "registry.db")
    assert archive._use(lambda _: sqlite._using.locked())
    assert not sqlite._using.locked()


# -- the App --------------------------------------------------------------------------------------


async def test_the_settings_say_where_it_lies_and_the_app_closes_it(tmp_path: Path, postgres_url: str) -> None:
    settings = load_settings(tmp_path, {}, {"home": str(tmp_path / "home")})
    assert isinstance(make_archive(settings), SqliteArchive)
    app = build(settings)
    await put(app.registry.archive)
    assert (tmp_path / "home" / "registry.db").exists()
    await app.close()
    with pytest.raises(StoreError, match="closed"):
        await app.registry.heads(app.scope)
    tree = {"home": str(tmp_path / "home"), "storage": {"database_url": postgres_url}}
    archive = make_archive(load_settings(tmp_path, {}, tree))
    assert isinstance(archive, PostgresArchive)
    await archive.close()


def test_a_database_without_its_client_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaizen.stores.registry.postgres", None)
    settings = load_settings(tmp_path, {}, {"storage": {"database_url": "postgresql://h/d"}})
    with pytest.raises(ConfigError, match=r'pip install "kaizen-engine\[postgres\]"'):
        make_archive(settings)


def test_an_app_works_in_one_loop_after_another(tmp_path: Path, postgres_url: str) -> None:
    tree = {"home": str(tmp_path / "home"), "storage": {"database_url": postgres_url}, "tenant": new_id()}
    app = build(load_settings(tmp_path, {}, tree))
    for body in "12":
        asyncio.run(put(app.registry.archive, body, "probe"))
    assert len(asyncio.run(app.registry.heads(LOCAL, "probe"))) >= 2
    asyncio.run(app.close())
