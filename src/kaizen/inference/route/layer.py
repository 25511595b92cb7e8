"""The layer that chooses which model answers, and says why."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from types import CoroutineType
from typing import Any, Final

from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Options, Reply, Request, Stage, Usage
from kaizen.inference.cascade import Cascade
from kaizen.inference.health import Health
from kaizen.inference.prices import Price, PriceTable
from kaizen.inference.route.candidates import Candidate, Capability, Constraint, Seen, Size, assess
from kaizen.inference.route.catalogue import Catalogue, Field
from kaizen.inference.route.choice import PACE_WEIGHT, QUALITY_WEIGHT, Case, decide, note_of
from kaizen.inference.route.evidence import Book
from kaizen.inference.route.judge import Judge
from kaizen.inference.streams import closing

LAYER: Final = "route"
_MEDIAN, _SLOW = 0.5, 0.95
# What an explicit call is held to: the caller's wishes and what they may ask, not our guesses at what a model can do.
_EXPLICIT: Final[frozenset[Constraint]] = frozenset(
    {"policy", "latency_budget_ms", "cost_budget_usd", "quality_threshold"}
)
_MTOK: Final = 1e6


@dataclass(frozen=True, slots=True)
class Views:
    """What the layer looks at to choose.

    Args:
        health: how the models are doing.
        prices: what tokens cost.
        capability: what is known of a model beforehand, by its ref.
        judge: what is thought of requests and candidates.
    """

    health: Health
    prices: PriceTable
    capability: Callable[[str], Capability]
    judge: Judge


@dataclass(frozen=True, slots=True)
class _Plan:
    """A choice that was made.

    Args:
        request: as it goes on.
        own: the caller's own model.
        chosen: the one that is asked.
        size: of the prompt, to learn from its count.
        note: why.
        ms: milliseconds that the choice took.
    """

    request: Request
    own: str
    chosen: Candidate
    size: Size
    note: dict[str, Any]
    ms: float


class Route:
    """A Provider that asks the model that suits the request, of those in question.

    A call that names its model and wishes nothing passes untouched. The choice is ``kaizen.inference.route.choice``'s,
    and its note in the reply's Stage can be decided again. Where a cascade is set up and the choice falls on its last
    model, the models before it are asked first, unless the caller wants the best or an answer at once.

    Args:
        inner: whom to ask.
        catalogue: the models to choose from.
        views: what to look at.
        dial: the weight of quality where the caller says nothing, in prices of the dearest candidate.
        cascade: makes a cascade round the same provider.
    """

    def __init__(
        self,
        inner: Provider,
        *,
        catalogue: Catalogue,
        views: Views,
        dial: float = QUALITY_WEIGHT["medium"],
        cascade: Callable[[Provider], Cascade] | None = None,
    ) -> None:
        self._inner, self._catalogue, self._views, self._dial = inner, catalogue, views, dial
        self._cascade = None if cascade is None else cascade(inner)

    # plain, not async: a call that is not concerned costs no frame
    def complete(self, request: Request, /) -> CoroutineType[Any, Any, Reply]:
        """The answer of the model that was chosen.

        Raises:
            InvalidInput: no candidate meets the caller's wishes; ``detail`` names them and the nearest candidate.
            NotFound: the request names a choice that the settings don't have.
        """
        if not self._catalogue.concerns(request):
            return self._inner.complete(request)
        return self._routed(request)

    def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The same, as it is written; where a cascade answers, in one piece."""
        return self._streamed(request) if self._catalogue.concerns(request) else self._inner.stream(request)

    async def _routed(self, request: Request) -> Reply:
        plan = await self._plan(request)
        cascade = self._cascading(plan)
        if cascade is None:
            reply = await self._inner.complete(plan.request)
            return await self._noted(reply, plan, reply.usage)
        outcome = await cascade.ask(plan.request)
        return await self._noted(outcome.reply, plan, outcome.usage)

    async def _streamed(self, request: Request) -> AsyncIterator[Chunk]:
        plan = await self._plan(request)
        if (cascade := self._cascading(plan)) is not None:
            outcome = await cascade.ask(plan.request)
            reply = await self._noted(outcome.reply, plan, outcome.usage)
            if reply.text:
                yield Chunk(reply.text)
            yield Chunk(reply=reply)
            return
        async with closing(self._inner.stream(plan.request)) as chunks:
            async for chunk in chunks:
                if chunk.reply is None:
                    yield chunk
                else:
                    yield replace(chunk, reply=await self._noted(chunk.reply, plan, chunk.reply.usage))

    # -- before the call --------------------------------------------------------------------------

    async def _plan(self, request: Request) -> _Plan:
        begun = time.perf_counter()
        judge, options = self._views.judge, request.options
        field = self._catalogue.field(request, self._views.health)
        found = None
        if options.task is None and field.routing == "autopilot":
            found = await judge.task(request)
        task = options.task if found is None else found[0]
        size = Size.of(request)
        case = self._case(request, field, await self._candidates(request, field, task, size), task)
        decision = decide(case)
        note = note_of(case, decision)
        if found is not None:
            note["task_probability"] = round(found[1], 3)
        chosen = decision.chosen
        request = replace(request, model=chosen.model)
        if (most := await self._affordable(options, chosen.model, size)) is not None:
            bound = request.decoding.max_tokens
            if bound is None or most < bound:
                request = replace(request, decoding=replace(request.decoding, max_tokens=most))
                note["max_tokens"] = most
        return _Plan(request, field.own, chosen, size, note, (time.perf_counter() - begun) * 1000)

    def _case(self, request: Request, field: Field, candidates: Sequence[Candidate], task: str | None) -> Case:
        options = request.options
        return Case(
            routing=field.routing,
            own=field.own,
            candidates=tuple(candidates),
            quality=self._dial if options.quality is None else QUALITY_WEIGHT[options.quality],
            pace=PACE_WEIGHT[options.pace or "normal"],
            cheap=options.quality == "low",
            fallback=options.fallback,
            task=task,
        )

    async def _candidates(self, request: Request, field: Field, task: str | None, size: Size) -> list[Candidate]:
        views = self._views
        book = await views.judge.evidence.of(request.scope)
        worths = await views.judge.worths(request, book, task, field.models)
        found: list[Candidate] = []
        for model in field.models:
            price = await views.prices.price(model)
            seen = self._seen(book, task, model)
            one = assess(request, size, model, views.capability(model), seen, price, worths[model])
            if field.routing == "explicit":
                one = replace(one, against={name: miss for name, miss in one.against.items() if name in _EXPLICIT})
            found.append(one)
        return found

    def _seen(self, book: Book, task: str | None, model: str) -> Seen:
        health = self._views.health
        tokens_out, answers = book.tokens_out(task, model)
        median, slow = health.latency_ms(model, _MEDIAN), health.latency_ms(model, _SLOW)
        return Seen(
            bytes_a_token=self._views.judge.evidence.bytes_a_token(model),
            tokens_out=tokens_out,
            answers=answers,
            latency_ms=None if median is None or slow is None else (median, slow),
            state=health.state(model),
        )

    async def _affordable(self, options: Options, model: str, size: Size) -> int | None:
        """Tokens that the caller's budget pays for after the prompt, so that the call can't cost more than it may."""
        price = None if options.cost_budget_usd is None else await self._views.prices.price(model)
        if price is None or options.cost_budget_usd is None:
            return None
        tokens_in = size.tokens_in(self._views.judge.evidence.bytes_a_token(model))
        empty, full = price.cost(Usage(tokens_in)), price.cost(Usage(tokens_in, round(_MTOK)))
        if empty is None or full is None or full <= empty:
            return None
        return max(1, int((options.cost_budget_usd - empty) / (full - empty) * _MTOK))

    def _cascading(self, plan: _Plan) -> Cascade | None:
        """The cascade, where it may answer for the model that was chosen."""
        cascade, options = self._cascade, plan.request.options
        if cascade is None or plan.note["routing"] == "explicit" or plan.chosen.model != cascade.models[-1]:
            return None
        if options.quality == "max" or options.pace == "instant" or options.cost_budget_usd is not None:
            return None
        fit = {one["model"] for one in plan.note["candidates"] if not one["against"]}
        return cascade if fit.issuperset(cascade.models) else None

    # -- after it ---------------------------------------------------------------------------------

    async def _noted(self, reply: Reply, plan: _Plan, usage: Usage) -> Reply:
        if reply.tier == "model":
            self._views.judge.evidence.observe(reply.model, plan.size.bytes, reply.usage)
        stage = Stage(LAYER, plan.ms, await self._saved(plan, usage), plan.note)
        return replace(reply, stages=(*reply.stages, stage))

    async def _saved(self, plan: _Plan, usage: Usage) -> float | None:
        """What the caller's own model would have cost for this usage, less what the chosen one does."""
        if plan.own == plan.chosen.model:
            return 0.0
        own, chosen = [_cost(await self._views.prices.price(ref), usage) for ref in (plan.own, plan.chosen.model)]
        return None if own is None or chosen is None else own - chosen


def _cost(price: Price | None, usage: Usage) -> float | None:
    return None if price is None else price.cost(usage)
