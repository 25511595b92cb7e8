"""The ledger: what was done, kept as records in a store, contents apart from them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from kaizen.core.errors import ContentFiltered, NotFound, OutputInvalid
from kaizen.core.ids import digest
from kaizen.core.known.repeats import facts_of
from kaizen.core.protocols import Store
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.request import Request
from kaizen.core.scope import Scope
from kaizen.ledger.log import log_record
from kaizen.ledger.requests import SharedParts, joined, rest, shared_address, whole

if TYPE_CHECKING:
    from kaizen.ledger.exporter import Exporter

_SCOPE_KEYS = 4096  # how many scopes' keys are kept at hand
_USELESS = frozenset({OutputInvalid.code, ContentFiltered.code})  # errors that a program ends a good call with


@dataclass(frozen=True, slots=True)
class Node:
    """A record and what was done below it, in program order."""

    record: Record
    children: tuple[Node, ...] = ()


class Ledger:
    """Appends records and their payloads to a store, and reads them.

    Args:
        store: where they lie.
        key: the home's secret, see ``load_key``.
        payloads: whether contents are kept; without them records still carry their digests.
        log: whether finished root calls and errors are logged, one line each, without contents.
        exporter: who gets each record once it is kept.
    """

    def __init__(
        self, store: Store, key: bytes, *, payloads: bool = True, log: bool = False, exporter: Exporter | None = None
    ) -> None:
        self._store = store
        self._payloads = payloads
        self._log = log
        self._exporter = exporter
        self._shared = SharedParts()

        # A key for each scope, so that the same text has another address in another scope, and so that an
        # address can't be found by trying likely texts without the home's secret.
        @lru_cache(maxsize=_SCOPE_KEYS)
        def scope_key(scope: Scope) -> bytes:
            tenant, environment = scope.tenant.encode(), scope.environment.encode()
            name = len(tenant).to_bytes(8) + tenant + environment
            return hashlib.blake2b(name, digest_size=32, key=key, person=b"kaizen scope").digest()

        self._scope_key = scope_key

    @property
    def store(self) -> Store:
        """Where they lie; the views read from it."""
        return self._store

    def seal(self, scope: Scope, data: bytes) -> Payload:
        """Contents under their address: equal contents have equal addresses, within one scope."""
        return Payload(digest(data, key=self._scope_key(scope)), data)

    def seal_request(self, scope: Scope, request: Request) -> tuple[Payload, ...]:
        """A request's contents under their address; then what it shares with others, if it shares anything."""
        if not request.stable:
            facts = facts_of(request)
            if facts is None:
                return (self.seal(scope, whole(request)),)
            known = facts.get(self)
            if known is None or known[0] != scope:
                payload = self.seal(scope, whole(request))
                self._shared.again(payload)
                known = facts[self] = (scope, (payload,))
            return known[1]
        shared = self._shared.of(scope, request, self.seal)
        return self.seal(scope, rest(request, shared.digest)), shared

    async def append(self, scope: Scope, records: Sequence[Record], payloads: Sequence[Payload] = ()) -> None:
        """Keep records and contents, all or none; when this returns they survive the death of the process.

        Raises:
            Conflict: a record is of another scope, or its id is taken.
            StoreError: the store can't be written.
        """
        shared = self._shared
        since = shared.forgotten
        contents = shared.unwritten(payloads) if self._payloads else ()
        await self._store.append(scope, records, contents)
        shared.written(contents, since)
        if self._exporter is not None:
            self._exporter.take(records)
        if self._log:
            for record in records:
                failed = record.status == "error" and record.kind != "span"  # those are others' failures
                if failed or (record.kind == "program" and record.parent_id is None):
                    log_record(record)

    def records(self, scope: Scope, query: RecordQuery | None = None) -> AsyncIterator[Record]:
        """The records that fit, by id."""
        return self._store.records(scope, query or RecordQuery())

    async def record(self, scope: Scope, record_id: str) -> Record:
        """One record.

        Raises:
            NotFound: the scope has no such record.
        """
        record = await self._store.record(scope, record_id)
        if record is None:
            raise NotFound(f"there is no record {record_id!r} in {scope}")
        return record

    async def payload(self, scope: Scope, digest: str | None) -> bytes | None:
        """Contents by their address; None when there are none, they were never kept or are erased."""
        data = None if digest is None else await self._store.payload(scope, digest)
        address = None if data is None else shared_address(data)
        shared = None if address is None else await self._store.payload(scope, address)
        return data if data is None or shared is None else joined(shared, data)

    async def erase(self, scope: Scope, digests: Sequence[str] | None = None) -> int:
        """Delete contents (all of the scope's for None); how many there were. Records stay.

        Another process that wrote a shared part within the last minute does not know, and writes it again only when
        that minute is over: the calls that it keeps till then have lost the part, see ``SharedParts``.
        """
        self._shared.forget()
        try:
            return await self._store.erase(scope, digests)
        finally:
            self._shared.forget()  # what was written meanwhile may be erased, too

    async def tree(self, scope: Scope, run_id: str) -> tuple[Node, ...]:
        """A run's records as trees by parent; scores are left out.

        One tree for each attempt at the run. A record whose parent is missing, since the process died
        before it ended, is a root too.
        """
        return trees(
            [record async for record in self.records(scope, RecordQuery(run_id=run_id)) if record.kind != "score"]
        )

    async def steps(self, scope: Scope, run_id: str, *, useless: bool = False) -> Mapping[str, Record]:
        """What a run has done already, by step: the calls that ended well, the latest where there are several.

        Replies that their program could not use are left out, or a resumed run could only fail once more.

        Args:
            scope: whose.
            run_id: which.
            useless: take those replies in as well, for a run to which a failure is a result: they were paid for.
        """
        records = [one async for one in self.records(scope, RecordQuery(run_id=run_id)) if one.kind != "score"]
        failed = {one.id for one in records if one.error_code in _USELESS}
        return {
            one.step: one
            for one in records
            if one.status == "ok" and (useless or not (one.kind == "model" and one.parent_id in failed))
        }

    async def close(self) -> None:
        """Finish what is in the air and let go of the store."""
        if self._exporter is not None:
            await self._exporter.close()
        await self._store.close()


def trees(records: Iterable[Record]) -> tuple[Node, ...]:
    """Records as trees by parent, siblings in program order."""
    ordered = sorted(records, key=_place)
    # a span names its parent by that one's step
    known = {record.id: record.id for record in ordered}
    known |= {record.step: record.id for record in ordered if record.kind == "span"}
    below: dict[str | None, list[Record]] = {}
    for record in ordered:
        parent = known.get(record.parent_id or "")
        below.setdefault(parent if parent != record.id else None, []).append(record)
    made: dict[str, Node] = {}
    # Without recursion, since programs may nest deeper than the interpreter's stack.
    pending = list(below.get(None, ()))
    while pending:
        record = pending[-1]
        children = below.get(record.id, [])
        if children and children[0].id not in made:
            pending += children
        else:
            made[record.id] = Node(record, tuple(made[child.id] for child in children))
            pending.pop()
    return tuple(made[record.id] for record in below.get(None, ()))


def _place(record: Record) -> tuple[list[int], float, str]:
    """Program order: ``0.10`` comes after ``0.9``. Spans, whose ids have no order, come as they began."""
    if record.kind == "span":
        return [], record.started_at, record.id
    return [int(part) if part.isdecimal() else -1 for part in record.step.split(".")], 0.0, record.id
