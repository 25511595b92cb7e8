"""The hedged call: a second one when the first takes longer than nearly all before it.

Dean and Barroso, The Tail at Scale, Communications of the ACM, 2013.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from types import CoroutineType
from typing import Any, Final

from kaizen.core.errors import KaizenError, ProviderError
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request, Stage, Usage
from kaizen.inference.failover.chain import LAYER
from kaizen.inference.failover.health import Health
from kaizen.inference.prices import PriceTable
from kaizen.inference.streams import Chunks, closing

_QUANTILE: Final = 0.95


class Hedge:
    """A Provider that asks a second time when no answer came within the model's own p95; the first good one wins.

    The other is cancelled. Both count in ``attempts``. What a cancelled call costs nobody says: it is taken to have
    used the tokens of the one that won, on its own model, and the stage says how much of the cost is that estimate.
    Where the p95 is not known yet, or whoever would be asked does badly, there is no second call. Of streams the
    first chunk decides.

    Args:
        inner: whom to ask.
        health: what the models' latencies are.
        prices: what a model's tokens cost.
        second: the models that may take the second call, the best first; else the same model does.
        always: whether calls are hedged whose caller said nothing.
    """

    def __init__(
        self,
        inner: Provider,
        health: Health,
        prices: PriceTable,
        *,
        second: Callable[[Request], Sequence[str]],
        always: bool = False,
    ) -> None:
        self._inner, self._health, self._prices = inner, health, prices
        self._second, self._always = second, always

    def complete(self, request: Request, /) -> CoroutineType[Any, Any, Reply]:
        """The first good answer."""
        after = self._after(request, self._health.latency_ms)
        return self._inner.complete(request) if after is None else self._race(request, after)

    def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The stream that begins first."""
        after = self._after(request, self._health.first_ms)
        return self._inner.stream(request) if after is None else self._race_streams(request, after)

    def _after(self, request: Request, quantile: Callable[[str, float], float | None]) -> float | None:
        """Seconds after which a second call is sent; None for never."""
        wanted = request.options.hedge
        if not (self._always if wanted is None else wanted):
            return None
        ms = quantile(request.model, _QUANTILE)
        return None if ms is None else ms / 1000

    def _other(self, request: Request) -> Request | None:
        """The second call; None where it would do no good."""
        if request.deadline is not None and time.monotonic() >= request.deadline:
            return None
        refs = (*self._second(request)[:1], request.model)
        ref = next((ref for ref in refs if self._health.state(ref) == "ok"), None)
        return None if ref is None else replace(request, model=ref)

    async def _race(self, request: Request, after: float) -> Reply:
        begun = time.perf_counter()
        runners = [_Runner(request.model, asyncio.ensure_future(self._inner.complete(request)))]
        try:
            if not await _within(runners, after) and (other := self._other(request)) is not None:
                runners.append(_Runner(other.model, asyncio.ensure_future(self._inner.complete(other))))
            winner = await _first_good(runners)
            reply = winner.task.result()
            return await self._told(reply, winner, runners, begun) if len(runners) > 1 else reply
        finally:
            await _end(runner.task for runner in runners)

    async def _race_streams(self, request: Request, after: float) -> AsyncIterator[Chunk]:
        begun = time.perf_counter()
        pumps = [_Pump(self._inner.stream(request))]
        runners = [_Runner(request.model, asyncio.ensure_future(pumps[0].get()))]
        try:
            if not await _within(runners, after) and (other := self._other(request)) is not None:
                pumps.append(_Pump(self._inner.stream(other)))
                runners.append(_Runner(other.model, asyncio.ensure_future(pumps[1].get())))
            winner = await _first_good(runners)
            won = pumps[runners.index(winner)]
            await _end(pump.task for pump in pumps if pump is not won)
            chunk = winner.task.result()
            while chunk is not None:
                if chunk.reply is not None and len(runners) > 1:
                    chunk = replace(chunk, reply=await self._told(chunk.reply, winner, runners, begun))
                yield chunk
                chunk = await won.get()
        finally:
            await _end([runner.task for runner in runners] + [pump.task for pump in pumps])

    async def _told(self, reply: Reply, winner: _Runner, runners: list[_Runner], begun: float) -> Reply:
        """The reply, with what the other call cost."""
        other = next(runner for runner in runners if runner is not winner)
        attempts, usage, estimated = other.ended(reply.usage)
        own = reply.cost_usd if reply.cost_usd is not None else await self._usd(reply.model, reply.usage)
        usd = 0.0 if usage is None else await self._usd(other.ref, usage)
        hedge = {
            "asked": [runner.ref for runner in runners],
            "won": "second" if runners.index(winner) else "first",
            "ms": round((time.perf_counter() - begun) * 1000, 3),
            "other_usd": usd,
            "estimated": estimated,
        }
        return replace(
            reply,
            attempts=reply.attempts + attempts,
            cost_usd=None if own is None or usd is None else own + usd,
            stages=(*reply.stages, Stage(LAYER, note={"hedge": hedge})),
        )

    async def _usd(self, ref: str, usage: Usage) -> float | None:
        quote = self._prices.quote(ref) or await asyncio.to_thread(self._prices.look_up, ref)
        return None if quote.price is None else quote.price.cost(usage)


class _Runner:
    """One of the two calls."""

    __slots__ = ("ref", "task")

    def __init__(self, ref: str, task: asyncio.Task[Any]) -> None:
        self.ref, self.task = ref, task

    @property
    def good(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    def ended(self, likely: Usage) -> tuple[int, Usage | None, bool]:
        """Attempts, tokens (None for none) and whether those are an estimate, of the call that did not win."""
        if not self.task.done():
            return 1, likely, True
        error = self.task.exception()
        if error is not None:
            attempts = error.detail.get("attempts", 1) if isinstance(error, ProviderError) else 0
            return attempts if isinstance(attempts, int) else 1, None, False
        result = self.task.result()
        if isinstance(result, Reply):  # both came at once
            return result.attempts, result.usage, False
        return 1, likely, True


class _Pump:
    """Reads a stream in a task of its own, so that it begins while the other is waited for.

    A task, since a generator may hold what belongs to the task that began it. A few chunks ahead at most.
    """

    def __init__(self, chunks: Chunks) -> None:
        self._read: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue(8)
        self.task = asyncio.ensure_future(self._run(chunks))

    async def _run(self, chunks: Chunks) -> None:
        try:
            async with closing(chunks) as stream:
                async for chunk in stream:
                    await self._read.put(chunk)
        except Exception as error:  # noqa: BLE001 - carried to the reader, which raises it
            await self._read.put(error)
        else:
            await self._read.put(None)

    async def get(self) -> Chunk | None:
        """The next chunk, None at the end."""
        item = await self._read.get()
        if isinstance(item, Exception):
            raise item
        return item


async def _within(runners: list[_Runner], seconds: float) -> bool:
    """Whether the first call ended in that time."""
    done, _ = await asyncio.wait([runners[0].task], timeout=seconds)
    return bool(done)


async def _first_good(runners: list[_Runner]) -> _Runner:
    """The first call with an answer; raises what the first call raised where none has one."""
    pending = {runner.task for runner in runners}
    while pending:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        winner = next((runner for runner in runners if runner.good), None)
        if winner is not None:
            return winner
    failure = runners[0].task.exception()
    assert failure is not None  # noqa: S101 - for the type checker: it is over and not good
    if isinstance(failure, KaizenError) and len(runners) > 1:
        attempts = sum(runner.ended(Usage())[0] for runner in runners)
        failure.detail = {**failure.detail, "attempts": attempts}
    raise failure


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what still runs, and wait until it let go of its connection."""
    every = list(tasks)
    for task in every:
        task.cancel()
    # those that are over as well: an error that nobody looks at would be reported when it is collected
    await asyncio.gather(*every, return_exceptions=True)
