"""A store in memory: every promise of the seam but durability. For tests, and for runs nobody wants kept."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import AsyncIterator, Sequence
from operator import attrgetter

from kaizen.core.errors import Conflict, StoreError
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.scope import Scope

_by_id = attrgetter("id")


class _Shelf:
    """What one scope has."""

    __slots__ = ("by_id", "ordered", "payloads")

    def __init__(self) -> None:
        self.by_id: dict[str, Record] = {}
        self.ordered: list[Record] = []
        self.payloads: dict[str, bytes] = {}


class MemoryStore:
    """Records and payloads in dicts, one set for each scope, behind one lock."""

    def __init__(self) -> None:
        self._shelves: dict[Scope, _Shelf] = {}
        self._lock = threading.Lock()
        self._closed = False

    async def append(self, scope: Scope, records: Sequence[Record], payloads: Sequence[Payload], /) -> None:
        """Keep them until the process ends.

        Raises:
            Conflict: a record belongs to another scope, or its id is taken.
            StoreError: the store is closed.
        """
        new = {record.id: record for record in records}
        with self._lock:
            self._check_open()
            shelf = self._shelves.setdefault(scope, _Shelf())
            if any(record.scope != scope for record in records):
                raise Conflict(f"a record of another scope can't be appended to {scope}")
            if len(new) < len(records) or not shelf.by_id.keys().isdisjoint(new):
                raise Conflict("a record with this id is there already")
            shelf.by_id |= new
            for record in records:
                insort(shelf.ordered, record, key=_by_id)
            for payload in payloads:
                shelf.payloads.setdefault(payload.digest, payload.data)

    async def records(self, scope: Scope, query: RecordQuery, /) -> AsyncIterator[Record]:
        """The records that fit, by id, as they were when the reading began."""
        with self._lock:
            self._check_open()
            found = list(self._shelf(scope).ordered)
        left = len(found) if query.limit is None else query.limit
        for record in reversed(found) if query.newest_first else found:
            if left <= 0:
                return
            if query.matches(record):
                left -= 1
                yield record

    async def record(self, scope: Scope, record_id: str, /) -> Record | None:
        """One record."""
        with self._lock:
            self._check_open()
            return self._shelf(scope).by_id.get(record_id)

    async def payload(self, scope: Scope, digest: str, /) -> bytes | None:
        """A payload's bytes, or None when it was never kept or is erased."""
        with self._lock:
            self._check_open()
            return self._shelf(scope).payloads.get(digest)

    async def erase(self, scope: Scope, digests: Sequence[str] | None, /) -> int:
        """Delete payloads (all of the scope's for None); how many there were."""
        with self._lock:
            self._check_open()
            kept = self._shelf(scope).payloads
            gone = set(kept) if digests is None else kept.keys() & set(digests)
            for digest in gone:
                del kept[digest]
            return len(gone)

    async def close(self) -> None:
        """Drop everything."""
        with self._lock:
            self._closed = True
            self._shelves.clear()

    def _shelf(self, scope: Scope) -> _Shelf:
        return self._shelves.get(scope) or _Shelf()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the record store is closed")
