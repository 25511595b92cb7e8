"""A cheap model answers first, and a dearer one where the cheap one was not sure of its own words.

The idea is FrugalGPT's (Chen, Zaharia and Zou 2023, https://arxiv.org/abs/2305.05176); the confidence is the model's
own, by the probabilities of the tokens it wrote.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, assert_never

from kaizen.core.errors import BudgetExceeded, KaizenError
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request, Spare, Stage, TokenLogprob, Usage
from kaizen.inference.prices import PriceTable

Measure: TypeAlias = Literal["mean", "least", "product"]
"""How token probabilities become one: their geometric mean, the least of them, or all of them multiplied.

``product`` is the probability of the whole text, which suits labels and other short answers; it falls with every
token, so long answers need one of the others.
"""

LAYER: Final = "cascade"


def confidence(tokens: Sequence[TokenLogprob], measure: Measure = "mean") -> float | None:
    """How sure a model was of these tokens, 0 to 1; None without any."""
    logs = [token.logprob for token in tokens]
    if not logs:
        return None
    match measure:
        case "mean":
            log = sum(logs) / len(logs)
        case "least":
            log = min(logs)
        case "product":
            log = sum(logs)
        case _:
            assert_never(measure)
    return math.exp(min(0.0, log))


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a threshold leads to on the answers it was calibrated on.

    Args:
        confidence: the cheap answer counts from this one on.
        escalated: share of the calls that go on to the strong model.
        right: share of right answers.
    """

    confidence: float
    escalated: float
    right: float


def calibrate(confidences: Sequence[float], right: Sequence[bool], strong: float, target: float = 0.95) -> Threshold:
    """The lowest threshold at which the cascade is right as often as ``target`` of the strong model alone.

    Args:
        confidences: of the cheap model's answers to labelled examples.
        right: whether those answers were right.
        strong: the strong model's accuracy, 0 to 1, taken to be the same whatever the cheap one's confidence.
        target: share of that accuracy.
    """
    ordered = sorted(zip(confidences, right, strict=True), reverse=True)
    n = len(ordered)
    kept = best = 0
    reached = strong
    threshold = math.inf
    for at, (one, good) in enumerate(ordered, 1):
        kept += good
        # equal confidences fall on one side together
        if at < n and ordered[at][0] == one:
            continue
        share = (kept + (n - at) * strong) / n
        if share >= target * strong - 1e-12:
            best, reached, threshold = at, share, one
    return Threshold(threshold, 1 - best / n if n else 1.0, reached)


@dataclass(frozen=True, slots=True)
class Sureness:
    """When an answer counts.

    Args:
        least: the confidence from which on it does, 0 to 1.
        measure: how that is reckoned.
    """

    least: float = 0.8
    measure: Measure = "mean"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A cascade's answer.

    Args:
        reply: with the usage, attempts and cost of all models asked together.
        usage: of the answer that counted alone: what one model would have used that was asked at once.
    """

    reply: Reply
    usage: Usage


class Cascade:
    """A Provider that asks its models in order until one is sure enough; the last one's answer always counts.

    An answer without log-probabilities shows no confidence, and a failure is none, nor is a parameter that a model has
    no place for: all go on to the next. Only a spent budget ends it, as it would for the next. A stream is given when
    its answer is whole, for until then nobody knows whether it counts.

    Args:
        inner: whom to ask.
        models: refs, the cheapest first.
        sureness: when an answer counts.
        prices: what tokens cost.
    """

    def __init__(self, inner: Provider, models: Sequence[str], sureness: Sureness, prices: PriceTable) -> None:
        self._inner, self.models, self._sureness, self._prices = inner, tuple(models), sureness, prices

    async def complete(self, request: Request, /) -> Reply:
        """The first answer that is sure enough."""
        return (await self.ask(request)).reply

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The same, in one piece."""
        reply = await self.complete(request)
        if reply.text:
            yield Chunk(reply.text)
        yield Chunk(reply=reply)

    async def ask(self, request: Request) -> Outcome:
        """The answer, and what it alone used.

        Raises:
            KaizenError: the last model's; ``detail["billed"]`` is set where one before it answered.
            BudgetExceeded: any model's, the same.
        """
        begun, waited = time.perf_counter(), 0.0
        tried: list[dict[str, Any]] = []
        replies: list[Reply] = []
        wanted = request.top_logprobs is not None
        for model in self.models:
            last = model == self.models[-1]
            # the last one's confidence changes nothing, and some providers offer none
            logprobs = request.top_logprobs if wanted or last else Spare(0)
            asked = time.perf_counter()
            try:
                reply = await self._inner.complete(replace(request, model=model, top_logprobs=logprobs))
            except KaizenError as error:
                if last or isinstance(error, BudgetExceeded):
                    if replies:
                        error.detail = {**error.detail, "billed": True}
                    raise
                tried.append({"model": model, "error": error.code})
                continue
            finally:
                waited += time.perf_counter() - asked
            replies.append(reply)
            sure = None if reply.finish != "stop" else confidence(reply.logprobs, self._sureness.measure)
            tried.append({"model": model, "confidence": sure})
            if last or (sure is not None and sure >= self._sureness.least):
                break
        answer = replies[-1] if wanted else replace(replies[-1], logprobs=())
        ms = (time.perf_counter() - begun - waited) * 1000
        return Outcome(await self._summed(answer, replies, tried, ms), answer.usage)

    async def _summed(self, answer: Reply, replies: Sequence[Reply], tried: list[dict[str, Any]], ms: float) -> Reply:
        costs = [await self._cost(one) for one in replies]
        cost = None if any(one is None for one in costs) else sum(one or 0.0 for one in costs)
        strong = await self._prices.price(self.models[-1])
        alone = None if strong is None else strong.cost(answer.usage)
        note = {"asked": tried, "least": self._sureness.least, "measure": self._sureness.measure}
        saved = None if alone is None or cost is None else alone - cost
        return replace(
            answer,
            usage=_together(replies),
            attempts=sum(one.attempts for one in replies),
            cost_usd=cost,
            stages=(*(stage for one in replies for stage in one.stages), Stage(LAYER, ms, saved, note)),
        )

    async def _cost(self, reply: Reply) -> float | None:
        if reply.cost_usd is not None:
            return reply.cost_usd
        price = await self._prices.price(reply.model)
        return None if price is None else price.cost(reply.usage)


def _together(replies: Sequence[Reply]) -> Usage:
    usages = [one.usage for one in replies]
    return Usage(
        tokens_in=sum(one.tokens_in for one in usages),
        tokens_out=sum(one.tokens_out for one in usages),
        tokens_cached=sum(one.tokens_cached for one in usages),
        tokens_cache_write=sum(one.tokens_cache_write for one in usages),
        tokens_reasoning=sum(one.tokens_reasoning for one in usages),
        estimated=any(one.estimated for one in usages),
    )
