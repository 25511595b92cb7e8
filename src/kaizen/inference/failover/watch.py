"""The layer that sees every single call: it measures each model's health, and refuses calls while a circuit is open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from kaizen.core.errors import ProviderError, RateLimited, Timeout, Unavailable
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request
from kaizen.inference.failover.health import Health
from kaizen.inference.failover.vitals import Admission, Outcome, Vitals
from kaizen.inference.streams import closing

# Who waits less than this has learned nothing about a model whose latency is not known yet, in milliseconds.
_PATIENT_MS: Final = 10_000.0


class CircuitOpen(Unavailable):
    """The model failed too often of late and was not asked. ``retry_after`` says when it may be."""


class Watch:
    """A Provider that measures, see ``Health``, and raises CircuitOpen instead of asking a model whose circuit is open.

    It stands under the retries, so that each attempt counts. Only a provider's own faults do: Unavailable and
    Timeout. A caller who leaves, or whose deadline was too short, says nothing about the model; a deadline passed
    after three times the p95 (10 s where that is not known) does.
    """

    def __init__(self, inner: Provider, health: Health) -> None:
        self._inner, self._health = inner, health

    async def complete(self, request: Request, /) -> Reply:
        """The answer, measured."""
        health = self._health
        vitals = health.of(request.model)
        begun = health.clock()
        admitted = vitals.admit(begun)
        if admitted == "refused":
            raise _shut(request, vitals, begun)
        try:
            reply = await self._inner.complete(request)
        except BaseException as error:
            now = health.clock()
            vitals.end(now, _outcome(error, request, vitals, now, begun), admitted)
            raise
        now = health.clock()
        vitals.end(now, "ok", admitted, ms=(now - begun) * 1000)
        return reply

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The stream, measured; one that ends without its answer is an error."""
        health = self._health
        vitals = health.of(request.model)
        begun = health.clock()
        admitted = vitals.admit(begun)
        if admitted == "refused":
            raise _shut(request, vitals, begun)
        call = _Streamed(vitals, admitted, begun)
        try:
            async with closing(self._inner.stream(request)) as chunks:
                async for chunk in chunks:
                    call.chunk(chunk, health.clock())
                    yield chunk
            if not call.over:
                raise Unavailable("the stream ended before its answer was whole", model=request.model)
        except BaseException as error:
            now = health.clock()
            call.end(now, _outcome(error, request, vitals, now, begun))
            raise


class _Streamed:
    """A stream on its way; it is over with its last chunk, whatever the reader does then."""

    __slots__ = ("_admitted", "_begun", "_first", "_vitals", "over")

    def __init__(self, vitals: Vitals, admitted: Admission, begun: float) -> None:
        self._vitals, self._begun = vitals, begun
        self._admitted: Admission = admitted
        self._first: float | None = None
        self.over = False

    def chunk(self, chunk: Chunk, now: float) -> None:
        if self._first is None:
            self._first = (now - self._begun) * 1000
        if chunk.reply is not None:
            self.end(now, "ok")

    def end(self, now: float, outcome: Outcome) -> None:
        if self.over:
            return
        self.over = True
        ms = (now - self._begun) * 1000 if outcome == "ok" else None
        self._vitals.end(now, outcome, self._admitted, ms=ms, first=self._first)


def _shut(request: Request, vitals: Vitals, now: float) -> CircuitOpen:
    return CircuitOpen(
        f"{request.model} failed too often of late and is not asked for the moment",
        provider=request.model.partition("/")[0],
        model=request.model,
        retry_after=vitals.left(now),
    )


def _outcome(error: BaseException, request: Request, vitals: Vitals, now: float, begun: float) -> Outcome:
    match error:
        case RateLimited():
            return "limited"
        case Timeout() | Unavailable() | asyncio.CancelledError():
            late = request.deadline is not None and time.monotonic() >= request.deadline
            if not late:
                return "unknown" if isinstance(error, asyncio.CancelledError) else "fault"
            usual = vitals.quantile(now, 0.95)
            return "fault" if (now - begun) * 1000 > (_PATIENT_MS if usual is None else 3 * usual) else "unknown"
        case ProviderError():
            return "other"
        case _:
            return "unknown"
