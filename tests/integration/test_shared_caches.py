"""The caches that processes share, where the world misbehaves: locks, full files, forks, servers that are gone."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from kaizen.core.errors import StoreError
from kaizen.core.ids import new_id
from kaizen.core.scope import LOCAL, Scope
from kaizen.stores.cache import entries
from kaizen.stores.cache.memory import MemoryCache
from kaizen.stores.cache.redis import RedisCache
from kaizen.stores.cache.sqlite import SqliteCache
from kaizen.stores.cache.tiered import TieredCache

MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache.db"


@pytest.fixture
async def cache(path: Path) -> AsyncIterator[SqliteCache]:
    cache = SqliteCache(path, 100 * MIB)
    yield cache
    await cache.close()


async def until(condition: Callable[[], bool], within: float = 5.0) -> None:
    give_up = time.monotonic() + within
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


# -- SQLite -----------------------------------------------------------------------------------------


async def test_nobody_else_may_read_the_file(cache: SqliteCache, path: Path) -> None:
    await cache.put(LOCAL, "a", b"1")
    modes = [stat.S_IMODE(os.stat(one).st_mode) for one in (path, path.parent)]  # noqa: PTH116 - nothing waits here
    assert modes == [0o600, 0o700]


async def test_what_another_one_drops_or_replaces_is_told_at_once(cache: SqliteCache, path: Path) -> None:
    other = SqliteCache(path, 100 * MIB)
    await cache.put(LOCAL, "a", b"1", tags=["t"])
    for _ in range(3):
        before = await cache.epoch(LOCAL), await cache.generation(LOCAL)
        await other.put(LOCAL, "new" + new_id(), b"1")
        assert (await cache.epoch(LOCAL), await cache.generation(LOCAL)) == before
        await other.put(LOCAL, "a", b"2", tags=["t"])
        assert (await cache.epoch(LOCAL), await cache.generation(LOCAL)) == (before[0], before[1] + 1)
        await other.invalidate(LOCAL, ["t"])
        assert await cache.epoch(LOCAL) == before[0] + 1
        await cache.put(LOCAL, "a", b"1", tags=["t"])
    await other.close()


async def test_one_that_died_before_its_word_is_noticed_within_a_moment(cache: SqliteCache, path: Path) -> None:
    await cache.put(LOCAL, "a", b"1")
    assert await cache.epoch(LOCAL) == 0
    other = sqlite3.connect(path)  # commits, and says nothing
    other.execute("INSERT INTO scopes VALUES (?, ?, 5, 5)", (LOCAL.tenant, LOCAL.environment))
    other.commit()
    other.close()
    await asyncio.sleep(0.06)
    assert (await cache.epoch(LOCAL), await cache.generation(LOCAL)) == (5, 5)


async def test_of_many_written_at_once_each_is_kept_by_its_own_rules(cache: SqliteCache) -> None:
    await cache.put(LOCAL, "there", b"0", tags=["old"])
    epoch = await cache.epoch(LOCAL)
    await cache.invalidate(LOCAL, ["gone"])
    now = await cache.epoch(LOCAL)
    generation = await cache.generation(LOCAL)
    mine = [cache.entry(LOCAL, f"new-{number}", b"%d" % number, None, ["t"], now) for number in range(70)]
    await cache.put_all(
        [
            *mine,
            cache.entry(LOCAL, "there", b"1", None, ["t"], now),  # in the place of what is there
            cache.entry(LOCAL, "late", b"1", None, ["gone"], epoch),  # its tag was invalidated meanwhile
            cache.entry(LOCAL, "fine", b"1", None, ["t"], epoch),  # another one's was
            cache.entry(LOCAL, "over", b"1", 0.0, [], now),
            cache.entry(LOCAL, "twice", b"1", None, [], now),
            cache.entry(LOCAL, "twice", b"2", None, [], now),
            cache.entry(Scope("other"), "there", b"3", None, [], None),
        ]
    )
    assert [await cache.get(LOCAL, one.key) for one in mine] == [one.value for one in mine]
    found = [await cache.get(LOCAL, name) for name in ("there", "late", "fine", "over", "twice")]
    assert found == [b"1", None, b"1", None, b"2"]
    assert await cache.get(Scope("other"), "there") == b"3"
    assert await cache.generation(LOCAL) > generation
    assert await cache.invalidate(LOCAL, ["t"]) == 72
    assert await cache.invalidate(LOCAL, ["old"]) == 0


class Asked:
    """How often the file was asked for an entry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, find = 0, entries.find

        def counted(*args: Any) -> entries.Found | None:
            self.times += 1
            return find(*args)

        monkeypatch.setattr("kaizen.stores.cache.entries.find", counted)


async def in_vain(cache: SqliteCache, times: int) -> None:
    for _ in range(times):
        assert await cache.get(LOCAL, "no-" + new_id()) is None


async def learned(cache: SqliteCache) -> None:
    """Ask for what is not there until it has learned what is."""
    await in_vain(cache, 255)
    give_up = time.monotonic() + 5.0
    while not cache._present.lacks("no"):
        assert time.monotonic() < give_up
        await in_vain(cache, 1)
        await asyncio.sleep(0.01)


async def test_what_is_not_there_is_soon_not_looked_for(
    cache: SqliteCache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = ["a", "two\nlines", 'quo"ted', "nul\0in", "", "é"]
    for key in odd:
        await cache.put(LOCAL, key, b"1", tags=["t"])
    others = [cache.entry(Scope("b", f"e{n % 3}"), f"k{n}", b"2", None, [], None) for n in range(3000)]
    await cache.put_all(others)
    await cache.close()
    again, asked = SqliteCache(path, 100 * MIB), Asked(monkeypatch)
    await learned(again)
    before = asked.times
    assert sum([await again.get(LOCAL, f"no-{number}") is None for number in range(500)]) == 500
    assert asked.times - before < 20  # as many as share a mark with one that is there, if any
    assert [await again.get(LOCAL, key) for key in odd] == [b"1"] * len(odd)
    assert [await again.get(one.scope, one.key) for one in others] == [b"2"] * len(others)
    await again.put(LOCAL, "new", b"3")
    assert await again.get(LOCAL, "new") == b"3"
    assert await again.invalidate(LOCAL, ["t"]) == len(odd)
    assert await again.get(LOCAL, "a") is None
    await again.close()


async def test_what_another_one_puts_is_found_though_it_was_not_there_a_moment_ago(
    cache: SqliteCache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.put(LOCAL, "a", b"1")
    await learned(cache)
    asked, other = Asked(monkeypatch), SqliteCache(path, 100 * MIB)
    assert await cache.get(LOCAL, "b") is None
    assert not asked.times
    await other.put(LOCAL, "b", b"2")
    assert await cache.get(LOCAL, "b") == b"2"
    await cache.put(LOCAL, "c", b"3")
    assert [await cache.get(LOCAL, key) for key in ("a", "b", "c")] == [b"1", b"2", b"3"]
    await other.put(LOCAL, "d", b"4")
    await other.close()
    assert await cache.get(LOCAL, "d") == b"4"
    before = asked.times
    await in_vain(cache, 300)
    await until(lambda: not cache._tidying.locked())
    await in_vain(cache, 300)
    assert asked.times - before == 600  # to learn them all is dear: not again at once


async def test_what_another_process_puts_is_found_at_once(cache: SqliteCache, path: Path) -> None:
    await learned(cache)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUTTING, str(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(20):
        assert await cache.get(LOCAL, f"k{number}") is None
        process.stdin.write(b"\n")
        assert await process.stdout.readline() == b"k%d\n" % number
        assert await cache.get(LOCAL, f"k{number}") == b"1"
    process.stdin.close()
    assert await process.wait() == 0


PUTTING = """
import asyncio, sys
from pathlib import Path
from kaizen.core.scope import LOCAL
from kaizen.stores.cache.sqlite import SqliteCache

async def main():
    cache = SqliteCache(Path(sys.argv[1]), 100_000_000)
    for number, _ in enumerate(sys.stdin):
        await cache.put(LOCAL, f"k{number}", b"1")
        print(f"k{number}", flush=True)
    await cache.close()

asyncio.run(main())
"""


async def test_what_waits_to_be_written_is_newer_than_the_file(path: Path) -> None:
    cache = SqliteCache(path, MIB)
    tiers = TieredCache(MemoryCache(1), cache, sole=True)  # memory has room for nothing
    await tiers.put(LOCAL, "a", b"1")
    assert (await tiers.size(LOCAL)).entries == 1  # it is in the file now
    await tiers.put(LOCAL, "a", b"2")
    assert (await cache.get(LOCAL, "a"), await tiers.get(LOCAL, "a")) == (b"1", b"2")
    await tiers.put(LOCAL, "a", b"3", ttl=0.0)
    assert await tiers.get(LOCAL, "a") is None
    assert (await tiers.size(LOCAL)).entries == 0
    await tiers.close()


async def test_what_another_one_invalidates_while_it_waits_is_not_written(path: Path) -> None:
    cache, other = SqliteCache(path, MIB), SqliteCache(path, MIB)
    tiers = TieredCache(MemoryCache(MIB), cache, sole=True)
    await tiers.put(LOCAL, "a", b"1", tags=["t"])
    await tiers.put(LOCAL, "b", b"1", tags=["u"])
    await other.invalidate(LOCAL, ["t"])
    assert await tiers.get(LOCAL, "a") is None
    await until(lambda: not tiers._behind)
    assert [await tiers.get(LOCAL, key) for key in ("a", "b")] == [None, b"1"]
    await tiers.close()
    await other.close()


async def test_a_put_waits_for_another_processes_lock_and_the_loop_does_not(cache: SqliteCache, path: Path) -> None:
    await cache.put(LOCAL, "a", b"1")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, other.execute, ["COMMIT"])
    timer.start()
    started = time.monotonic()
    put = asyncio.create_task(cache.put(LOCAL, "a", b"2"))
    ticks = 0
    while not put.done():
        await asyncio.sleep(0.005)
        ticks += 1
    await put
    assert time.monotonic() - started >= 0.15
    assert ticks > 5
    assert await cache.get(LOCAL, "a") == b"2"
    await asyncio.to_thread(timer.join)
    other.close()


async def test_a_lock_that_is_never_let_go_is_an_error_after_a_while(path: Path) -> None:
    cache = SqliteCache(path, MIB, patience=0.1)
    await cache.put(LOCAL, "a", b"1", tags=["t"])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as caught:
        await cache.put(LOCAL, "b", b"2")
    assert caught.value.retryable
    with pytest.raises(StoreError, match="locked"):
        await cache.invalidate(LOCAL, ["t"])
    assert await cache.get(LOCAL, "a") == b"1"
    other.execute("COMMIT")
    other.close()
    await cache.put(LOCAL, "b", b"2")
    await cache.close()


async def test_the_file_stays_within_its_bound_and_keeps_what_is_read(path: Path) -> None:
    now = 6_000.0
    cache = SqliteCache(path, 2 * MIB, clock=lambda: now)
    value = os.urandom(20_000)
    for number in range(40):
        await cache.put(LOCAL, f"old {number}", value, tags=["old"])
    for _ in range(8):
        now += 61
        for number in range(40):
            await cache.put(LOCAL, f"{now} {number}", value, ttl=3600.0)
            if number % 10 == 0:
                assert await cache.get(LOCAL, "old 7") is not None
                await until(lambda: not cache._tidying.locked())
    await until(lambda: not cache._tidying.locked())
    now += 61
    await cache.put(LOCAL, "last", value)
    await until(lambda: not cache._tidying.locked())
    size = await cache.size(LOCAL)
    assert size.bytes <= 2 * MIB + 30 * 20_000
    assert size.entries < 130
    assert await cache.get(LOCAL, "old 7") == value
    assert await cache.get(LOCAL, "old 8") is None
    assert await cache.get(LOCAL, "last") == value
    assert await cache.invalidate(LOCAL, ["old"]) == 1
    await cache.close()


async def test_what_is_too_old_leaves_the_file(path: Path) -> None:
    now = 6_000.0
    cache = SqliteCache(path, 100 * MIB, clock=lambda: now)
    for number in range(600):
        await cache.put(LOCAL, str(number), b"a secret", ttl=10.0, tags=["t"])
    await until(lambda: not cache._tidying.locked())
    now += 100
    await cache.put(LOCAL, "new", b"1")
    await until(lambda: not cache._tidying.locked())
    reader = sqlite3.connect(path)
    assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,)
    assert reader.execute("SELECT count(*) FROM tags").fetchone() == (0,)
    reader.close()
    await cache.close()


async def test_a_tag_is_found_whenever_it_was_entered(path: Path) -> None:
    now = 6_000.0
    cache = SqliteCache(path, 100 * MIB, clock=lambda: now)

    async def tidied() -> None:
        nonlocal now
        now += 61
        await cache.put(LOCAL, "tidy", b"")
        await until(lambda: not cache._tidying.locked())

    await cache.put(LOCAL, "a", b"1", tags=["x", "y"])
    await tidied()
    await cache.put(LOCAL, "a", b"2", tags=["y", "z"])  # its tags were entered
    await cache.put(LOCAL, "b", b"1", tags=["x"])
    await cache.put(LOCAL, "b", b"2", tags=["z"])  # its were not
    await cache.put(LOCAL, "last", b"1", tags=["x"])
    await tidied()
    assert await cache.invalidate(LOCAL, ["x"]) == 1
    await cache.put(LOCAL, "next", b"1", tags=["x"])  # takes the place of the one that went
    assert await cache.invalidate(LOCAL, ["z"]) == 2
    await cache.put(LOCAL, "next", b"2", tags=["x"], ttl=0.0)
    await cache.put(LOCAL, "again", b"1", tags=["x"])
    assert await cache.invalidate(LOCAL) == 2
    await cache.put(LOCAL, "more", b"1", tags=["x"])
    assert await cache.invalidate(LOCAL, ["x"]) == 1
    assert (await cache.size(LOCAL)).entries == 0
    await cache.close()


async def test_what_was_invalidated_is_not_on_the_disk_any_more(cache: SqliteCache, path: Path) -> None:
    await cache.put(LOCAL, "a", b"a secret of the customer's", tags=["t"])
    await cache.invalidate(LOCAL, ["t"])
    await until(lambda: not cache._tidying.locked())
    await cache.close()
    for file in path.parent.glob("cache.db*"):
        assert b"a secret of the customer's" not in file.read_bytes()


async def test_a_value_larger_than_the_cache_is_not_kept_and_a_large_one_is_written_on_a_thread(path: Path) -> None:
    cache = SqliteCache(path, MIB)
    await cache.put(LOCAL, "a", b"x" * (MIB + 1))
    assert await cache.get(LOCAL, "a") is None
    await cache.put(LOCAL, "b", b"x" * 500_000)
    assert await cache.get(LOCAL, "b") == b"x" * 500_000
    await cache.close()


async def test_one_that_can_not_be_written_harms_no_other_call(cache: SqliteCache) -> None:
    told = await asyncio.gather(cache.put(LOCAL, "a", b"1"), cache.put(LOCAL, "\ud800", b"2"), return_exceptions=True)
    assert isinstance(told[1], StoreError)
    await cache.put(LOCAL, "c", b"3")
    assert await cache.get(LOCAL, "c") == b"3"


async def test_a_file_of_a_newer_version_or_none_at_all_is_an_error_that_names_it(path: Path) -> None:
    path.parent.mkdir()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    for wrong in (path, path.parent / "folder"):
        (path.parent / "folder").mkdir(exist_ok=True)
        cache = SqliteCache(wrong, MIB)
        with pytest.raises(StoreError, match=str(wrong)):
            await cache.get(LOCAL, "a")
        await cache.close()


async def test_many_that_can_not_be_written_are_one_error_and_one_warning_a_minute(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = SqliteCache(path, MIB)
    tiers = TieredCache(MemoryCache(MIB), cache, sole=True)
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: reported.append(about))
    await tiers.put(LOCAL, "first", b"1")
    assert await tiers.invalidate(LOCAL) == 1
    other = sqlite3.connect(path)
    other.execute("DROP TABLE entries")
    other.commit()
    other.close()
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        for number in range(32):
            await tiers.put(LOCAL, f"key-{number}", b"1")
        await asyncio.sleep(0.15)
    gc.collect()
    await asyncio.sleep(0)
    assert reported == []
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == len(caplog.records) == 1
    assert "memory alone" in caplog.records[0].message
    await tiers.close()


async def test_a_tidying_that_fails_is_tried_again_later(cache: SqliteCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **how: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("kaizen.stores.cache.entries.find_old", fail)
        await cache.put(LOCAL, "a", b"1")
        await until(lambda: not cache._tidying.locked())
    assert await cache.get(LOCAL, "a") == b"1"
    await cache.put(LOCAL, "b", b"1")


async def test_looks_in_vain_do_not_start_one_failing_tidying_after_another(
    cache: SqliteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def fail(*args: object, **how: object) -> None:
        started.append(args)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("kaizen.stores.cache.entries.find_old", fail)
    for _ in range(300):
        await in_vain(cache, 1)
        await until(lambda: not cache._tidying.locked())
    assert len(started) == 1


async def test_closing_while_others_write_ends_well(path: Path) -> None:
    cache = SqliteCache(path, MIB)
    puts = [asyncio.create_task(cache.put(LOCAL, str(number), b"x")) for number in range(50)]
    await asyncio.sleep(0)
    await cache.put(LOCAL, "a", b"1")
    await cache.close()
    assert {type(one) for one in await asyncio.gather(*puts, return_exceptions=True)} <= {type(None), StoreError}
    again = SqliteCache(path, MIB)
    assert await again.get(LOCAL, "a") == b"1"
    await again.close()
    unopened = SqliteCache(path.with_name("none.db"), MIB)
    await unopened.close()
    assert not path.with_name("none.db").exists()


async def test_a_cancelled_put_is_written_with_the_others(cache: SqliteCache) -> None:
    await cache.put(LOCAL, "a", b"1")
    puts = [asyncio.create_task(cache.put(LOCAL, key, b"2")) for key in "bc"]
    await asyncio.sleep(0)
    puts[0].cancel()
    await puts[1]
    assert puts[0].cancelled()
    assert [await cache.get(LOCAL, key) for key in "abc"] == [b"1", b"2", b"2"]


async def test_a_table_that_is_gone_is_an_error_that_names_the_file(cache: SqliteCache, path: Path) -> None:
    await cache.put(LOCAL, "a", b"1")
    other = sqlite3.connect(path)
    other.execute("DROP TABLE entries")
    other.close()
    for call in (cache.get(LOCAL, "a"), cache.put(LOCAL, "b", b"1"), cache.size(LOCAL)):
        with pytest.raises(StoreError, match="no such table") as caught:
            await call
        assert not caught.value.retryable


async def test_another_thread_may_close_it_at_any_moment(path: Path) -> None:
    now = 0.0
    cache = SqliteCache(path, MIB, clock=lambda: now)
    await cache.put(LOCAL, "a", b"1")
    await until(lambda: not cache._tidying.locked())
    assert cache._threads is not None
    cache._threads.shutdown()
    now = 1e6
    await cache.put(LOCAL, "b", b"1")  # it can't be tidied any more, but written
    assert not cache._tidying.locked()
    with pytest.raises(StoreError, match="is closed"):
        await cache.put(LOCAL, "c", b"x" * 100_000)
    with pytest.raises(StoreError, match="is closed"):
        await cache.invalidate(LOCAL)
    cache._let_go()
    with pytest.raises(StoreError, match="is closed"):
        cache._ask(lambda reader: reader)
    with pytest.raises(StoreError, match="is closed"):
        cache._transaction(lambda writer: writer)
    await cache.close()


def test_what_a_loop_left_behind_does_not_keep_it_from_closing(path: Path) -> None:
    cache = SqliteCache(path, MIB)
    asyncio.run(cache.put(LOCAL, "a", b"1"))
    stopped = asyncio.new_event_loop()
    cache._waiting[stopped] = []  # as a loop leaves it that stops in the turn of a put
    asyncio.run(cache.close())
    stopped.close()
    assert cache._waiting == {}


async def test_several_may_open_it_at_once(path: Path) -> None:
    cache = SqliteCache(path, MIB)
    await asyncio.gather(*[cache.put(LOCAL, str(number), b"x") for number in range(20)])
    cache._prepare()
    assert (await cache.size(LOCAL)).entries == 20
    await cache.close()


FORKING = """
import asyncio, os, sys
from pathlib import Path
from kaizen.core.scope import LOCAL
from kaizen.stores.cache.sqlite import SqliteCache

cache = SqliteCache(Path(sys.argv[1]), 1 << 20)
asyncio.run(cache.put(LOCAL, "a", b"parent"))
if (child := os.fork()) == 0:
    async def use():
        assert await cache.get(LOCAL, "a") == b"parent"
        await cache.put(LOCAL, "a", b"child")
        await cache.close()
    asyncio.run(use())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert asyncio.run(cache.get(LOCAL, "a")) == b"child"
asyncio.run(cache.close())
"""


def test_a_forked_child_opens_the_file_for_itself(path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")


# -- Redis ------------------------------------------------------------------------------------------


async def test_a_server_that_is_gone_or_silent_is_an_error_without_its_address(tmp_path: Path) -> None:
    gone = RedisCache("redis://:secret@127.0.0.1:9/0", timeout=0.5)
    with pytest.raises(StoreError, match="the cache in Redis failed: ConnectionError") as caught:
        await gone.get(LOCAL, "a")
    assert "secret" not in repr(caught.value) + repr(caught.value.__cause__)
    await gone.close()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silent, tmp_path / "door")
    cache = RedisCache(f"unix://{tmp_path / 'door'}", timeout=0.2)
    started = time.monotonic()
    with pytest.raises(StoreError):
        await cache.put(LOCAL, "a", b"1")
    assert time.monotonic() - started < 2
    await cache.close()
    server.close()


async def test_redis_itself_lets_values_end_and_lists_are_cleaned_when_met(redis_url: str) -> None:
    prefix = new_id()
    cache, client = RedisCache(redis_url, prefix=prefix), Redis.from_url(redis_url)
    for number in range(450):
        await cache.put(LOCAL, str(number), b"x", ttl=0.01, tags=["t"])
    await asyncio.sleep(0.05)
    await cache.put(LOCAL, "a", b"1", ttl=60.0)
    left = await client.hlen(f"{prefix}:{{5:local/dev}}:meta")
    assert 0 < left <= 251  # so many at a time
    assert (await cache.size(LOCAL)).entries == 1
    assert await client.exists(f"{prefix}:{{5:local/dev}}:t:t") == 0
    # what the server drops for want of room is no answer, and does not count as dropped
    await client.delete(f"{prefix}:{{5:local/dev}}:e:a")
    assert await cache.get(LOCAL, "a") is None
    assert await cache.invalidate(LOCAL) == 0
    assert (await cache.size(LOCAL)).entries == 0
    await cache.close()
    await client.aclose()


async def test_a_script_that_the_server_forgot_is_sent_again(redis_url: str) -> None:
    cache, client = RedisCache(redis_url, prefix=new_id()), Redis.from_url(redis_url)
    await cache.put(LOCAL, "a", b"1")
    await client.script_flush()
    await cache.put(LOCAL, "a", b"2")
    assert await cache.get(LOCAL, "a") == b"2"
    await cache.close()
    await client.aclose()


async def test_a_server_that_may_drop_tags_is_warned_of_once(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    client = Redis.from_url(redis_url)
    await client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        cache = RedisCache(redis_url, prefix=new_id())
        with caplog.at_level(logging.WARNING, "kaizen"):
            for number in range(3):
                await cache.put(Scope(str(number)), "a", b"1")
        assert [record.getMessage() for record in caplog.records] == [
            "Redis may drop the lists of the cache: set maxmemory-policy to volatile-lru"
        ]
        await cache.close()
    finally:
        await client.config_set("maxmemory-policy", "noeviction")
        await client.aclose()
