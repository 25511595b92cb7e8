"""The batch layer: calls that can wait go through the vendors' batch APIs, at about half the price."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from types import CoroutineType
from typing import Any, Final
from weakref import WeakKeyDictionary

from kaizen.core.errors import ProviderError, StoreError
from kaizen.core.ids import digest
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Claim, Reply, Request, Stage, Usage
from kaizen.inference.batch.api import BatchApi, Book
from kaizen.inference.batch.desk import Answered, Desk, Timing
from kaizen.inference.key import request_key
from kaizen.inference.prices import PriceTable
from kaizen.inference.streams import closing

LAYER: Final = "batch"
_NOTHING: Final = Usage()


class Batch:
    """A Provider that hands calls whose caller allows it (``Options.batch``) to a vendor's batch API.

    A call is asked directly, and a stage says why, where its time (``deadline`` or ``latency_budget_ms``) is shorter
    than ``least_wait``, where its provider has no batch API or refuses the batch, and where no answer came by
    ``reserve`` before its time is over: then it is taken back, and its batch is cancelled once nobody is left in it.
    What the vendor had answered by then may be billed beside the direct call; no batch tells.

    A call of a run is known again by its run, step and request: made again after the process died, it gets what its
    batch brought, and no batch is handed in twice. Calls outside a run are new each time.

    A call is taken from its run's allowance when it goes into a batch, and what it used is put in the place of that
    when it is answered, at the direct price. A batch that was not handed in gives it back; one that was does not,
    however it ends without an answer: what the vendor worked on may be billed. Who finds a batch that an earlier
    process handed in takes nothing more, and what that one took stays taken.

    Args:
        inner: whom to ask directly.
        apis: by provider name, its batch API, made when first needed.
        book: what outlives the process.
        prices: what a model's tokens cost when asked directly.
        discount: by model ref, the share of that which a batch saves.
        timing: how patiently calls wait.
    """

    def __init__(
        self,
        inner: Provider,
        *,
        apis: Mapping[str, Callable[[], BatchApi]],
        book: Book,
        prices: PriceTable,
        discount: Callable[[str], float],
        timing: Timing,
    ) -> None:
        self._inner, self._factories, self._book = inner, apis, book
        self._prices, self._discount, self._timing = prices, discount, timing
        self._apis: dict[str, BatchApi] = {}
        self._desks: WeakKeyDictionary[asyncio.AbstractEventLoop, Desk] = WeakKeyDictionary()
        self._making = threading.Lock()

    def complete(self, request: Request, /) -> CoroutineType[Any, Any, Reply]:
        """The answer, from a batch where there is time for it."""
        return self._complete(request) if request.options.batch else self._inner.complete(request)

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The stream, which waits for nobody: who reads along wants to."""
        async with closing(self._inner.stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.reply is not None and request.options.batch:
                    yield replace(chunk, reply=_direct(chunk.reply, "it is streamed", 0.0))
                else:
                    yield chunk

    async def _complete(self, request: Request) -> Reply:
        begun = time.monotonic()
        left = _left(request, begun)
        if request.model.partition("/")[0] not in self._factories:
            return await self._ask(request, "its provider has no batch API", begun)
        if left is not None and left < self._timing.least_wait:
            return await self._ask(request, "it has less time than least_wait", begun)
        key = _key(request)
        desk, taken = self._desk(), _Taken(request)
        limit = asyncio.timeout(None if left is None else max(0.0, left - self._timing.reserve))
        try:
            async with limit:
                answered = await desk.answer(key, request, taken.take)
        except TimeoutError:
            if not limit.expired():
                raise
            await _taken_back(desk, key, taken)
            return await self._ask(request, "its batch took too long", begun)
        except (ProviderError, StoreError) as error:
            await _taken_back(desk, key, taken)
            return await self._ask(request, f"its batch failed: {error.code}", begun)
        await taken.settle(answered.reply.usage)
        return await self._priced(answered, begun)

    async def _ask(self, request: Request, why: str, begun: float) -> Reply:
        waited = time.monotonic() - begun
        return _direct(await self._inner.complete(request), why, waited)

    async def _priced(self, answered: Answered, begun: float) -> Reply:
        """The reply at the batch's price, and what that saves of the direct one."""
        reply = answered.reply
        quote = self._prices.quote(reply.model) or await asyncio.to_thread(self._prices.look_up, reply.model)
        usd = quote.price.cost(reply.usage) if quote.price is not None else None
        saved = None if usd is None else usd * self._discount(reply.model)
        cost = None if usd is None or saved is None else usd - saved
        waited = time.monotonic() - begun
        stage = Stage(LAYER, waited * 1000, saved, {"batch": answered.batch_id, "waited_s": round(waited, 3)})
        return replace(reply, cost_usd=cost, stages=(*reply.stages, stage))

    def _desk(self) -> Desk:
        """The running loop's: its tasks and connections are the loop's own."""
        loop = asyncio.get_running_loop()
        with self._making:
            desk = self._desks.get(loop)
            if desk is None:
                desk = self._desks[loop] = Desk(_Made(self._factories, self._apis), self._book, self._timing)
        return desk


class _Taken:
    """What a call took from its run's allowance: it goes past the adapters, where calls are counted else."""

    __slots__ = ("_claim", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self._claim: Claim | None = None

    async def take(self) -> Request:
        """The request as it may be sent; once taken it is not taken again for another try."""
        if self.request.allowance is None:
            return self.request
        if self._claim is None:
            self._claim = await self.request.allowance.take(self.request)
        return self._claim.request

    async def settle(self, usage: Usage) -> None:
        """Put what was used in the place of what was taken, if anything was."""
        if self._claim is not None:
            await self._claim.settle(usage)


async def _taken_back(desk: Desk, key: str, taken: _Taken) -> None:
    """Leave the batch, and give back what was taken for it where nothing was handed in."""
    handed_in = True  # for all that anybody can tell where the book fails
    with suppress(StoreError):
        handed_in = await desk.take_back(key, taken.request)
    if not handed_in:
        await taken.settle(_NOTHING)


class _Made(Mapping[str, BatchApi]):
    """Batch APIs, each made when it is first asked for."""

    def __init__(self, factories: Mapping[str, Callable[[], BatchApi]], made: dict[str, BatchApi]) -> None:
        self._factories, self._made = factories, made

    def __getitem__(self, name: str) -> BatchApi:
        if name not in self._made:
            self._made[name] = self._factories[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._factories)

    def __len__(self) -> int:
        return len(self._factories)


def _left(request: Request, now: float) -> float | None:
    """Seconds that the call may take; None for as many as it needs."""
    budget = request.options.latency_budget_ms
    ends = [end for end in (request.deadline, None if budget is None else now + budget / 1000) if end is not None]
    return min(ends) - now if ends else None


def _key(request: Request) -> str:
    """The same for a call that is made again by the same step of the same run."""
    return digest(f"{request_key(request)} {request.step or secrets.token_hex()}".encode())


def _direct(reply: Reply, why: str, waited: float) -> Reply:
    note = {"direct": why, "waited_s": round(waited, 3)}
    return replace(reply, stages=(*reply.stages, Stage(LAYER, waited * 1000, note=note)))
