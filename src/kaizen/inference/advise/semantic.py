"""What the semantic cache would have answered of the recorded calls, and how often rightly.

The layer itself is run on them, in the order in which they came, with the recorded answers in the provider's place: it
gathers evidence, bounds its false hits and decides as it would have. Each answer it gives is then compared with the one
that the model gave.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from kaizen.core.protocols import Cache, Embedder, VectorIndex
from kaizen.core.request import Options
from kaizen.inference.advise.recorded import Answers, Recorded
from kaizen.inference.advise.traffic import Advice
from kaizen.inference.prices import PriceTable
from kaizen.inference.semantic import EvidenceBook, Questions, Rules, SemanticCache
from kaizen.inference.semantic.judge import agree
from kaizen.ledger.intervals import wilson

_OWN: Final = Options(exact=None, semantic=None)


async def advise_semantic(
    calls: AsyncIterator[Recorded],
    *,
    cache: Cache,
    index: VectorIndex,
    embedder: Embedder,
    prices: PriceTable,
    rules: Rules,
) -> list[Advice]:
    """Replay calls, oldest first, through a semantic cache of their own; nothing where it would have given no answer.

    Calls that repeat an earlier one word for word are the exact cache's and are left out. Evidence is gathered where an
    answer is not given, so what is learned here is what the layer would have learned without its share of explored
    hits.

    Args:
        calls: of one scope, oldest first.
        cache: an empty one.
        index: an empty one.
        embedder: makes points of questions.
        prices: what tokens cost.
        rules: when an answer may be given.
    """
    book = EvidenceBook(cache, budget=rules.false_hits, explore=0.0)
    answers = Answers()
    layer = SemanticCache(
        answers,
        questions=Questions(cache=cache, index=index, embedder=embedder, book=book, shared=True),
        prices=prices,
        rules=replace(rules, explore=0.0),
    )
    seen: set[str] = set()
    hits = agreed = compared = 0
    usd, unpriced = 0.0, 0
    async for call in calls:
        if (call.record.input_digest or "") in seen:
            continue
        seen.add(call.record.input_digest or "")
        answers.reply = call.reply
        options = replace(_OWN, task=call.request.options.task)
        given = await layer.complete(replace(call.request, options=options, deadline=None))
        if given.tier != "semantic":
            continue
        hits += 1
        usd += call.record.cost_usd or 0.0
        unpriced += call.record.cost_usd is None
        same = await agree(embedder, call.request.scope, given, call.reply)
        compared += same is not None
        agreed += bool(same)
    if not hits:
        return []
    low, high = wilson(agreed, compared) if compared else (None, None)
    return [
        Advice(
            "answer questions of the same meaning from earlier ones: inference.semantic.enabled = true",
            hits,
            None if unpriced == hits else usd,
            agreed / compared if compared else None,
            low,
            high,
            compared,
            f"share of its answers that agreed with the model's, at a budget of {rules.false_hits:.1%} false ones; "
            "word for word repeats left out",
        )
    ]
