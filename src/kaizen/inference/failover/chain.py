"""The fallback chain: another model where one can't answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import CoroutineType
from typing import Any, Final

from kaizen.core.errors import ContextTooLong, KaizenError, ProviderError, RateLimited, Timeout, Unavailable
from kaizen.core.identity import permits
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request, Stage
from kaizen.inference.failover.watch import CircuitOpen
from kaizen.inference.streams import closing

EVERY: Final = "*"
LAYER: Final = "failover"


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """Who is asked instead.

    Args:
        chains: by model ref, whom to ask instead, in order; ``"*"`` is for models without a chain of their own.
        contexts: by model ref, the tokens that a prompt and its answer may have, where that is known.
        patience: seconds that a rate-limited model is waited for while there is another to ask.
    """

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    contexts: Mapping[str, int] = field(default_factory=dict[str, int])
    patience: float = 5.0

    def after(self, request: Request) -> tuple[str, ...]:
        """The models that may be asked in this one's place.

        None for a caller who wants this model and no other, and none that the caller may not ask.
        """
        refs = self.chains.get(request.model) or self.chains.get(EVERY)
        if not refs:
            return ()
        options = request.options
        if options.routing == "explicit" and not options.fallback:
            return ()
        return tuple(ref for ref in refs if ref != request.model and permits(options.models, ref))

    def wait_for(self, request: Request) -> float | None:
        """Seconds that this model may have itself waited for, for ``Retry``; None where no other can be asked."""
        return self.patience if self.after(request) else None

    def candidates(self, request: Request) -> Sequence[str]:
        """Every model that may come to answer, for ``Ceiling``."""
        return (request.model, *self.after(request))


class Failover:
    """A Provider that asks the next model of the chain when one is open, unavailable, late, or limited for too long.

    A prompt too long for one model goes to the next only if that one is known to take more. ``Reply.model`` says who
    answered and a stage whom it was asked of and why; where nobody can answer, the error is that of the caller's own
    model, with the others' in ``detail``. A stream falls over until its first chunk was passed on, and breaks after
    it: the text of two models must not be mixed.

    Args:
        inner: whom to ask.
        fallbacks: who is asked instead.
        bound: what a request may cost at most, or None where that is not known: no fallback passes a caller's
            ``cost_budget_usd``.
    """

    def __init__(
        self, inner: Provider, fallbacks: Fallbacks, bound: Callable[[Request], float | None] | None = None
    ) -> None:
        self._inner, self._fallbacks, self._bound = inner, fallbacks, bound

    def complete(self, request: Request, /) -> CoroutineType[Any, Any, Reply]:
        """The answer of the first model that has one."""
        refs = self._fallbacks.after(request)
        return self._complete(request, refs) if refs else self._inner.complete(request)

    async def _complete(self, request: Request, refs: tuple[str, ...]) -> Reply:
        trail = _Trail(request, refs, self._fallbacks.contexts, self._bound)
        ask = request
        while True:
            try:
                reply = await self._inner.complete(ask)
            except KaizenError as error:
                ask = trail.next(ask, error)
            else:
                return trail.told(reply)

    def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The stream of the first model that begins one."""
        refs = self._fallbacks.after(request)
        return self._stream(request, refs) if refs else self._inner.stream(request)

    async def _stream(self, request: Request, refs: tuple[str, ...]) -> AsyncIterator[Chunk]:
        trail = _Trail(request, refs, self._fallbacks.contexts, self._bound)
        ask = request
        while True:
            passed_on = False
            try:
                async with closing(self._inner.stream(ask)) as chunks:
                    async for chunk in chunks:
                        passed_on = True
                        yield chunk if chunk.reply is None else replace(chunk, reply=trail.told(chunk.reply))
                return
            except KaizenError as error:
                if passed_on:
                    raise
                ask = trail.next(ask, error)


class _Trail:
    """Who was asked so far, and why somebody else is now."""

    __slots__ = ("_attempts", "_bound", "_contexts", "_error", "_full", "_request", "_rest", "_why")

    def __init__(
        self,
        request: Request,
        refs: tuple[str, ...],
        contexts: Mapping[str, int],
        bound: Callable[[Request], float | None] | None,
    ) -> None:
        self._request, self._rest = request, iter(refs)
        self._contexts, self._bound = contexts, bound
        self._why: dict[str, str] = {}
        self._error: KaizenError | None = None
        self._attempts = 0
        self._full: int | None = None  # the longest context that was too short, 0 for one that is not known

    def next(self, asked: Request, error: KaizenError) -> Request:
        """The request to the next model; raises the error of the first where there is none to ask."""
        first = self._error is None
        reason = _reason(error) or (None if first else error.code)
        deadline = self._request.deadline
        if reason is None or (first and deadline is not None and time.monotonic() >= deadline):
            raise error
        self._error = self._error or error
        self._why[asked.model] = reason
        self._attempts += _attempts(error)
        if isinstance(error, ContextTooLong):
            self._full = max(self._full or 0, self._contexts.get(asked.model, 0))
        late = deadline is not None and time.monotonic() >= deadline
        for ref in () if late else self._rest:
            request = replace(self._request, model=ref)
            refused = self._refused(request)
            if refused is None:
                return request
            self._why[ref] = refused
        self._error.detail = {**self._error.detail, "attempts": self._attempts, "asked": dict(self._why)}
        raise self._error from None

    def told(self, reply: Reply) -> Reply:
        """The reply, with a stage where another model was asked first."""
        if self._error is None:
            return reply
        note = {"asked": [*self._why, reply.model], "why": dict(self._why)}
        stage = Stage(LAYER, note=note)
        return replace(reply, attempts=reply.attempts + self._attempts, stages=(*reply.stages, stage))

    def _refused(self, request: Request) -> str | None:
        """Why a model of the chain can't be asked."""
        if self._full is not None and self._contexts.get(request.model, 0) <= self._full:
            return "no longer context"
        budget = request.options.cost_budget_usd
        if budget is not None and self._bound is not None:
            usd = self._bound(request)
            if usd is None or usd > budget:
                return "may cost more than cost_budget_usd"
        return None


def _reason(error: KaizenError) -> str | None:
    """Why another model may be asked; None where it would be no better, or is not ours to decide."""
    match error:
        case CircuitOpen():
            return "open"
        case Timeout() if not error.retryable:
            return None  # the caller's own deadline
        case Unavailable() | Timeout() | RateLimited() | ContextTooLong():
            return error.code
        case _:
            return None


def _attempts(error: KaizenError) -> int:
    attempts = error.detail.get("attempts", 1) if isinstance(error, ProviderError) else 0
    return attempts if isinstance(attempts, int) else 1
