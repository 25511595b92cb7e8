"""The SQLite store on a real disk: files, versions, broken files, other processes, upkeep."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from kaizen.core.errors import Conflict, StoreError
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.stores import rows, sqlite, upkeep
from kaizen.stores.schema import MIGRATIONS, patiently, prepare
from kaizen.stores.sqlite import SqliteStore
from kaizen.testing.store_suite import OURS, THEIRS, found, make_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    await store.close()


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - a name from a test


def log_size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


def damage(path: Path) -> None:
    """Leave only the first page as it was."""
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def anywhere(path: Path, contents: bytes) -> bool:
    return any(contents in file.read_bytes() for file in path.parent.iterdir())


# -- the file -----------------------------------------------------------------------------------------


async def test_nothing_is_made_before_first_use(path: Path) -> None:
    store = SqliteStore(path)
    assert not path.parent.exists()
    await store.close()
    assert not path.parent.exists()


async def test_folder_and_files_are_the_owners_alone(store: SqliteStore, path: Path) -> None:
    await store.append(OURS, [make_record()], [])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


async def test_what_was_kept_is_there_after_opening_again(path: Path) -> None:
    first = SqliteStore(path)
    record = make_record()
    await first.append(OURS, [record], [Payload("a", b"1")])
    await first.close()
    second = SqliteStore(path)
    assert await found(second, RecordQuery()) == [record]
    assert await second.payload(OURS, "a") == b"1"
    await second.close()


async def test_two_stores_on_one_file_see_each_other(store: SqliteStore, path: Path) -> None:
    other = SqliteStore(path)
    records = [make_record() for _ in range(50)]
    await asyncio.gather(*[(store, other)[n % 2].append(OURS, [record], []) for n, record in enumerate(records)])
    assert await found(store, RecordQuery()) == await found(other, RecordQuery()) == records
    await other.close()


async def test_a_newer_file_is_refused(path: Path) -> None:
    with closing(prepare(path, 1)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    store = SqliteStore(path)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=f"{path} has version {len(MIGRATIONS) + 1}; this Kaizen knows {len(MIGRATIONS)}"
        ) as caught:
            await store.append(OURS, [make_record()], [])
        assert not caught.value.retryable
    await store.close()


def test_an_older_file_is_brought_up_to_date_once(path: Path) -> None:
    prepare(path, 1).close()
    newer = (*MIGRATIONS, ("ALTER TABLE records ADD COLUMN more", "INSERT INTO records (more) VALUES ('x')"))
    for _ in range(2):
        with closing(prepare(path, 1, newer)) as connection:
            assert connection.execute("SELECT more FROM records").fetchall() == [("x",)]
            assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)


async def test_runs_of_an_older_file_are_found_after_its_index_was_made_smaller(path: Path) -> None:
    def in_run(run: str, own: str | None = None) -> Record:
        record = make_record()
        return replace(record, id=own or record.id, run_id=run)

    old = [in_run("a", own="a"), in_run("a"), in_run("b", own="zz"), in_run("b"), in_run("zz")]
    with closing(prepare(path, 1, MIGRATIONS[:3])) as connection:
        for sql, values in rows.record_inserts([rows.record_row(OURS, record) for record in old]):
            connection.execute(sql, values)
    store = SqliteStore(path)
    new = [in_run("c", own="c"), in_run("c"), in_run("a")]
    await store.append(OURS, new, [])
    for run in ("a", "b", "c", "zz", "none"):
        wanted = sorted((one for one in (*old, *new) if one.run_id == run), key=lambda one: one.id)
        assert await found(store, RecordQuery(run_id=run)) == wanted
        assert await found(store, RecordQuery(run_id=run, newest_first=True)) == wanted[::-1]
        assert await found(store, RecordQuery(run_id=run, limit=1)) == wanted[:1]
        assert await found(store, RecordQuery(run_id=run, root_only=True, limit=2)) == wanted[:2]
        for one in wanted:
            assert await found(store, RecordQuery(run_id=run, after=one.id)) == wanted[wanted.index(one) + 1 :]
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        sql = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'records_run'").fetchone()[0]
        assert sql.endswith("WHERE run_id != id")


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    prepare(path, 1).close()
    newer = (*MIGRATIONS, ("ALTER TABLE records ADD COLUMN more", "INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        prepare(path, 1, newer)
    with closing(prepare(path, 1)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


async def test_many_may_open_a_new_file_at_once(path: Path) -> None:
    failed: list[BaseException] = []

    def use() -> None:
        async def run() -> None:
            store = SqliteStore(path)
            await store.append(OURS, [make_record()], [])
            await store.close()

        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert failed == []
    assert count(path, "records") == 8


# -- when it fails ------------------------------------------------------------------------------------


async def test_a_file_that_is_no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database " * 100)  # noqa: ASYNC240
    store = SqliteStore(path)
    for attempt in (store.append(OURS, [make_record()], []), store.record(OURS, "x"), store.erase(OURS, None)):
        with pytest.raises(StoreError) as caught:
            await attempt
        assert str(caught.value) == f"the record store {path}: file is not a database"
        assert not caught.value.retryable
    await store.close()


async def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = SqliteStore(tmp_path / "file" / "ledger.db")
    with pytest.raises(StoreError, match=r"file/ledger\.db: ") as caught:
        await store.append(OURS, [make_record()], [])
    assert "\n" not in str(caught.value)
    await store.close()


async def test_a_damaged_file(store: SqliteStore, path: Path) -> None:
    kept = [make_record(principal="x" * 500) for _ in range(500)]
    await store.append(OURS, kept, [])
    await store.close()
    damage(path)
    again = SqliteStore(path)
    with pytest.raises(StoreError, match="malformed") as caught:
        await found(again, RecordQuery())
    assert str(path) in str(caught.value)
    assert not caught.value.retryable
    await again.close()


async def test_a_full_disk_loses_no_other_append(store: SqliteStore, path: Path) -> None:
    first = make_record()
    await store.append(OURS, [first], [])
    # What SQLite says of a full disk it also says of a database at its largest size.
    assert store._writer is not None
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 8}")
    small = make_record()
    outcomes = await asyncio.gather(
        store.append(OURS, [make_record()], [Payload("large", bytes(200_000))]),
        store.append(OURS, [small], []),
        return_exceptions=True,
    )
    assert str(outcomes[0]) == f"the record store {path}: database or disk is full"
    assert isinstance(outcomes[0], StoreError)
    assert outcomes[0].retryable
    assert outcomes[1] is None
    assert await found(store, RecordQuery()) == [first, small]
    assert await store.payload(OURS, "large") is None


async def test_what_sqlite_cannot_hold_is_refused_alone(store: SqliteStore) -> None:
    good = [make_record() for _ in range(3)]
    outcomes = await asyncio.gather(
        store.append(OURS, [good[0]], []),
        store.append(OURS, [make_record(error="lone \ud800 surrogate")], []),
        store.append(OURS, [good[1]], []),
        store.append(OURS, [make_record(tokens_in=2**63)], []),
        store.append(OURS, [good[2]], []),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), StoreError, type(None), StoreError, type(None)]
    assert await found(store, RecordQuery()) == good
    with pytest.raises(StoreError, match="surrogates not allowed"):
        await store.record(OURS, "\ud800")


# -- other writers ------------------------------------------------------------------------------------


async def test_appends_wait_for_another_process_without_holding_up_the_loop(store: SqliteStore, path: Path) -> None:
    await store.append(OURS, [make_record()], [])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.create_task(store.append(OURS, [make_record()], [])) for _ in range(100)]
        # If one of them held up the loop, the lock would never be given back.
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in waiting)
        assert len(await found(store, RecordQuery())) == 1  # reading waits for nobody
        other.execute("ROLLBACK")
    await asyncio.gather(*waiting)
    assert len(await found(store, RecordQuery())) == 101


async def test_patience_ends_with_an_error(path: Path) -> None:
    store = SqliteStore(path, patience=0.05)
    await store.append(OURS, [make_record()], [Payload("a", b"1")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        calls = [store.append(OURS, [make_record()], []) for _ in range(2)]
        outcomes = await asyncio.gather(*calls, store.erase(OURS, None), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == [f"the record store {path}: database is locked"] * 3
        assert all(isinstance(outcome, StoreError) and outcome.retryable for outcome in outcomes)
    await store.append(OURS, [make_record()], [])
    assert len(await found(store, RecordQuery())) == 2
    await store.close()


def test_patience_is_for_locks_alone() -> None:
    calls: list[int] = []

    def act() -> None:
        calls.append(1)
        raise sqlite3.OperationalError("no such table")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        patiently(act, 10)
    assert calls == [1]


# -- groups -------------------------------------------------------------------------------------------


async def test_a_lone_append_needs_one_turn_of_the_loop(store: SqliteStore) -> None:
    await store.append(OURS, [make_record()], [])
    task = asyncio.create_task(store.append(OURS, [make_record()], []))
    await asyncio.sleep(0)  # the call
    await asyncio.sleep(0)  # the transaction
    await asyncio.sleep(0)  # the caller goes on
    assert task.done()


async def test_appends_of_one_turn_are_one_transaction(store: SqliteStore) -> None:
    await store.append(OURS, [make_record()], [])
    statements: list[str] = []
    assert store._writer is not None
    store._writer.set_trace_callback(statements.append)
    await asyncio.gather(*[store.append(OURS, [make_record()], []) for _ in range(sqlite._GROUP)])
    store._writer.set_trace_callback(None)
    assert statements.count("BEGIN IMMEDIATE") == 1
    assert statements.count("COMMIT") == 1
    assert len(await found(store, RecordQuery())) == 1 + sqlite._GROUP


async def test_closing_finishes_what_is_in_the_air(path: Path) -> None:
    store = SqliteStore(path)
    await store.append(OURS, [make_record()], [])
    tasks = [asyncio.create_task(store.append(OURS, [make_record()], [])) for _ in range(300)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*tasks)
    assert count(path, "records") == 301


def test_closing_writes_what_a_stopped_loop_left(path: Path) -> None:
    store = SqliteStore(path)
    stopped = asyncio.new_event_loop()
    stopped.run_until_complete(store.append(OURS, [make_record()], []))
    task = stopped.create_task(store.append(OURS, [make_record()], []))
    stopped.call_soon(stopped.stop)
    stopped.run_forever()  # one turn: it is called, but its transaction's turn has not come
    asyncio.run(store.close())
    assert count(path, "records") == 2
    with pytest.raises(StoreError, match="closed"):  # nobody was told that it is kept
        stopped.run_until_complete(task)
    stopped.close()


# -- upkeep -------------------------------------------------------------------------------------------


async def test_upkeep_passes_a_long_stretch_of_contents_that_were_there_already(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_INDEXED_AT_ONCE", 16)
    same = [Payload("again", b"{}")] * 80
    await store.append(OURS, [], [Payload("first", b"1"), *same, Payload("last", b"2"), *same])
    writer = prepare(path, 1.0)
    try:
        turns = 1
        while upkeep.index(writer):
            turns += 1
            assert turns < 20
    finally:
        writer.close()
    assert count(path, "payloads") == count(path, "addresses") == 3
    await store.append(OURS, [], [Payload("later", b"3")])
    assert [await store.payload(OURS, name) for name in ("first", "again", "last", "later")] == [
        b"1",
        b"{}",
        b"2",
        b"3",
    ]


async def tidied(store: SqliteStore) -> None:
    while store._tidying.locked():  # noqa: ASYNC110 - it belongs to threads
        await asyncio.sleep(0.001)


async def test_payloads_are_found_before_and_after_they_are_indexed(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_INDEXED_AT_ONCE", 16)
    names = [f"digest {number}" for number in range(50)]
    for name in names:
        await store.append(OURS, [], [Payload(name, name.encode()), Payload("shared", b"s")])
    assert (count(path, "payloads"), count(path, "addresses")) == (100, 0)
    monkeypatch.setattr(sqlite, "_TIDY_EVERY_BYTES", 0)
    await store.append(OURS, [], [Payload("last", b"last")])
    await tidied(store)
    assert (count(path, "payloads"), count(path, "addresses")) == (52, 52)
    await store.append(OURS, [], [Payload(names[0], b"another"), Payload("tail", b"tail")])
    assert await store.payload(OURS, names[0]) == names[0].encode()
    for name in (*names, "last", "tail"):
        assert await store.payload(OURS, name) == name.encode()
    assert await store.payload(OURS, "shared") == b"s"
    assert await store.erase(OURS, None) == 53


async def test_places_that_are_handed_out_again_are_found(store: SqliteStore, path: Path) -> None:
    await store.append(OURS, [], [Payload(str(number), b"x") for number in range(10)])
    await store.append(THEIRS[0], [], [Payload("theirs", b"x")])
    assert await store.erase(THEIRS[0], None) == 1  # the last row: its place is free again
    assert await store.erase(OURS, ["9", "8"]) == 2
    await store.append(OURS, [], [Payload("new", b"new"), Payload("newer", b"newer")])
    assert await store.payload(OURS, "new") == b"new"
    assert await store.erase(OURS, ["7"]) == 1
    assert await store.payload(OURS, "new") == b"new"
    assert await store.payload(OURS, "newer") == b"newer"
    assert count(path, "addresses") == count(path, "payloads") == 9


async def test_erased_contents_are_in_no_file(store: SqliteStore, path: Path) -> None:
    secret = b"the customer's words, said once"
    await store.append(OURS, [], [Payload("a", secret), Payload("b", secret * 1000)])
    assert anywhere(path, secret)
    assert await store.erase(OURS, ["a", "b"]) == 2
    assert not anywhere(path, secret)


async def test_a_log_that_grew_is_folded(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_LOG_BYTES", 200_000)
    monkeypatch.setattr(sqlite, "_FOLD_EVERY_BYTES", 0)
    monkeypatch.setattr(sqlite, "_TIDY_EVERY_BYTES", 50_000)
    largest, kept = 0, list[Record]()
    for _ in range(400):
        kept.append(make_record(principal="x" * 1000))
        await store.append(OURS, kept[-1:], [])
        largest = max(largest, log_size(path))
    await tidied(store)
    with closing(sqlite3.connect(path)) as reader:
        used = 4096 * reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    assert used < log_size(path) == largest  # it kept its length and was written from the beginning again
    assert await found(store, RecordQuery()) == kept


async def test_a_log_in_use_is_folded_another_time(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(OURS, [make_record()], [])
    monkeypatch.setattr(sqlite, "_LOG_BYTES", 0)
    monkeypatch.setattr(sqlite, "_TIDY_EVERY_BYTES", 0)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        await store.append(OURS, [make_record()], [])
        await tidied(store)
        assert log_size(path) > 0
        # Far more than may be copied while writers wait, and a reader that keeps it from being copied.
        await store.append(OURS, [], [Payload("a", bytes(4096 * 2 * upkeep._FRAMES_LEFT))])
        await tidied(store)
        assert log_size(path) > 4096 * upkeep._FRAMES_LEFT
        reader.execute("COMMIT")
    await store.append(OURS, [make_record()], [])
    await tidied(store)
    assert log_size(path) < 100_000
    assert len(await found(store, RecordQuery())) == 3


async def test_upkeep_that_fails_is_logged_and_harms_nothing(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await store.append(OURS, [make_record()], [])
    monkeypatch.setattr(sqlite, "_TIDY_EVERY_BYTES", 0)
    store._log = path / "nowhere"
    await store.append(OURS, [make_record()], [])
    await tidied(store)
    assert f"the record store {path} could not be tidied" in caplog.text
    await store.append(OURS, [make_record()], [])
    assert len(await found(store, RecordQuery())) == 3


async def test_indexing_that_fails_changes_nothing(store: SqliteStore, path: Path) -> None:
    await store.append(OURS, [], [Payload("a", b"1"), Payload("b", b"2")])
    writer = store._writer
    assert writer is not None
    writer.execute("CREATE TRIGGER no BEFORE INSERT ON addresses BEGIN SELECT RAISE(FAIL, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError, match="no"):
        upkeep.index(writer)
    with pytest.raises(StoreError, match="no"):
        await store.erase(OURS, None)
    writer.execute("DROP TRIGGER no")
    assert await store.payload(OURS, "a") == b"1"
    assert await store.erase(OURS, None) == 2


async def test_a_conflict_names_no_contents(store: SqliteStore) -> None:
    record = make_record()
    await store.append(OURS, [record], [])
    with pytest.raises(Conflict) as caught:
        await store.append(OURS, [replace(record, error="private")], [])
    assert "private" not in str(caught.value)


async def until_closed(store: SqliteStore) -> int:
    kept = 0
    while True:
        try:
            await store.append(OURS, [make_record()], [])
        except StoreError as error:
            assert "closed" in str(error)  # noqa: PT017
            return kept
        kept += 1


async def test_another_thread_may_close_at_any_moment(path: Path) -> None:
    """Every append either is kept or says that the store is closed; none hangs."""
    for round_ in range(5):
        store = SqliteStore(path)
        await store.append(OURS, [make_record()], [])
        before = count(path, "records")
        closer = threading.Timer(0.01 * round_, lambda store=store: asyncio.run(store.close()))
        closer.start()
        kept = await until_closed(store)
        await asyncio.to_thread(closer.join)
        assert count(path, "records") == before + kept
