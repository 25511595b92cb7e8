"""The book of batches in a real file."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from kaizen.core.errors import StoreError
from kaizen.core.scope import LOCAL, Scope
from kaizen.stores.batches import BatchFile

OTHER = Scope("other", "dev")


@pytest.fixture
def book(tmp_path: Path) -> BatchFile:
    return BatchFile(tmp_path / "home" / "batch.db")


async def test_what_was_intended_is_known_to_the_next_process(book: BatchFile, tmp_path: Path) -> None:
    assert await book.place(LOCAL, "key-1") is None
    await book.intend(LOCAL, "b1", "mine", {"key-1": "b1-0", "key-2": "b1-1"})
    again = BatchFile(tmp_path / "home" / "batch.db")
    assert await again.place(LOCAL, "key-2") == ("b1", "b1-1")
    row = await again.batch(LOCAL, "b1")
    assert row is not None
    assert row[0] is None
    assert row[1] == row[2] == pytest.approx(time.time(), abs=5.0)
    await book.submitted(LOCAL, "b1", "batch_7")
    row = await again.batch(LOCAL, "b1")
    assert row is not None
    assert row[0] == "batch_7"


async def test_scopes_see_nothing_of_each_other(book: BatchFile) -> None:
    await book.intend(LOCAL, "b1", "mine", {"key": "b1-0"})
    assert await book.place(OTHER, "key") is None
    assert await book.batch(OTHER, "b1") is None
    assert await book.release(OTHER, "key") == 0
    assert not await book.drop(OTHER, "b1")
    await book.submitted(OTHER, "b1", "batch_7")
    await book.touch(OTHER, "b1")
    row = await book.batch(LOCAL, "b1")
    assert row is not None
    assert row[0] is None
    assert row[1] == row[2]


async def test_only_what_is_not_in_can_be_dropped(book: BatchFile) -> None:
    await book.intend(LOCAL, "b1", "mine", {"key": "b1-0"})
    row = await book.batch(LOCAL, "b1")
    assert row is not None
    await asyncio.sleep(0.01)
    await book.touch(LOCAL, "b1")
    assert not await book.drop(LOCAL, "b1", row[2])  # it was touched since
    row = await book.batch(LOCAL, "b1")
    assert row is not None
    assert await book.drop(LOCAL, "b1", row[2])
    assert await book.place(LOCAL, "key") is None
    await book.intend(LOCAL, "b2", "mine", {"key": "b2-0"})
    await book.submitted(LOCAL, "b2", "batch_2")
    assert not await book.drop(LOCAL, "b2")
    assert await book.known(LOCAL, "mine") == {"batch_2"}
    assert await book.known(LOCAL, "other") == set()


async def test_released_calls_are_counted_down(book: BatchFile) -> None:
    await book.intend(LOCAL, "b1", "mine", {"one": "b1-0", "two": "b1-1"})
    assert [await book.release(LOCAL, key) for key in ("one", "one", "two")] == [1, 0, 0]


async def test_a_call_is_in_its_latest_batch(book: BatchFile) -> None:
    await book.intend(LOCAL, "b1", "mine", {"key": "b1-0"})
    await book.intend(LOCAL, "b2", "mine", {"key": "b2-0"})
    assert await book.place(LOCAL, "key") == ("b2", "b2-0")


async def test_what_is_older_than_four_weeks_is_forgotten(book: BatchFile, tmp_path: Path) -> None:
    await book.intend(LOCAL, "b1", "mine", {"key": "b1-0"})
    with sqlite3.connect(tmp_path / "home" / "batch.db") as db:
        db.execute("UPDATE batches SET begun = begun - 29 * 86400")
    db.close()
    await book.intend(LOCAL, "b2", "mine", {})
    assert await book.place(LOCAL, "key") is None
    assert await book.batch(LOCAL, "b1") is None


async def test_many_at_once(book: BatchFile) -> None:
    await asyncio.gather(*(book.intend(LOCAL, f"b{n}", "mine", {f"key-{n}": f"b{n}-0"}) for n in range(20)))
    assert [await book.place(LOCAL, f"key-{n}") for n in range(20)] == [(f"b{n}", f"b{n}-0") for n in range(20)]


async def test_a_file_that_is_none_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "batch.db").write_text("no database, but longer than a header of one would be: " * 10)
    with pytest.raises(StoreError, match=r"batch\.db"):
        await BatchFile(tmp_path / "batch.db").place(LOCAL, "key")
