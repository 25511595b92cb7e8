"""What the gateway needs of the floors above it, handed in by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program
from kaizen.core.identity import Authenticator, Identity
from kaizen.core.protocols import Embeddings, Suspended
from kaizen.core.record import Record
from kaizen.inference.failover.health import Condition


class Contexts(Protocol):
    """Makes the surroundings of a call; ``App.context`` is one."""

    def __call__(self, identity: Identity, *, deadline: float | None = None) -> Context:
        """For a lone model call of this caller."""
        ...


class Runs(Protocol):
    """Runs programs for callers; ``App.start_for`` is one."""

    async def __call__(
        self, identity: Identity, program: Program, inputs: Mapping[str, Any], *, deadline: float | None = None
    ) -> Answer | Suspended:
        """A run of this caller's."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """A model as callers see it.

    Args:
        ref: its ref.
        kind: the provider's wire.
        created: Unix seconds since which it is here.
        aliases: other names for it.
    """

    ref: str
    kind: str
    created: int = 0
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether calls can be answered.

    Args:
        ready: whether they can.
        parts: by store and provider, ``ok`` or what is wrong with it.
    """

    ready: bool
    parts: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What is behind the gateway.

    Args:
        contexts: surroundings for calls.
        runs: runs programs.
        steps: the calls of a run that stand right below its root, in order.
        layers: the keys of the layers that are on.
        authenticator: who a credential belongs to.
        resolve: the ref that a model's name stands for; the second argument is the vendor whose client asks.
        models: those that can be named.
        ready: asks the stores and the providers.
        conditions: how each model does, by ref, as this process saw it.
        counts: what the caches did in this process so far: layer, event, how often.
        embed: points for texts, decided, counted and recorded: context, ref, texts.
        close: finishes what is in the air and lets go.
    """

    contexts: Contexts
    runs: Runs
    steps: Callable[[Record], Awaitable[Sequence[Record]]]
    layers: frozenset[str] = frozenset()
    authenticator: Authenticator
    resolve: Callable[[str, str], str]
    models: Callable[[], Sequence[Model]]
    ready: Callable[[], Awaitable[Readiness]]
    conditions: Callable[[], Mapping[str, Condition]]
    counts: Callable[[], Iterable[tuple[str, str, int]]]
    embed: Callable[[Context, str, Sequence[str]], Awaitable[Embeddings]]
    close: Callable[[], Awaitable[None]]
