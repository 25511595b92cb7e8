"""The layer: gives the answer to an earlier question of the same meaning, or asks and learns whether it could have."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import CoroutineType
from typing import Any, Final, TypeAlias

from kaizen.core.ids import digest
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request, Stage
from kaizen.core.scope import Scope
from kaizen.inference.prices import PriceTable
from kaizen.inference.semantic.evidence import Sample
from kaizen.inference.semantic.judge import agree
from kaizen.inference.semantic.lookup import ANY_TASK, Found, Question, Questions, question_text
from kaizen.inference.streams import closing

_logger: Final = logging.getLogger("kaizen.semantic")
_LOG_EVERY_S: Final = 60.0
# After a failure the cache is left alone for so long: a call must not wait for a database that is gone.
_REST_S: Final = 1.0

Judge: TypeAlias = Callable[[Scope, Reply, Reply], Awaitable[bool | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When an earlier answer may be given.

    Args:
        false_hits: the share of the answers given that may be wrong.
        explore: the share of would-be hits that are asked anew all the same, to learn.
        wrong_usd: by type of task, dollars that a wrong answer costs; ``*`` stands for the types not named. Where one
            is named, an answer is given only if what it saves is worth more than the risk.
    """

    false_hits: float = 0.01
    explore: float = 0.05
    wrong_usd: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(slots=True)
class _Look:
    """What there was for one call.

    Attributes:
        question: what is asked; None where even that failed.
        epoch: the cache's, from before the call; None where the answer is not to be kept.
        found: an earlier question that may be the same.
        reply: its answer, where it is given.
        ms: milliseconds that the look took.
    """

    question: Question | None = None
    epoch: int | None = None
    found: Found | None = None
    reply: Reply | None = None
    ms: float = 0.0


class SemanticCache:
    """A Provider that answers a question with the kept answer to an earlier one where that is proved to be the same.

    Only requests of one space are compared: of the same scope, model and wishes, system prompt, earlier turns, tools,
    schema, decoding and tags. The question is the text of the last message, which must be the user's and hold text
    alone, in a conversation without media. What the content gate turns away is never given. Of the rest, whenever one
    is asked anew, the fresh answer is compared with the kept one: that is the evidence on which the decision stands
    (``kaizen.inference.semantic.evidence``). Without enough of it every question is asked. The same words again, white
    space apart, need no evidence.

    An answer given from here has tier "semantic", costs 0, has the usage of the first answer, and tells in its Stage
    how near the question lay, the bound, and what asking would have cost. A call that was asked beside a would-be hit
    has a Stage too, with ``explored``.

    Kept is a model's answer that is whole. It goes after its time, or when one of its tags is invalidated. Whatever
    fails here (cache, index, embedder) is a miss.

    Args:
        inner: whom to ask.
        questions: earlier questions, with their answers and the evidence.
        prices: what tokens cost.
        rules: when an answer may be given.
        judge: whether two answers agree, or None where that can't be told.
        draw: a number from 0 to 1, at random.
    """

    def __init__(
        self,
        inner: Provider,
        *,
        questions: Questions,
        prices: PriceTable,
        rules: Rules = Rules(),
        judge: Judge | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._inner, self._questions, self._prices, self._rules = inner, questions, prices, rules
        self._judge = judge or partial(agree, questions.embedder)
        self._draw = draw
        self._book = questions.book
        self._rest_until = self._log_at = 0.0

    # plain, not async: a call that is none of ours costs a look
    def complete(self, request: Request, /) -> CoroutineType[Any, Any, Reply]:
        """The answer: an earlier one, or new."""
        text = None if request.options.semantic is False else question_text(request)
        return self._inner.complete(request) if text is None else self._complete(request, text)

    def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The same as a stream. An earlier answer comes in one piece; a new one is kept when it is whole."""
        text = None if request.options.semantic is False else question_text(request)
        return self._inner.stream(request) if text is None else self._stream(request, text)

    async def _complete(self, request: Request, text: str) -> Reply:
        look = await self._look(request, text)
        if look.reply is not None:
            return look.reply
        return await self._learned(request, look, await self._inner.complete(request))

    async def _stream(self, request: Request, text: str) -> AsyncGenerator[Chunk]:
        look = await self._look(request, text)
        if look.reply is not None:
            if look.reply.text:
                yield Chunk(look.reply.text)
            yield Chunk(reply=replace(look.reply, first_token_ms=look.ms if look.reply.text else None))
            return
        async with closing(self._inner.stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.reply is None:
                    yield chunk
                else:
                    yield replace(chunk, reply=await self._learned(request, look, chunk.reply))

    # -- deciding -----------------------------------------------------------------------------------

    async def _look(self, request: Request, text: str) -> _Look:
        """What there is for a call. Whatever fails, it goes on."""
        started = time.perf_counter()
        look = _Look()
        if started < self._rest_until:
            return look
        try:
            look.epoch = await self._questions.cache.epoch(request.scope)
            look.question = question = await self._questions.question(request, text)
            if not request.options.refresh:
                look.found = found = await self._questions.nearest(request, question)
                if found is None:
                    self._book.counts(request.scope).misses += 1
                else:
                    await self._decide(request, look, question, found)
        except Exception as error:  # noqa: BLE001 - whatever a cache, an index or an embedder raises, the call goes on
            self._failed(request.scope, error)
        look.ms = (time.perf_counter() - started) * 1000
        if look.reply is not None:
            look.reply = replace(look.reply, stages=(replace(look.reply.stages[0], ms=look.ms),))
        return look

    async def _decide(self, request: Request, look: _Look, question: Question, found: Found) -> None:
        """Give the found answer, or see to it that asking counts as evidence."""
        rules, counts, bound = self._rules, self._book.counts(request.scope), found.bound
        same = found.features is None
        if not same and bound.bound > rules.false_hits:
            counts.unproven += 1
            return
        saved = await self._cost(found.kept.reply)
        wrong = rules.wrong_usd.get(question.task, rules.wrong_usd.get(ANY_TASK, 0.0))
        if not same and wrong > 0.0 and (saved is None or bound.alone * wrong > saved):
            counts.too_costly += 1
            return
        if not same and self._draw() < rules.explore:
            counts.explored += 1
            return
        counts.hits += 1
        stage = Stage("semantic", 0.0, saved, _note(found, explored=False))
        look.reply = replace(found.kept.reply, cost_usd=0.0, stages=(stage,))

    async def _cost(self, reply: Reply) -> float | None:
        """What asking would cost: what the provider said, or today's price; None where it is not known."""
        if reply.cost_usd is not None:
            return reply.cost_usd
        quote = self._prices.quote(reply.model)
        if quote is None:
            quote = await asyncio.to_thread(self._prices.look_up, reply.model)
        return None if quote.price is None else quote.price.cost(reply.usage)

    # -- learning -----------------------------------------------------------------------------------

    async def _learned(self, request: Request, look: _Look, reply: Reply) -> Reply:
        """The fresh answer, kept, and compared with the one that might have been given."""
        started = time.perf_counter()
        if reply.tier != "model" or look.question is None:
            return reply
        agreed: bool | None = None
        try:
            if look.found is not None:
                agreed = await self._compared(request, look.question, look.found, reply)
            if look.epoch is not None and reply.finish in ("stop", "tool_calls"):
                await self._questions.keep(request, look.question, reply, look.epoch)
        except Exception as error:  # noqa: BLE001 - the answer is there, whatever fails now
            self._failed(request.scope, error)
        if look.found is None:
            return reply
        ms = look.ms + (time.perf_counter() - started) * 1000
        note = _note(look.found, explored=True, agreed=agreed)
        return replace(reply, stages=(*reply.stages, Stage("semantic", ms, 0.0, note)))

    async def _compared(self, request: Request, question: Question, found: Found, reply: Reply) -> bool | None:
        """Whether the kept answer would have done; taken in as evidence."""
        if found.features is None:
            return None
        agreed = await self._judge(request.scope, found.kept.reply, reply)
        if agreed is not None:
            pair = digest(f"{question.key} {found.key}".encode())[:20]
            features = tuple(found.features.tolist())
            sample = Sample(pair, found.key, question.task, features, agreed)
            await self._book.add(request.scope, sample)
        return agreed

    def _failed(self, scope: Scope, error: Exception) -> None:
        self._book.counts(scope).failures += 1
        self._rest_until = time.perf_counter() + _REST_S
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + _LOG_EVERY_S
            _logger.warning("the semantic cache failed, calls go on without it: %s", error)


def _note(found: Found, **more: object) -> dict[str, Any]:
    return {"similarity": round(found.similarity, 4), "bound": round(found.bound.bound, 5), **more}
