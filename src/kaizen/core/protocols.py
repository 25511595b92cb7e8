"""The seams of the house. Protocols, not base classes: an adapter need not import us.

Every storage seam takes ``scope`` first, and a Request carries it, so that one tenant's data can't be
reached by forgetting an argument. Each seam that has adapters has a conformance suite in
``kaizen.testing``; an adapter is done when it passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from kaizen.core.artifact import Artifact, Head, Move, Version
from kaizen.core.context import Context, Program, Runtime
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.request import Chunk, Embeddings, Reply, Request
from kaizen.core.scope import Scope

__all__ = [
    "Allow",
    "Archive",
    "Ask",
    "Cache",
    "CacheSize",
    "Decision",
    "Deny",
    "Embedder",
    "Embeddings",
    "Lease",
    "Need",
    "Neighbour",
    "Optimizer",
    "Policy",
    "Program",
    "Provider",
    "Runtime",
    "Store",
    "Suspended",
    "VectorIndex",
]


class Provider(Protocol):
    """A model, or a layer round one: a Provider may wrap a Provider."""

    async def complete(self, request: Request, /) -> Reply:
        """The whole answer.

        Cancelling the await cancels the call upstream.

        Raises:
            ProviderError: and its kinds; nothing else for what the far side does.
        """
        ...

    def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The answer as it is written: an async generator whose last chunk, and only it, holds the Reply.

        Closing the iterator cancels the call upstream.
        """
        ...


class Store(Protocol):
    """Where records and payloads lie. Appending is all or nothing for one call."""

    async def append(self, scope: Scope, records: Sequence[Record], payloads: Sequence[Payload], /) -> None:
        """Keep them; when this returns they survive the death of the process.

        A payload already there is kept once. Every record's own scope equals ``scope``.
        """
        ...

    def records(self, scope: Scope, query: RecordQuery, /) -> AsyncIterator[Record]:
        """The records that fit, by id."""
        ...

    async def record(self, scope: Scope, record_id: str, /) -> Record | None:
        """One record."""
        ...

    async def payload(self, scope: Scope, digest: str, /) -> bytes | None:
        """A payload's bytes, or None when it was never kept or is erased."""
        ...

    async def erase(self, scope: Scope, digests: Sequence[str] | None, /) -> int:
        """Delete payloads (all of the scope's for None); how many there were. Records stay."""
        ...

    async def close(self) -> None:
        """Finish what is in the air and let go."""
        ...


class Archive(Protocol):
    """Where versions and labels lie: both are only ever added to."""

    async def put(self, scope: Scope, artifact: Artifact, /, *, author: str, reason: str, at: float) -> Version:
        """Keep an artifact under the next number of its kind and name; one that is there already stays as it is."""
        ...

    async def heads(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Head]:
        """What there is, without the bodies: by kind, name and number."""
        ...

    async def find(self, scope: Scope, kind: str, name: str, version: str, /) -> Version | None:
        """One by its content address.

        Raises:
            StoreError: its body is not what was kept.
        """
        ...

    async def children(self, scope: Scope, ref: str, kind: str | None = None, /) -> Sequence[Version]:
        """Those that have ``ref`` among their parents, in the order they came."""
        ...

    async def move(self, scope: Scope, move: Move, /, *, since: str | None = None) -> None:
        """Keep a move; when this returns, every user of the archive sees it.

        Args:
            scope: whose.
            move: what to keep.
            since: id of the label's last move, empty for none: refused where it has moved since.

        Raises:
            Conflict: the label has moved since.
        """
        ...

    async def moves(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Move]:
        """The moves of every label, oldest first."""
        ...

    async def state(self, scope: Scope, kind: str, /) -> int:
        """A count that grows with each version and each move of a kind: cheap, so that readers can poll it."""
        ...

    async def close(self) -> None:
        """Finish what is in the air and let go."""
        ...


@dataclass(frozen=True, slots=True)
class CacheSize:
    """How full a cache is for one scope."""

    entries: int
    bytes: int


class Cache(Protocol):
    """Answers that may be dropped at any time: when they are too old, too many, or a tag of theirs is invalidated."""

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        """The value, if it is still there."""
        ...

    async def epoch(self, scope: Scope, /) -> int:
        """A count that grows with each invalidation in the scope: read before an answer is made, see ``put``."""
        ...

    async def put(
        self,
        scope: Scope,
        key: str,
        value: bytes,
        /,
        *,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        since: int | None = None,
    ) -> None:
        """Keep a value for at most ``ttl`` seconds; when this returns, every user of the cache sees it.

        With ``since``, an epoch, nothing is kept if one of the tags was invalidated after it: what was made of a
        document before it changed must not outlive the change because it took a while to make.
        """
        ...

    async def invalidate(self, scope: Scope, tags: Sequence[str] | None = None, /) -> int:
        """Drop what carries any of the tags (all of the scope's for None); how many there were."""
        ...

    async def size(self, scope: Scope, /) -> CacheSize:
        """What it holds of a scope."""
        ...

    async def close(self) -> None:
        """Finish what is in the air and let go."""
        ...


class Embedder(Protocol):
    """Makes points of texts."""

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        """A point for each text, in order.

        Raises:
            ProviderError: and its kinds.
        """
        ...


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of an index and its cosine similarity to what was searched, -1 to 1."""

    key: str
    similarity: float


class VectorIndex(Protocol):
    """Points to find near ones by. ``space`` parts a scope's points: only those of one space are compared."""

    async def add(self, scope: Scope, space: str, key: str, vector: bytes, /) -> None:
        """Keep a point (float32, little endian, of length 1) under a key; one of that key is replaced."""
        ...

    async def search(self, scope: Scope, space: str, vector: bytes, k: int, /) -> Sequence[Neighbour]:
        """The ``k`` nearest, nearest first."""
        ...

    async def remove(self, scope: Scope, keys: Sequence[str], /) -> None:
        """Drop these; one that is not there is no error."""
        ...

    async def close(self) -> None:
        """Finish what is in the air and let go."""
        ...


@dataclass(frozen=True, slots=True)
class Need:
    """What an action may use at most, or what it has used. ``usd`` is None where a price is not known."""

    calls: int = 0
    tokens: int = 0
    usd: float | None = 0.0


class Lease(Protocol):
    """What was reserved for one action. It ends by itself some time after its holder died."""

    async def settle(self, used: Need, /) -> None:
        """Put what was really used in the place of what was reserved. Called once, also when the action failed."""
        ...


@dataclass(frozen=True, slots=True)
class Allow:
    """Go on, and settle the lease afterwards if there is one."""

    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """Don't; ``reason`` is shown to the caller."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Wait for somebody's word; ``question`` is shown to them."""

    question: str


Decision: TypeAlias = Allow | Deny | Ask


class Policy(Protocol):
    """The one decision: roles, tenancy, quota, privacy, tool danger and approval all answer it."""

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Decision:
        """May ``ctx.run.principal`` do ``action`` to ``target``?

        Args:
            ctx: who asks, and for whom.
            action: "run" a program, "infer" with a model, and what rooms above add.
            target: a program's name, a model's ref.
            need: what it will use at most, where it uses anything that has a limit.

        Raises:
            RateLimited, BudgetExceeded: where a limit stands in the way, so that the caller learns when to come again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Suspended:
    """A run that waits: a result, not an error. The same call with this ``run_id`` goes on from there."""

    run_id: str
    step: str
    question: str


class Optimizer(Protocol):
    """Prompt search, demo choice, threshold tuning, router training and fine-tuning in one shape."""

    async def propose(
        self, ctx: Context, program: Program, dataset: Sequence[Mapping[str, Any]], metric: Program, /
    ) -> Sequence[Artifact]:
        """Candidate params for ``program`` and the programs below it, best first. ``ctx.budget`` bounds it."""
        ...
