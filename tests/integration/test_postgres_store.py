"""The ledger in PostgreSQL where the world misbehaves: lost connections, other versions, several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaizen.core.errors import Conflict, StoreError
from kaizen.core.ids import new_id
from kaizen.core.record import Payload, RecordQuery
from kaizen.stores.postgres import rows
from kaizen.stores.postgres.store import PostgresStore
from kaizen.stores.rows import FIELDS
from kaizen.testing.store_suite import OURS, found, full_record, make_record


@pytest.fixture
def schema() -> str:
    return f"test {new_id()}"


@pytest.fixture
async def store(postgres_url: str, schema: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url, schema=schema)
    yield store
    await store.close()


@pytest.fixture
async def admin(postgres_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


async def test_the_table_has_a_column_for_every_field(store: PostgresStore, admin: Any, schema: str) -> None:
    await store.append(OURS, [make_record()], [])
    columns = await admin.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = 'records'"
        " ORDER BY ordinal_position",
        schema,
    )
    assert [row[0] for row in columns] == ["tenant", "environment", *FIELDS]


async def test_a_run_and_what_is_about_a_record_are_found_by_index(
    store: PostgresStore, admin: Any, schema: str
) -> None:
    await store.append(OURS, [make_record(run_id=str(number), about=str(number)) for number in range(2_000)], [])
    await admin.execute(f'SET search_path = "{schema}"')
    await admin.execute("ANALYZE records")
    for query, index in (
        (RecordQuery(run_id="7"), "records_run"),
        (RecordQuery(about="7"), "records_about"),
        (RecordQuery(limit=3), "records_pkey"),
        (RecordQuery(newest_first=True), "records_pkey"),
    ):
        sql, values = rows.select(OURS, query, None, 10)
        plan = "\n".join(row[0] for row in await admin.fetch(f"EXPLAIN {sql}", *values))
        assert index in plan
        assert "Seq Scan" not in plan


async def test_busy_loops_append_in_groups(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    insert = store._insert

    async def counted(group: Any) -> None:
        sent.append(len(group))
        await insert(group)

    monkeypatch.setattr(store, "_insert", counted)
    await asyncio.gather(*[store.append(OURS, [make_record()], [Payload("p", b"x")]) for _ in range(600)])
    assert len(await found(store, RecordQuery())) == 600
    assert sum(sent) == 600
    assert len(sent) <= 6
    large = [store.append(OURS, [], [Payload(f"{number}", b"x" * 1_000_000)]) for number in range(10)]
    await asyncio.gather(*large)
    assert await store.payload(OURS, "9") == b"x" * 1_000_000


async def test_a_lost_connection_is_mended_and_nothing_is_kept_twice(
    store: PostgresStore, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(OURS, [make_record()], [])
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'kaizen' AND pid != pg_backend_pid()"
    )
    await store.append(OURS, [make_record()], [])
    assert len(await found(store, RecordQuery())) == 2
    execute, unheard, undone = store._database.execute, 0, 2

    async def cut(sql: str, *values: Any) -> str:
        nonlocal unheard, undone
        if undone:
            undone -= 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        said = await execute(sql, *values)
        if unheard:
            unheard -= 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return said

    monkeypatch.setattr(store._database, "execute", cut)
    kept = full_record()
    with pytest.raises(StoreError) as caught:  # twice in a row
        await store.append(OURS, [kept], [])
    assert caught.value.retryable
    undone = 1
    await store.append(OURS, [kept], [])
    unheard = 1
    other = full_record()
    await store.append(OURS, [other], [])  # it was done already, as it should be
    assert {kept.id, other.id} <= {one.id for one in await found(store, RecordQuery())}
    unheard = 1
    with pytest.raises(Conflict):
        await store.append(OURS, [replace(kept, status="ok")], [])
    undone = 1
    with pytest.raises(Conflict):  # not this one's doing
        await store.append(OURS, [replace(kept, status="ok")], [])
    assert await store.record(OURS, kept.id) == kept


async def test_where_nobody_can_tell_whether_it_was_done_it_is_an_error(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = make_record()
    await store.append(OURS, [taken], [])
    execute, lost = store._database.execute, 1

    async def cut(sql: str, *values: Any) -> str:
        nonlocal lost
        if lost:
            lost -= 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return await execute(sql, *values)

    async def gone(sql: str, *values: Any) -> Any:
        raise StoreError("the database: gone")

    monkeypatch.setattr(store._database, "execute", cut)
    monkeypatch.setattr(store._database, "fetch", gone)
    with pytest.raises(StoreError, match="gone"):
        await store.append(OURS, [taken], [])


def test_who_waits_when_the_loop_is_shut_down_is_told(postgres_url: str, schema: str) -> None:
    store = PostgresStore(postgres_url, schema=schema)
    told: list[BaseException | None] = []

    async def main() -> None:
        await store.append(OURS, [make_record()], [])

        async def hang(group: Any) -> None:
            await asyncio.sleep(60)

        store._insert = hang  # a server that does not answer
        waits = asyncio.ensure_future(store.append(OURS, [make_record()], []))
        waits.add_done_callback(lambda task: told.append(None if task.cancelled() else task.exception()))
        await asyncio.sleep(0.01)
        (writing,) = [task for lane in store._lanes.values() for task in lane.tasks]
        writing.cancel()
        await asyncio.gather(waits, return_exceptions=True)

    asyncio.run(main())
    assert [type(one) for one in told] == [StoreError]


async def test_what_postgres_can_not_hold_is_refused(store: PostgresStore) -> None:
    good = make_record()
    told = await asyncio.gather(
        store.append(OURS, [make_record(ref="\ud800")], []),
        store.append(OURS, [good], []),
        store.append(OURS, [make_record(tokens_in=2**63)], []),
        return_exceptions=True,
    )
    assert [type(one) for one in told] == [StoreError, type(None), StoreError]
    assert not any(one.retryable for one in told if isinstance(one, StoreError))
    assert await found(store, RecordQuery()) == [good]
    with pytest.raises(StoreError):
        await store.payload(OURS, "\ud800")
    with pytest.raises(StoreError):
        await store.erase(OURS, ["\ud800"])


async def test_a_database_that_is_not_there_is_an_error_without_its_address() -> None:
    store = PostgresStore("postgresql://me:secret@127.0.0.1:9/x", patience=2.0)
    for call in (store.append(OURS, [make_record()], []), store.record(OURS, "x"), store.erase(OURS, None)):
        with pytest.raises(StoreError, match="the database") as caught:
            await call
        assert "secret" not in str(caught.value) + repr(caught.value.__cause__)
        assert caught.value.retryable
    await store.close()


async def test_tables_of_a_newer_version_are_left_alone(store: PostgresStore, admin: Any, schema: str) -> None:
    await store.append(OURS, [make_record()], [])
    await admin.execute(f'SET search_path = "{schema}"')
    await admin.execute("UPDATE versions SET version = 99")
    other = PostgresStore(str(store._database._url), schema=schema)
    with pytest.raises(StoreError, match="install a newer one") as caught:
        await other.record(OURS, "x")
    assert not caught.value.retryable
    await other.close()


async def test_several_make_the_tables_at_once(postgres_url: str, schema: str) -> None:
    stores = [PostgresStore(postgres_url, schema=schema) for _ in range(6)]
    await asyncio.gather(*[store.append(OURS, [make_record()], []) for store in stores])
    assert len(await found(stores[0], RecordQuery())) == 6
    for store in stores:
        await store.close()


async def test_closing_writes_what_is_in_the_air(store: PostgresStore, postgres_url: str, schema: str) -> None:
    calls = [asyncio.create_task(store.append(OURS, [make_record()], [])) for _ in range(40)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*calls)
    again = PostgresStore(postgres_url, schema=schema)
    assert len(await found(again, RecordQuery())) == 40
    await again.close()


def test_a_loop_that_ends_in_the_middle_harms_no_later_one(postgres_url: str, schema: str) -> None:
    store = PostgresStore(postgres_url, schema=schema)

    async def leave() -> None:
        await store.append(OURS, [make_record()], [])
        _ = [asyncio.ensure_future(store.append(OURS, [make_record()], [])) for _ in range(5)]
        await asyncio.sleep(0)

    async def use() -> int:
        await store.append(OURS, [make_record()], [])
        kept = len(await found(store, RecordQuery()))
        await store.close()
        return kept

    asyncio.run(leave())
    assert 2 <= asyncio.run(use()) <= 7


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["\\", "\0", "\\0", "\\\\\0"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT, TEXT)
def test_any_text_comes_back_and_no_two_are_one(one: str, other: str) -> None:
    assert "\0" not in rows.escaped(one)
    assert rows.plain(rows.escaped(one)) == one
    assert (rows.escaped(one) == rows.escaped(other)) == (one == other)
