"""The outermost layer: what each answer cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from kaizen.core.protocols import Provider
from kaizen.core.quick.values import changed
from kaizen.core.request import Chunk, Reply, Request
from kaizen.inference.prices import PriceTable
from kaizen.inference.streams import closing


class Meter:
    """A Provider that fills ``Reply.cost_usd`` from the reply's usage.

    A cost that is set already (by a layer that answered without a model, or a provider that reports what
    it bills) stays. An unknown price leaves None.

    Args:
        inner: whom to ask.
        prices: what a model's tokens cost.
    """

    def __init__(self, inner: Provider, prices: PriceTable) -> None:
        self._inner, self._prices = inner, prices
        self._ahead: set[str] = set()

    async def complete(self, request: Request, /) -> Reply:
        """The priced answer."""
        self._look_ahead(request.model)
        return await self._priced(await self._inner.complete(request))

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The stream, priced in its last chunk."""
        self._look_ahead(request.model)
        async with closing(self._inner.stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.reply is None:
                    yield chunk
                else:
                    yield Chunk(chunk.text, await self._priced(chunk.reply))

    def _look_ahead(self, ref: str) -> None:
        # Reading the maintained table takes some 0.4 s of CPU, once a process: it is done in a thread while the
        # model is at work, so that neither the loop nor, as a rule, the answer waits for it.
        if self._prices.quote(ref) is None and ref not in self._ahead:
            self._ahead.add(ref)
            asyncio.get_running_loop().run_in_executor(None, self._prices.look_up, ref)

    async def _priced(self, reply: Reply) -> Reply:
        if reply.cost_usd is not None:
            return reply
        quote = self._prices.quote(reply.model)
        if quote is None:
            quote = await asyncio.to_thread(self._prices.look_up, reply.model)
        cost = quote.price.cost(reply.usage) if quote.price is not None else None
        return reply if cost is None else changed(reply, cost_usd=cost)
