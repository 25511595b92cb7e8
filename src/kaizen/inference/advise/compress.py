"""How many tokens of the recorded calls need not have been sent, at the agreement that was measured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from kaizen.core.errors import ProviderError
from kaizen.core.request import Usage
from kaizen.inference.advise.recorded import Recorded
from kaizen.inference.advise.traffic import Advice, Reprice
from kaizen.inference.compress.compressor import Compressor
from kaizen.inference.compress.evidence import Evidence
from kaizen.inference.compress.layer import task_of
from kaizen.ledger.intervals import wilson


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0


async def advise_compress(
    calls: AsyncIterator[Recorded], *, compressor: Compressor, evidence: Evidence, limit: float, reprice: Reprice
) -> list[Advice]:
    """Shorten the recorded prompts as far as the evidence allows, and see what is left.

    Args:
        calls: of one scope.
        compressor: shortens.
        evidence: how often answers agreed; without any, only what loses nothing goes.
        limit: the share of answers that may change.
        reprice: what a usage costs on a model.
    """
    found = _Sum()
    proved: dict[tuple[str, str, int], tuple[int, int]] = {}
    async for call in calls:
        request, record = call.request, call.record
        task = task_of(request)
        level, _ = evidence.strongest(request.scope, request.model, task, limit)
        level = min(level, len(compressor.levels) - 1)
        try:
            short = await compressor.shorten(request, compressor.levels[level])
        except ProviderError:
            continue  # the embedder has no answer to this one
        share = (short.before - short.after) / max(1, short.before)
        tokens = round(record.tokens_in * share)
        if tokens < 1:
            continue
        found.calls += 1
        found.tokens += tokens
        _price(found, reprice, record.model or record.ref, Usage(record.tokens_in, record.tokens_out), tokens)
        if level:
            agreement = evidence.of(request.scope, request.model, task)[level]
            proved[request.model, task, level] = (agreement.compared - agreement.differed, agreement.compared)
    return [_advice(found, list(proved.values()), limit)] if found.calls else []


def _price(found: _Sum, reprice: Callable[[str, Usage], float | None], model: str, usage: Usage, tokens: int) -> None:
    whole, short = reprice(model, usage), reprice(model, replace(usage, tokens_in=usage.tokens_in - tokens))
    if whole is None or short is None:
        found.unpriced += 1
    else:
        found.usd += whole - short


def _advice(found: _Sum, proved: list[tuple[int, int]], limit: float) -> Advice:
    right, n = sum(one[0] for one in proved), sum(one[1] for one in proved)
    low, high = wilson(right, n) if n else (None, None)
    what = (
        f"share of answers to shortened prompts that agreed, at a limit of {limit:.1%} changed ones"
        if n
        else "white space and JSON alone, which changes no words; `kaizen compress calibrate` measures what more may go"
    )
    return Advice(
        "send fewer tokens: inference.compress.enabled = true",
        found.calls,
        None if found.unpriced == found.calls else found.usd,
        right / n if n else None,
        low,
        high,
        n,
        f"{found.tokens:,} tokens; {what}",
    )
