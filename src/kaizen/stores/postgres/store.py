"""The ledger's store in PostgreSQL, for many workers and machines."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it carries no types

from kaizen.core.errors import Conflict, KaizenError, StoreError
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.stores.postgres import rows
from kaizen.stores.postgres.database import FAILURES, LOST, Database, closed, store_error
from kaizen.stores.rows import Row

_GROUP: Final = 256  # appends in a statement
_GROUP_BYTES: Final = 4 * 1024 * 1024
_LANES: Final = 2  # statements of one loop under way at once: one is at the server while the next is made
_FIRST_PAGE: Final = 64
_PAGE: Final = 1000
_ERASED_AT_ONCE: Final = 10_000
_CLOSE_POLL_S: Final = 0.001


@dataclass(slots=True)
class _Append:
    """One call's rows, and who waits for them."""

    done: asyncio.Future[None]
    records: list[Row]
    payloads: list[Row]

    @property
    def size(self) -> int:
        return sum(len(row[3]) for row in self.payloads)


@dataclass(slots=True)
class _Lane:
    """Appends of one loop: those that wait, and how many statements are under way."""

    waiting: list[_Append]
    tasks: set[asyncio.Task[None]]


class PostgresStore:
    """A Store in one PostgreSQL database.

    An append waits for one statement, which takes along whatever else the loop had to append by then: alone it is one
    round trip and one commit, and the busier the loop the larger the groups. A commit is on the server's disk when
    ``append`` returns, unless the database says otherwise (``synchronous_commit``).

    What grows: an append costs an entry in two indexes that grow at their ends, and one in the index of payloads, whose
    digests are random: once that is larger than the server's memory, each payload costs a page read. A record, a
    payload, a run's records and the scores about a record are found by index, in time that grows with the logarithm of
    the number of rows. Other queries read the scope's records in order of their ids from ``after`` on, or all blocks of
    the stretch of time that ``since`` and ``until`` name, until ``limit`` fit.

    Args:
        url: ``postgresql://...``; it may hold a password and is never shown.
        schema: where the tables lie; it is made where it is missing.
        patience: seconds to connect, and for one statement.
    """

    def __init__(self, url: str, *, schema: str = "kaizen", patience: float = 30.0) -> None:
        self._database = Database(url, schema=schema, part=rows.PART, migrations=rows.MIGRATIONS, patience=patience)
        self._lanes: dict[AbstractEventLoop, _Lane] = {}
        self._closed = False

    # -- the seam -----------------------------------------------------------------------------------

    async def append(self, scope: Scope, records: Sequence[Record], payloads: Sequence[Payload], /) -> None:
        """Keep them, all or none; when this returns they survive the death of this process.

        One that is cancelled may have been kept.

        Raises:
            Conflict: a record belongs to another scope, or its id is taken.
            StoreError: they can't be written.
        """
        for record in records:
            if record.scope != scope:
                raise Conflict(f"record {record.id} of {record.scope} can't be appended to {scope}")
        if self._closed:
            raise closed()
        loop = asyncio.get_running_loop()
        append = _Append(
            loop.create_future(),
            [rows.row_of(scope, record) for record in records],
            [rows.payload_of(scope, payload) for payload in payloads],
        )
        lane = self._lanes.get(loop)
        if lane is None:
            for other in [one for one in self._lanes if one.is_closed()]:
                del self._lanes[other]
            lane = self._lanes[loop] = _Lane([], set())
        lane.waiting.append(append)
        if len(lane.waiting) == 1:
            loop.call_soon(self._start, loop, lane)
        await append.done

    async def records(self, scope: Scope, query: RecordQuery, /) -> AsyncIterator[Record]:
        """The records that fit, by id, read page by page: one that is appended meanwhile may appear or not."""
        left, size, last = query.limit, _FIRST_PAGE, None
        while left is None or left > 0:
            size = size if left is None else min(size, left)
            sql, values = rows.select(scope, query, last, size)
            page = [rows.record_of(scope, tuple(row)) for row in await self._database.fetch(sql, *values)]
            for record in page:
                yield record
            if len(page) < size:
                return
            last, size = page[-1].id, _PAGE
            left = None if left is None else left - len(page)

    async def record(self, scope: Scope, record_id: str, /) -> Record | None:
        """One record."""
        found = await self._database.fetch(rows.RECORD, *rows.keys(scope.tenant, scope.environment, record_id))
        return rows.record_of(scope, tuple(found[0])) if found else None

    async def payload(self, scope: Scope, digest: str, /) -> bytes | None:
        """A payload's bytes, or None when it was never kept or is erased."""
        found = await self._database.fetch(rows.PAYLOAD, *rows.keys(scope.tenant, scope.environment, digest))
        return found[0][0] if found else None

    async def erase(self, scope: Scope, digests: Sequence[str] | None, /) -> int:
        """Delete payloads (all of the scope's for None); how many there were.

        They are gone for every reader at once. The bytes stay in the server's files until it vacuums them, and in its
        write-ahead log and backups for as long as it keeps those.
        """
        owner = rows.keys(scope.tenant, scope.environment)
        parts: list[list[str] | None] = [None]
        if digests is not None:
            parts = [rows.keys(*digests[at : at + _ERASED_AT_ONCE]) for at in range(0, len(digests), _ERASED_AT_ONCE)]
        gone = 0
        for part in parts:
            try:
                gone += int((await self._database.execute(rows.ERASE, *owner, part)).rpartition(" ")[2])
            except FAILURES as error:
                raise store_error(error) from None
        return gone

    async def close(self) -> None:
        """Write what is in the air, on whichever loop, and let go of this loop's connections."""
        self._closed = True
        while self._lanes:
            for loop, lane in tuple(self._lanes.items()):
                if not loop.is_running() or not (lane.waiting or lane.tasks):
                    self._lanes.pop(loop, None)
            await asyncio.sleep(_CLOSE_POLL_S if self._lanes else 0)
        await self._database.close()

    # -- writing ------------------------------------------------------------------------------------

    def _start(self, loop: AbstractEventLoop, lane: _Lane) -> None:
        """Send the next group, if not enough are under way."""
        while lane.waiting and len(lane.tasks) < _LANES:
            group, size = [lane.waiting[0]], lane.waiting[0].size
            for append in lane.waiting[1:_GROUP]:
                size += append.size
                if size > _GROUP_BYTES:
                    break
                group.append(append)
            del lane.waiting[: len(group)]
            task = loop.create_task(self._write(group))
            lane.tasks.add(task)

            def ended(task: asyncio.Task[None]) -> None:
                lane.tasks.discard(task)
                self._start(loop, lane)

            task.add_done_callback(ended)

    async def _write(self, group: Sequence[_Append]) -> None:
        """Write a group and tell who waits. Where it fails, each alone: no append fails for another one's sake."""
        try:
            await self._insert(group)
        except (*FAILURES, StoreError) as error:
            lost = isinstance(error, LOST)
            for append in group:
                again = lost or len(group) > 1
                _settle(append, await self._alone(append, lost=lost) if again else _outcome(error))
            return
        except BaseException as error:  # the loop is being shut down
            for append in group:
                _settle(append, store_error(error))
            raise
        for append in group:
            _settle(append, None)

    async def _alone(self, append: _Append, *, lost: bool) -> KaizenError | None:
        """Write one that failed with others, or whose connection was lost: then it may be there already."""
        try:
            await self._insert([append])
        except asyncpg.UniqueViolationError as error:
            try:
                return None if lost and await self._is_there(append) else _outcome(error)
            except StoreError as other:
                return other
        except (*FAILURES, StoreError) as error:
            return _outcome(error)
        return None

    async def _is_there(self, append: _Append) -> bool:
        """Whether exactly these records are stored."""
        for row in append.records:
            found = await self._database.fetch(rows.RECORD, *row[:3])
            if not found or tuple(found[0]) != row[2:]:
                return False
        return True

    async def _insert(self, group: Sequence[_Append]) -> None:
        records = [row for append in group for row in append.records]
        payloads = [row for append in group for row in append.payloads]
        await self._database.execute(rows.APPEND, *rows.append_values(records, payloads))


def _outcome(error: BaseException) -> KaizenError:
    if isinstance(error, asyncpg.UniqueViolationError):
        return Conflict("a record with this id is there already")
    return error if isinstance(error, StoreError) else store_error(error)


def _settle(append: _Append, error: KaizenError | None) -> None:
    if append.done.done():  # its caller was cancelled
        return
    if error is None:
        append.done.set_result(None)
    else:
        append.done.set_exception(error)
