"""The seams of the house. Protocols, not base classes: an adapter need not import us.

Every storage seam takes ``scope`` first, and a Request carries it, so that one tenant's data can't be
reached by forgetting an argument. Each seam that has adapters has a conformance suite in
``kaizen.testing``; an adapter is done when it passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from kaizen.core.artifact import Artifact
from kaizen.core.context import Context, Program, Runtime
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.request import Chunk, Reply, Request
from kaizen.core.scope import Scope

__all__ = [
    "Allow",
    "Ask",
    "Cache",
    "Decision",
    "Deny",
    "Optimizer",
    "Policy",
    "Program",
    "Provider",
    "Runtime",
    "Store",
    "Suspended",
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


class Cache(Protocol):
    """Answers that may be dropped at any time."""

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        """The value, if it is still there."""
        ...

    async def put(self, scope: Scope, key: str, value: bytes, /, *, ttl: float | None = None) -> None:
        """Keep a value for at most ``ttl`` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Allow:
    """Go on."""


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

    async def decide(self, ctx: Context, action: str, target: str, /) -> Decision:
        """May ``ctx.principal`` do ``action`` (such as "run") to ``target`` (such as a program's name)?"""
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
