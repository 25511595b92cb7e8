"""The default store: one SQLite file, written by several processes at once."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from asyncio import AbstractEventLoop, Future
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from kaizen.core.errors import Conflict, KaizenError, StoreError
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.stores import rows
from kaizen.stores.schema import connect, is_busy, patiently, prepare, store_error
from kaizen.stores.upkeep import ERASED_AT_ONCE, erase, fold, index, roll_back

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)

_GROUP: Final = 64  # appends in one transaction: about 2 ms
_ROW_BYTES: Final = 512  # what a row takes without a payload's contents, roughly
_INLINE_BYTES: Final = 512 * 1024  # more than that is written on a thread
_TIDY_EVERY_BYTES: Final = 4 * 1024 * 1024
_FIRST_PAGE: Final = 64
_PAGE: Final = 512
_READERS: Final = 4
_LOG_BYTES: Final = 16 * 1024 * 1024
_FOLD_EVERY_BYTES: Final = 4 * 1024 * 1024  # a log that is written anew does not show by its length how full it is
_CLOSE_POLL_S: Final = 0.002

# What SQLite says, and what Python says of values that SQLite can't take (a lone surrogate, an integer of more than
# 64 bits).
_FAILURES: Final = (sqlite3.Error, UnicodeError, OverflowError, MemoryError)


class _Append:
    """One call of ``append``, waiting to be written."""

    __slots__ = ("done", "payloads", "records", "size")

    def __init__(self, done: Future[None], records: Sequence[rows.Row], payloads: Sequence[rows.Row]) -> None:
        self.done, self.records, self.payloads = done, records, payloads
        self.size = _ROW_BYTES * (len(records) + len(payloads)) + sum(len(row[3]) for row in payloads)


class _Lane:
    """The appends of one event loop, in order; it exists while there are any."""

    __slots__ = ("loop", "waiting")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: list[_Append] = []


class SqliteStore:
    """Records and payloads in one SQLite file with a write-ahead log, opened at first use.

    What ``append`` has returned from survives the death of the process (``kill -9``); a power loss may cost the
    last transactions, never the file (``synchronous=NORMAL``). Several processes, threads and event loops may
    use one file, and one store, at once.

    An append is written by its own event loop, one turn after the call and together with all other appends of
    that turn, in one transaction: a lone one takes a fraction of a millisecond and waits for no window, and the
    busier the loop the larger the groups. Such a commit calls no fsync. What may take longer goes to a thread:
    waiting for another process's lock, large payloads, and checkpoints (which do call fsync).

    A record, a payload, a run's records and the scores about a record are found by index. Other queries read
    the scope's records in order of their ids, from ``after`` on, until ``limit`` fit: their time grows with the
    rows passed over. There is no index by time, name or status, since each would slow down every append.

    Args:
        path: the file; its folder is made (mode 0700) where it is missing, the file itself has mode 0600.
        patience: seconds to wait for other processes' locks before an append fails.
    """

    def __init__(self, path: Path, *, patience: float = 30.0) -> None:
        self._path = path
        self._log = Path(f"{path}-wal")
        self._patience = patience
        self._lanes: dict[AbstractEventLoop, _Lane] = {}
        self._writing = threading.Lock()  # held while the writer is used
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []
        # One of the two waits for locks and writes, so that a checkpoint on the other delays no append.
        self._writes = ThreadPoolExecutor(2, "kaizen-store-write")
        self._reads = ThreadPoolExecutor(_READERS, "kaizen-store-read")
        self._untidy = 0  # bytes written since the file was tidied
        self._unfolded = 0  # bytes written since the log was folded
        self._tidying = threading.Lock()  # held while that is asked for or under way
        self._closed = False

    # -- the seam -----------------------------------------------------------------------------------

    async def append(self, scope: Scope, records: Sequence[Record], payloads: Sequence[Payload], /) -> None:
        """Keep them, all or none; when this returns they survive the death of the process.

        One that is cancelled may have been kept.

        Raises:
            Conflict: a record belongs to another scope, or its id is taken.
            StoreError: the file can't be written: what was there stays.
        """
        for record in records:
            if record.scope != scope:
                raise Conflict(f"record {record.id} of {record.scope} can't be appended to {scope}")
        loop = asyncio.get_running_loop()
        if self._writer is None:
            await self._on_thread(self._writes, self._open)
        if self._closed:
            raise _closed(self._path)
        append = _Append(
            loop.create_future(),
            [rows.record_row(scope, record) for record in records],
            [rows.payload_row(scope, payload) for payload in payloads],
        )
        lane = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = _Lane(loop)
            loop.call_soon(self._flush, lane)
        lane.waiting.append(append)
        await append.done

    async def records(self, scope: Scope, query: RecordQuery, /) -> AsyncIterator[Record]:
        """The records that fit, by id, read page by page: one that is appended meanwhile may appear or not."""
        left, size, last = query.limit, _FIRST_PAGE, None
        while left is None or left > 0:
            size = size if left is None else min(size, left)
            page = await self._read(partial(_page, scope, query, last, size))
            for record in page:
                yield record
            if len(page) < size:
                return
            last, size = page[-1].id, _PAGE
            left = None if left is None else left - len(page)

    async def record(self, scope: Scope, record_id: str, /) -> Record | None:
        """One record."""
        row = await self._read(partial(_one, rows.RECORD, (scope.tenant, scope.environment, record_id)))
        return None if row is None else rows.to_record(scope, row)

    async def payload(self, scope: Scope, digest: str, /) -> bytes | None:
        """A payload's bytes, or None when it was never kept or is erased."""
        row = await self._read(partial(_one, rows.PAYLOAD, _address(scope, digest)))
        return None if row is None else row[0]

    async def erase(self, scope: Scope, digests: Sequence[str] | None, /) -> int:
        """Delete payloads (all of the scope's for None) and overwrite them; how many there were.

        In several transactions, so that appends need not wait. Whoever is interrupted can do it again.
        """
        return await self._on_thread(self._writes, partial(self._erase, scope, digests))

    async def close(self) -> None:
        """Write what is in the air, on whichever loop, and let go of the file. Later calls are StoreErrors."""
        self._closed = True
        left: list[_Append] = []
        while self._lanes:
            for lane in tuple(self._lanes.values()):
                # A loop that stopped won't write its appends any more, and nobody can add to them.
                if not lane.loop.is_running():
                    left += lane.waiting
                    self._lanes.pop(lane.loop, None)
            await asyncio.sleep(_CLOSE_POLL_S if self._lanes else 0)
        await asyncio.to_thread(self._let_go, left)

    # -- writing ------------------------------------------------------------------------------------

    def _flush(self, lane: _Lane) -> None:
        """Write the first group of a lane here and now, or have a thread do it."""
        group = lane.waiting[:_GROUP]
        # While the file is tidied the system may hold up writes until an fsync is through.
        large = sum(append.size for append in group) > _INLINE_BYTES
        if large or self._tidying.locked() or not self._writing.acquire(blocking=False):
            self._hand_over(lane, group)
            return
        try:
            self._write(group)
        except (*_FAILURES, StoreError):  # the lock is taken, or something is wrong with one of them
            self._hand_over(lane, group)
        else:
            self._settle(lane, group, [None] * len(group))
        finally:
            self._writing.release()

    def _hand_over(self, lane: _Lane, group: Sequence[_Append]) -> None:
        def written(future: Future[list[KaizenError | None]]) -> None:
            self._settle(lane, group, future.result())

        try:
            lane.loop.run_in_executor(self._writes, self._write_patiently, group).add_done_callback(written)
        except RuntimeError:  # another thread has closed the store since
            self._settle(lane, group, [_closed(self._path)] * len(group))

    def _settle(self, lane: _Lane, group: Sequence[_Append], outcomes: Sequence[KaizenError | None]) -> None:
        """Tell the callers, and go on with the lane."""
        del lane.waiting[: len(group)]
        if lane.waiting:
            lane.loop.call_soon(self._flush, lane)
        else:
            self._lanes.pop(lane.loop, None)
        for append, error in zip(group, outcomes, strict=True):
            if append.done.done():  # its caller was cancelled
                continue
            if error is None:
                append.done.set_result(None)
            else:
                append.done.set_exception(error)

    def _write_patiently(self, group: Sequence[_Append]) -> list[KaizenError | None]:
        """Write a group on a thread, waiting for locks; an error for each append that could not be written."""
        try:
            with self._writing:
                patiently(lambda: self._write(group), self._patience)
        except _FAILURES as error:
            if isinstance(error, sqlite3.IntegrityError) and len(group) == 1:
                return [Conflict("a record with this id is there already")]
            if len(group) == 1 or (isinstance(error, sqlite3.Error) and is_busy(error)):
                return [store_error(self._path, error)] * len(group)
            # No append fails for another one's sake.
            return [outcome for append in group for outcome in self._write_patiently([append])]
        except StoreError as error:
            return [error] * len(group)
        return [None] * len(group)

    def _write(self, group: Sequence[_Append]) -> None:
        """Write a group, all or nothing. Whoever calls holds ``_writing``.

        Raises:
            sqlite3.Error, UnicodeError, OverflowError, MemoryError: nothing was written.
            StoreError: the store is closed.
        """
        records, payloads = group[0].records, group[0].payloads
        if len(group) > 1:
            records = [row for append in group for row in append.records]
            payloads = [row for append in group for row in append.payloads]
        writer = self._writer
        if writer is None:
            raise _closed(self._path)
        writer.execute("BEGIN IMMEDIATE")
        try:
            for sql, values in rows.record_inserts(records):
                writer.execute(sql, values)
            for sql, values in rows.payload_inserts(payloads):
                writer.execute(sql, values)
            writer.execute("COMMIT")
        except BaseException:
            roll_back(writer)
            raise
        self._count(group)

    def _erase(self, scope: Scope, digests: Sequence[str] | None) -> int:
        if self._writer is None:
            self._open()
        gone = 0
        try:
            for part in _parts(digests):
                while True:
                    count = self._with_writer(lambda writer, part=part: erase(writer, scope, part))
                    gone += count
                    if part is not None or count < ERASED_AT_ONCE:
                        break
        except sqlite3.Error as error:
            raise store_error(self._path, error) from error
        if gone and self._tidying.acquire(blocking=False):
            self._tidy(log_limit=0)  # else the contents would stay in the log for a while
        return gone

    def _with_writer(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        """Use the writer on a thread, waiting for other processes."""
        with self._writing:
            writer = self._writer
            if writer is None:
                raise _closed(self._path)
            return patiently(lambda: act(writer), self._patience)

    # -- reading ------------------------------------------------------------------------------------

    async def _read(self, query: Callable[[sqlite3.Connection], Result]) -> Result:
        return await self._on_thread(self._reads, partial(self._query, query))

    def _query(self, query: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            if self._writer is None:
                self._open()
            try:
                reader = self._readers.pop()
            except IndexError:
                reader = connect(self._path, self._patience)
            try:
                return patiently(lambda: query(reader), self._patience)
            finally:
                self._readers.append(reader)
        except _FAILURES as error:
            raise store_error(self._path, error) from error

    # -- the file -----------------------------------------------------------------------------------

    def _open(self) -> None:
        with self._writing:
            if self._writer is not None:
                return
            if self._closed:
                raise _closed(self._path)
            try:
                self._writer = prepare(self._path, self._patience)
            except (sqlite3.Error, OSError) as error:
                raise store_error(self._path, error) from error

    async def _on_thread(self, pool: ThreadPoolExecutor, act: Callable[[], Result]) -> Result:
        if self._closed:
            raise _closed(self._path)
        try:
            future = asyncio.get_running_loop().run_in_executor(pool, act)
        except RuntimeError:  # another thread has closed the store since
            raise _closed(self._path) from None
        return await future

    def _let_go(self, left: Sequence[_Append]) -> None:
        if left and self._writer is not None:
            self._write_patiently(left)
        self._reads.shutdown()
        self._writes.shutdown()
        with self._writing:
            connections = [*self._readers, self._writer]
            self._readers, self._writer = [], None
            for connection in connections:
                if connection is not None:
                    connection.close()

    def _count(self, group: Sequence[_Append]) -> None:
        """Have the file tidied when enough has been written."""
        size = sum(append.size for append in group)
        self._untidy += size
        self._unfolded += size
        if self._untidy > _TIDY_EVERY_BYTES and self._tidying.acquire(blocking=False):
            self._untidy = 0
            try:
                self._writes.submit(self._tidy, _LOG_BYTES)
            except RuntimeError:  # closing
                self._tidying.release()

    def _tidy(self, log_limit: int) -> None:
        """Enter the payloads of the tail, fold a log that has grown large. Whoever calls has taken ``_tidying``."""
        try:
            while self._with_writer(index):
                pass
            shrink = log_limit == 0
            if self._log.stat().st_size > log_limit and (shrink or self._unfolded > _FOLD_EVERY_BYTES):
                self._unfolded = 0
                connection = connect(self._path, self._patience)
                try:
                    fold(connection, shrink=shrink)
                finally:
                    connection.close()
        except (sqlite3.Error, OSError, StoreError) as error:
            # Nothing is lost: tail and log are whole, and a later turn goes on.
            _logger.warning("the record store %s could not be tidied: %s", self._path, error)
        finally:
            self._tidying.release()


def _page(scope: Scope, query: RecordQuery, last: str | None, limit: int, reader: sqlite3.Connection) -> list[Record]:
    return [rows.to_record(scope, row) for row in reader.execute(*rows.select(scope, query, last, limit))]


def _one(sql: str, values: rows.Row | dict[str, str], reader: sqlite3.Connection) -> rows.Row | None:
    return reader.execute(sql, values).fetchone()


def _address(scope: Scope, digest: str) -> dict[str, str]:
    return {"tenant": scope.tenant, "environment": scope.environment, "digest": digest}


def _parts(digests: Sequence[str] | None) -> list[Sequence[str] | None]:
    if digests is None:
        return [None]
    return [digests[start : start + ERASED_AT_ONCE] for start in range(0, len(digests), ERASED_AT_ONCE)]


def _closed(path: Path) -> StoreError:
    return StoreError(f"the record store {path} is closed")
