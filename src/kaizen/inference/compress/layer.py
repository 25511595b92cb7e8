"""The layer that sends fewer tokens, as strongly as the measured risk to the answer allows."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_core import to_json

from kaizen.core.errors import KaizenError, ProviderError
from kaizen.core.message import Text, ToolCall, ToolResult
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request, Stage, Usage
from kaizen.inference.ceiling import may_compare
from kaizen.inference.compress.compressor import Compressor, Shortened
from kaizen.inference.compress.evidence import Evidence, agree
from kaizen.inference.compress.prefix import Prefixes
from kaizen.inference.prices import PriceTable
from kaizen.inference.streams import closing

LAYER: Final = "compress"
# Seconds that a caller must have left for a model to read the prompt first.
_SLOW: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """How much may be risked, and how it is found out.

    Args:
        limit: the share of answers that may change.
        sample: the share of calls that are sent both whole and shortened, to learn; the caller gets the answer to the
            whole one and pays for both.
    """

    limit: float = 0.01
    sample: float = 0.0


class Compress:
    """A Provider that shortens prompts before they are sent.

    Without evidence only what loses nothing goes. With it (``Evidence``, by tenant, model and type of task) the
    strongest level is taken whose risk is known to be within the limit. A strategy that fails leaves the prompt as it
    is.

    Args:
        inner: whom to ask.
        compressor: shortens.
        evidence: how often answers agreed.
        prices: what the tokens left out would have cost.
        risk: the limit, and how to learn.
        prefixes: marks the stable part for the provider's prompt cache; None marks nothing.
        draw: a number from 0 to 1, at random.
    """

    def __init__(
        self,
        inner: Provider,
        *,
        compressor: Compressor,
        evidence: Evidence,
        prices: PriceTable,
        risk: Risk = Risk(),
        prefixes: Prefixes | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._inner, self._compressor, self._evidence = inner, compressor, evidence
        self._prices, self._risk, self._prefixes, self._draw = prices, risk, prefixes, draw

    async def complete(self, request: Request, /) -> Reply:
        """The answer to the shortened prompt, or to the whole one where that is not known to be safe."""
        if request.options.compress is False:
            return await self._inner.complete(request)
        plan = await self._plan(request)
        if plan.probe is not None:
            return await self._compared(request, plan, plan.probe)
        return await self._staged(plan, await self._inner.complete(plan.request))

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The same, streamed. Streams are not sampled: two answers can't be compared before one is passed on."""
        if request.options.compress is False:
            plan = None
        else:
            plan = await self._plan(request, streamed=True)
        async with closing(self._inner.stream(request if plan is None else plan.request)) as chunks:
            async for chunk in chunks:
                if plan is None or chunk.reply is None:
                    yield chunk
                else:
                    yield replace(chunk, reply=await self._staged(plan, chunk.reply))

    async def _plan(self, request: Request, *, streamed: bool = False) -> _Plan:
        begun = time.perf_counter()
        task = task_of(request)
        number, bound = self._evidence.strongest(request.scope, request.model, task, self._risk.limit)
        number = self._in_time(request, min(number, len(self._compressor.levels) - 1))
        short, failed = await self._shortened(request, number)
        probe = None
        if not streamed and self._sampled(request):
            number, probe, failed = await self._stronger(request, number, short)
        sent = request if probe is not None else short.request
        if self._prefixes is not None:
            sent = self._prefixes.marked(sent)
        name = self._compressor.levels[number].name
        ms = (time.perf_counter() - begun) * 1000
        return _Plan(sent, short, probe, task, number, name, bound, failed, ms, sent is not short.request)

    async def _stronger(
        self, request: Request, number: int, short: Shortened
    ) -> tuple[int, Shortened | None, str | None]:
        """The next level that takes more away, to learn whether it may; else this one, whether it still may."""
        failed = None
        for above in range(number + 1, self._in_time(request, len(self._compressor.levels) - 1) + 1):
            probe, failed = await self._shortened(request, above)
            if failed is None and probe.after < short.after:
                return above, probe, None
        return number, short if number and short.request is not request else None, failed

    async def _shortened(self, request: Request, number: int) -> tuple[Shortened, str | None]:
        try:
            return await self._compressor.shorten(request, self._compressor.levels[number]), None
        except ProviderError as error:  # nobody asked for an embedding: the call goes on without
            return Shortened(request, (), 0, 0), error.code

    def _in_time(self, request: Request, number: int) -> int:
        """The level, or the one below where a model would have to read and the caller can't wait for it."""
        hurried = request.options.latency_budget_ms is not None or (
            request.deadline is not None and request.deadline - time.monotonic() < _SLOW
        )
        return number - 1 if hurried and self._compressor.levels[number].words is not None else number

    def _sampled(self, request: Request) -> bool:
        """Whether to send it both ways."""
        return self._risk.sample > 0 and may_compare(request.options) and self._draw() < self._risk.sample

    async def _compared(self, request: Request, plan: _Plan, probe: Shortened) -> Reply:
        """The answer to the whole prompt, after the answer to the shortened one was compared with it."""
        whole, other = await self._both(plan.request, probe.request)
        if other is None:
            return whole
        agreed = None
        if whole.model == other.model:  # two models may differ whatever they were sent
            agreed = agree(whole, other)
            await asyncio.to_thread(
                self._evidence.add, request.scope, request.model, plan.task, plan.number, agreed=agreed
            )
        paid, cost = await self._paid(whole), await self._paid(other)
        note = {**plan.note(), "sampled": True, "agreed": agreed, "strategies": list(probe.strategies)}
        note |= {"before": whole.usage.tokens_in, "after": other.usage.tokens_in}
        stage = Stage(LAYER, plan.ms, None if cost is None else -cost, note)
        return replace(
            whole,
            usage=_sum(whole.usage, other.usage),
            cost_usd=None if paid is None or cost is None else paid + cost,
            attempts=whole.attempts + other.attempts,
            stages=(*whole.stages, stage),
        )

    async def _both(self, whole: Request, short: Request) -> tuple[Reply, Reply | None]:
        """The answer to the whole prompt, and to the shortened one where there is one.

        Raises:
            KaizenError: of the whole one; ``detail["billed"]`` is set where the other was answered.
        """
        trying = asyncio.ensure_future(self._tried(short))
        try:
            return await self._inner.complete(whole), await trying
        except KaizenError as error:
            if await trying is not None:
                error.detail = {**error.detail, "billed": True}
            raise
        finally:
            trying.cancel()  # where the caller went away; else it is over
            await asyncio.wait([trying])

    async def _paid(self, reply: Reply) -> float | None:
        return reply.cost_usd if reply.cost_usd is not None else await self._cost(reply.model, reply.usage)

    async def _tried(self, request: Request) -> Reply | None:
        try:
            return await self._inner.complete(request)
        except KaizenError:
            return None  # what was only asked to learn fails nobody's call, nor does an allowance that has none left

    async def _staged(self, plan: _Plan, reply: Reply) -> Reply:
        short = plan.short
        if not short.strategies and not plan.marked and plan.failed is None:
            return reply
        after = reply.usage.tokens_in
        # the provider counted what was sent; what was not is counted at the same characters a token
        removed = short.before - short.after
        before = after + round(after * removed / max(1, _characters(plan.request))) if removed > 0 else after
        saved: float | None = 0.0
        if before > after:
            whole = await self._cost(reply.model, replace(reply.usage, tokens_in=before))
            paid = await self._cost(reply.model, reply.usage)
            saved = None if whole is None or paid is None else whole - paid
        strategies = [*short.strategies, *(["prefix"] if plan.marked else [])]
        note = {**plan.note(), "before": before, "after": after, "strategies": strategies}
        return replace(reply, stages=(*reply.stages, Stage(LAYER, plan.ms, saved, note)))

    async def _cost(self, ref: str, usage: Usage) -> float | None:
        quote = self._prices.quote(ref)
        if quote is None:
            quote = await asyncio.to_thread(self._prices.look_up, ref)
        return None if quote.price is None else quote.price.cost(usage)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is sent, and why.

    Args:
        request: sent, marks included.
        short: the request shortened as far as is allowed.
        probe: a stronger one to compare with, where this call is sampled.
        task: what the evidence is filed under.
        number, name: the level of what is shortened.
        risk: the bound that allowed it.
        failed: the error code of a strategy that could not work.
        ms: what all this took.
        marked: whether the stable part was moved or marked.
    """

    request: Request
    short: Shortened
    probe: Shortened | None
    task: str
    number: int
    name: str
    risk: float
    failed: str | None
    ms: float
    marked: bool

    def note(self) -> dict[str, Any]:
        """What the stage says of it."""
        note: dict[str, Any] = {"level": self.name, "risk": round(self.risk, 5), "filed": self.task}
        return note | ({"failed": self.failed} if self.failed is not None else {})


def task_of(request: Request) -> str:
    """What the evidence is filed under: the caller's type of task, else the instructions, whose calls are alike."""
    if request.options.task:
        return request.options.task
    told = "\n".join(one.text for one in request.messages if one.role == "system")
    shape = request.output.name if request.output is not None else ""
    digest = hashlib.sha256(f"{shape}\n{told}".encode()).hexdigest()
    return f"prompt:{digest[:12]}"


def _characters(request: Request) -> int:
    """Everything of a request that becomes prompt tokens, in characters."""
    size = 0
    for message in request.messages:
        for part in message.parts:
            match part:
                case Text(text):
                    size += len(text)
                case ToolResult(_, content):
                    size += len(content)
                case ToolCall(_, name, arguments):
                    size += len(name) + len(arguments)
                case _:
                    pass
    return size + (len(to_json(request.tools)) if request.tools else 0)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        tokens_in=one.tokens_in + other.tokens_in,
        tokens_out=one.tokens_out + other.tokens_out,
        tokens_cached=one.tokens_cached + other.tokens_cached,
        tokens_cache_write=one.tokens_cache_write + other.tokens_cache_write,
        tokens_reasoning=one.tokens_reasoning + other.tokens_reasoning,
        estimated=one.estimated or other.estimated,
    )
