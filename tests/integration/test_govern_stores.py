"""What goes wrong under the stores that count and those that keep keys: locks, loops that end, servers that go away."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from kaizen.core.errors import Conflict, StoreError
from kaizen.core.identity import Amount, Claim, Key, Limits, Refused, Standing, Taken
from kaizen.core.ids import new_id
from kaizen.core.scope import Scope
from kaizen.stores.govern.book import Batch
from kaizen.stores.govern.lanes import Outcomes
from kaizen.stores.govern.postgres_keys import PostgresKeys
from kaizen.stores.govern.postgres_quota import PostgresQuota
from kaizen.stores.govern.redis_quota import RedisQuota
from kaizen.stores.govern.sqlite_keys import SqliteKeys
from kaizen.stores.govern.sqlite_quota import SqliteQuota
from kaizen.testing.keys_suite import make_key
from kaizen.testing.quota_suite import CALL, OURS, THEIRS, Clock, claim, refused, standing, taken

MINE = [claim(usd_per_day=10**12, concurrent=100)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "govern.db"


@pytest.fixture
async def quota(file: Path) -> AsyncIterator[SqliteQuota]:
    made = SqliteQuota(file, patience=0.3)
    yield made
    await made.close()


# -- SQLite -----------------------------------------------------------------------------------------


async def test_a_take_waits_for_another_process_and_no_longer_than_its_patience(file: Path, quota: SqliteQuota) -> None:
    await quota.settle(await taken(quota, MINE), CALL)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waits = asyncio.ensure_future(taken(quota, MINE))
        await asyncio.sleep(0.1)
        assert not waits.done()
        other.execute("ROLLBACK")
        await waits
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"govern\.db.*locked"):
            await quota.take(OURS, MINE, CALL)
        other.execute("ROLLBACK")
    assert (await standing(quota)).usd_day == 2 * CALL.usd
    await taken(quota, MINE)


async def test_settles_that_could_not_be_counted_stay_charged(
    file: Path, quota: SqliteQuota, caplog: pytest.LogCaptureFixture
) -> None:
    held = await taken(quota, MINE)
    with closing(sqlite3.connect(file, isolation_level=None)) as other, caplog.at_level(logging.WARNING):
        other.execute("BEGIN IMMEDIATE")
        await quota.settle(held, Amount())
        with pytest.raises(StoreError):
            await quota.take(OURS, MINE, CALL)
        other.execute("ROLLBACK")
    assert "1 settled calls stay charged in full" in caplog.text
    await taken(quota, MINE)
    assert await standing(quota) == Standing(
        "key:1", 2 * CALL.usd, 2 * CALL.usd, 1
    )  # its place in the air is free again


async def test_the_log_is_folded_now_and_then(
    file: Path, quota: SqliteQuota, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kaizen.stores.govern.sqlite_quota._FOLD_EVERY", 50)
    for _ in range(200):
        await quota.settle(await taken(quota, MINE), CALL)
        await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    assert log_size(file) < 200 * 4096
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr("kaizen.stores.govern.sqlite_quota.fold", failing_fold)
        for _ in range(60):
            await quota.settle(await taken(quota, MINE), CALL)
        await asyncio.sleep(0.1)
    assert "could not be folded: the disk is full" in caplog.text
    assert (await standing(quota)).usd_day == 260 * CALL.usd


def log_size(file: Path) -> int:
    return Path(f"{file}-wal").stat().st_size


def failing_fold(connection: sqlite3.Connection, *, shrink: bool) -> None:
    raise sqlite3.OperationalError("the disk is full")


async def test_a_file_of_a_newer_version_is_left_alone(file: Path) -> None:
    with closing(sqlite3.connect(file)) as made:
        made.execute("PRAGMA user_version = 99")
    for store in (SqliteQuota(file), SqliteKeys(file)):
        with pytest.raises(StoreError, match="install a newer one") as caught:
            await (store.take(OURS, MINE, CALL) if isinstance(store, SqliteQuota) else store.list(None))
        assert not caught.value.retryable
        await store.close()


async def test_what_a_store_can_not_take_is_an_error_and_no_hang(quota: SqliteQuota) -> None:
    with pytest.raises(StoreError):
        await quota.take(Scope("\ud800"), MINE, CALL)
    await taken(quota, MINE)


async def test_a_mistake_of_our_own_is_told_once_and_keeps_no_shutdown_waiting(
    quota: SqliteQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quota.settle(await taken(quota, MINE), CALL)

    def broken(*_: Any) -> Any:
        raise AttributeError("not a store's error")

    monkeypatch.setattr(SqliteQuota, "_do", broken)
    with pytest.raises(StoreError, match="not a store's error"):
        await asyncio.wait_for(taken(quota, MINE), 5)
    await asyncio.wait_for(quota.close(), 5)


async def test_keys_wait_for_whoever_uses_the_file(file: Path) -> None:
    keys = SqliteKeys(file, patience=0.3)
    key = make_key("a")
    await keys.add(key)
    keys._using.acquire()
    found = asyncio.ensure_future(keys.find("a"))
    await asyncio.sleep(0.05)
    assert not found.done()
    keys._using.release()
    assert await found == key
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert await keys.find("a") == key  # nobody who writes keeps a reader waiting
        with pytest.raises(StoreError, match="locked"):
            await keys.add(make_key("b"))
        other.execute("DROP TABLE keys")
        other.execute("COMMIT")
    with pytest.raises(StoreError, match="no such table"):
        await keys.find("a")
    await keys.close()
    with pytest.raises(StoreError, match="closed"):
        await keys.list(None)


# -- loops ------------------------------------------------------------------------------------------


class OtherLoop:
    """A loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def test_a_call_may_be_settled_on_another_loop(quota: SqliteQuota) -> None:
    other = OtherLoop()
    held = await other.run(taken(quota, MINE))
    await quota.settle(held, Amount(1, 1, 3))
    assert await other.run(standing(quota)) == Standing("key:1", 3, 3, 0)
    late = await other.run(taken(quota, MINE))
    other.stop()
    await quota.settle(late, Amount(1, 1, 4))  # the loop that took it has ended
    found = await standing(quota)
    assert (found.usd_day, found.calls) == (7, 1)  # its place in the air ends with its lease
    third = OtherLoop()
    await third.run(taken(quota, MINE))
    third.stop()


async def test_closing_counts_what_other_loops_settled(file: Path) -> None:
    quota, running, ended = SqliteQuota(file), OtherLoop(), OtherLoop()
    for other in (running, ended):
        held = await other.run(taken(quota, MINE))
        await other.run(_settle_and_stay_busy(quota, held))
    ended.loop.call_soon_threadsafe(ended.loop.stop)
    ended._thread.join()
    await quota.close()
    running.stop()
    ended.loop.close()
    again = SqliteQuota(file)
    assert (await standing(again)).usd_day == 10
    await again.close()


async def _settle_and_stay_busy(quota: SqliteQuota, held: Taken) -> None:
    await quota.settle(held, Amount(1, 1, 5))


def test_a_loop_that_ends_lets_nobody_wait(file: Path) -> None:
    class Slow(SqliteQuota):
        async def _later(self, batch: Batch) -> Outcomes:
            await asyncio.sleep(3600)
            raise AssertionError

        def _now(self, batch: Batch) -> Outcomes | None:
            return None

    quota, ended = Slow(file), list[str]()

    async def take() -> None:
        try:
            await quota.take(OURS, MINE, CALL)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        task = asyncio.ensure_future(take())
        await asyncio.sleep(0.05)
        del task

    asyncio.run(main())
    assert ended == ["cancelled"]
    quota._threads.shutdown()


async def test_whatever_goes_wrong_is_a_store_error(file: Path) -> None:
    class Odd(SqliteQuota):
        def _now(self, batch: Batch) -> Outcomes | None:
            return None

        async def _later(self, batch: Batch) -> Outcomes:
            raise KeyError("odd")

    quota = Odd(file)
    with pytest.raises(StoreError, match="odd"):
        await quota.take(OURS, MINE, CALL)
    gone = asyncio.ensure_future(quota.take(OURS, MINE, CALL))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await quota.close()


# -- PostgreSQL and Redis ---------------------------------------------------------------------------


async def test_a_connection_that_broke_is_opened_anew(postgres_url: str) -> None:
    schema = f"s_{new_id()}"
    quota, keys = PostgresQuota(postgres_url, schema=schema), PostgresKeys(postgres_url, schema=schema)
    await taken(quota, MINE)
    await keys.add(make_key("a"))
    admin: Any = await asyncpg.connect(postgres_url)
    try:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kaizen' AND pid <> "
            "pg_backend_pid() AND query LIKE ANY (ARRAY['%quota_batch%', '%INSERT INTO keys%'])"
        )
        for _ in range(3):  # the first may find out the hard way
            try:
                await taken(quota, MINE)
                found = await keys.find("a")
            except StoreError:
                await asyncio.sleep(0)
            else:
                assert found == make_key("a")
                break
        else:
            pytest.fail("it did not come back")
        await admin.execute(f'UPDATE "{schema}".govern_version SET version = 99')  # noqa: S608 - no value of anybody's
        newer = PostgresKeys(postgres_url, schema=schema)
        with pytest.raises(StoreError, match="install a newer one"):
            await newer.list(None)
        await newer.close()
        await admin.execute(f'DROP TABLE "{schema}".accounts')
        with pytest.raises(StoreError, match="accounts"):
            await quota.take(OURS, MINE, CALL)
    finally:
        await admin.close()
        await quota.close()
        await keys.close()


async def test_several_workers_may_make_the_tables_at_once(postgres_url: str) -> None:
    schema = f"s_{new_id()}"
    several = [PostgresKeys(postgres_url, schema=schema) for _ in range(5)]
    done = await asyncio.gather(*(keys.add(make_key("a")) for keys in several), return_exceptions=True)
    assert [type(one) for one in done if one is not None] == [Conflict] * 4
    for keys in several:
        await keys.close()


Opened = Callable[[Clock], Any]


@pytest.fixture(params=["sqlite", "postgres", "redis"])
async def opened(request: pytest.FixtureRequest, file: Path) -> AsyncIterator[Opened]:
    made: list[Any] = []
    name = new_id()
    url = "" if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")

    def make(clock: Clock) -> Any:
        match request.param:
            case "sqlite":
                made.append(SqliteQuota(file, clock=clock))
            case "postgres":
                made.append(PostgresQuota(url, schema=name, clock=clock))
            case _:
                made.append(RedisQuota(url, prefix=name, clock=clock))
        return made[-1]

    yield make
    for quota in made:
        await quota.close()


async def test_one_batch_of_many_tenants_and_of_calls_that_come_free(opened: Opened) -> None:
    """A refusal looks for what dead workers left; what passed in the same batch before counts all the same."""
    clock = Clock()
    dead, alive = opened(clock), opened(clock)
    mine = [claim(usd_per_day=2 * CALL.usd, concurrent=2)]
    await dead.wait(await taken(dead, mine))
    await dead.wait(await taken(dead, [claim(usd_per_day=10**9)], scope=THEIRS))
    await taken(alive, mine, Amount(1, 0, 1), scope=THEIRS)
    clock.now += 31
    found = await asyncio.gather(
        *(alive.take(scope, mine, CALL) for scope in (OURS, OURS, OURS, THEIRS, THEIRS, Scope("third")))
    )
    assert [isinstance(one, Taken) for one in found] == [True, True, False, True, False, True]
    assert await standing(alive) == Standing("key:1", 2 * CALL.usd, 2 * CALL.usd, 2)
    for one in found:
        if isinstance(one, Taken):
            await alive.settle(one, Amount(1))
    clock.now += 60
    assert [one.calls for one in await alive.standing(OURS, ["key:1"])] == [0]
    assert isinstance(await alive.take(OURS, [Claim("key:1", Limits(usd_per_day=0))], CALL), Refused)


async def test_a_redis_that_was_restarted_knows_the_script_again(redis_url: str) -> None:
    quota = RedisQuota(redis_url, prefix=new_id())
    await taken(quota, MINE)
    client: Any = Redis.from_url(redis_url)
    await client.script_flush()
    await taken(quota, MINE)
    assert (await standing(quota)).usd_day == 2 * CALL.usd
    await client.set(f"{quota._prefix}:{{other}}:account:key:1", "not a hash")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await quota.take(THEIRS, MINE, CALL)
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await quota.standing(THEIRS, ["key:1"])
    await client.aclose()
    await quota.close()


def test_a_key_shows_nothing_that_opens() -> None:
    key = Key(id="a", scope=OURS, digest=b"secret digest", previous=b"older digest")
    assert "digest" not in repr(key)


async def test_refusals_alone_write_nothing(file: Path, quota: SqliteQuota) -> None:
    spent = [claim(usd_per_day=0)]
    await refused(quota, spent)
    size = log_size(file)
    for _ in range(50):
        await refused(quota, spent)
    assert log_size(file) == size
