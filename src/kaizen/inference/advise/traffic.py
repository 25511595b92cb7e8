"""What other settings would have saved on the traffic that was recorded, and at which measured quality."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic_core import from_json

from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Usage
from kaizen.core.scope import Scope
from kaizen.ledger.costs import model_calls
from kaizen.ledger.intervals import Z95, wilson
from kaizen.ledger.ledger import Ledger

Reprice = Callable[[str, Usage], float | None]
"""Dollars for a usage on a model, None where its price is not known."""

_LEAST_SCORES: Final = 20
_HALF: Final = 0.5  # what OpenAI's and Anthropic's batch APIs take of the price


@dataclass(frozen=True, slots=True)
class Advice:
    """One change, and what it would have done.

    Args:
        change: what to set, in words and with the settings' key.
        calls: calls it would have touched.
        saved_usd: dollars it would have saved; None where prices are not known.
        quality: what is measured of the answers' quality, 0 to 1: agreement with the answers that were given, or the
            mean score; None where nothing is.
        low, high: the 95 % interval of ``quality``.
        n: how many answers ``quality`` was measured on.
        note: on what it rests.
    """

    change: str
    calls: int
    saved_usd: float | None
    quality: float | None
    low: float | None
    high: float | None
    n: int
    note: str


@dataclass(slots=True)
class _Repeats:
    """Identical calls: how many, what they cost, and how many got the first one's answer again."""

    calls: int = 0
    usd: float = 0.0
    unpriced: int = 0
    compared: int = 0
    agreed: int = 0


@dataclass(slots=True)
class _Traffic:
    """One model's calls of one type of task."""

    calls: int = 0
    usd: float = 0.0
    usage: Usage = field(default_factory=Usage)
    scores: list[float] = field(default_factory=list[float])


async def advise(
    ledger: Ledger,
    scope: Scope,
    reprice: Reprice,
    query: RecordQuery | None = None,
    *,
    ttl: float = 86_400.0,
    margin: float = 0.02,
    batched: Callable[[str], bool] = lambda ref: False,
) -> list[Advice]:
    """Replay recorded model calls under other settings; the largest saving first.

    It reads the scope's model calls once, and the payloads of those that repeat. Memory grows with the number of
    different calls.

    Args:
        ledger: the records.
        scope: whose.
        reprice: what a usage costs on a model.
        query: which calls; its ``kind`` and order are not used.
        ttl: seconds that the exact cache would keep an answer.
        margin: how much lower a cheaper model's mean score may be, its interval included.
        batched: whether a model's provider has a batch API.
    """
    repeats = _Repeats()
    seen: dict[str, Record] = {}
    traffic: dict[tuple[str, str], _Traffic] = {}
    of_record: dict[str, tuple[str, str]] = {}
    async for record in _asked(ledger, scope, query):
        group = (record.task or "-", record.model or record.ref)
        of_record[record.id] = group
        if record.parent_id is not None:
            of_record[record.parent_id] = group  # a score about a program call is about the model that answered it
        _count(traffic.setdefault(group, _Traffic()), record)
        first = seen.get(record.input_digest or "")
        if first is None or record.started_at - first.started_at > ttl:
            seen[record.input_digest or ""] = record
            continue
        await _repeat(ledger, scope, repeats, first, record)
    async for score in ledger.records(scope, RecordQuery(kind="score")):
        group = of_record.get(score.about or "")
        if group is not None and score.value is not None:
            traffic[group].scores.append(score.value)
    found = [*_exact(repeats), *_cheaper(traffic, reprice, margin), *_batch(traffic, batched)]
    return sorted(found, key=lambda one: -(one.saved_usd or 0.0))


async def _asked(ledger: Ledger, scope: Scope, query: RecordQuery | None) -> AsyncIterator[Record]:
    """Model calls that a model answered; those without a step, such as embeddings, go past the layers."""
    async for record in model_calls(ledger.store, scope, replace(query or RecordQuery(), newest_first=False)):
        if record.status == "ok" and record.cache_tier == "model" and record.step:
            yield record


def _count(traffic: _Traffic, record: Record) -> None:
    traffic.calls += 1
    traffic.usd += record.cost_usd or 0.0
    usage = traffic.usage
    traffic.usage = Usage(
        usage.tokens_in + record.tokens_in,
        usage.tokens_out + record.tokens_out,
        usage.tokens_cached + record.tokens_cached,
    )


async def _repeat(ledger: Ledger, scope: Scope, repeats: _Repeats, first: Record, again: Record) -> None:
    repeats.calls += 1
    repeats.usd += again.cost_usd or 0.0
    repeats.unpriced += again.cost_usd is None
    texts = [await _text(ledger, scope, record) for record in (first, again)]
    if None not in texts:
        repeats.compared += 1
        repeats.agreed += texts[0] == texts[1]


async def _text(ledger: Ledger, scope: Scope, record: Record) -> str | None:
    """What the model wrote, its tool calls included, without their ids; None where it is not kept."""
    data = await ledger.payload(scope, record.output_digest) if record.output_digest else None
    if data is None:
        return None
    reply: Mapping[str, Any] = from_json(data)
    calls = [(call["name"], call["arguments"]) for call in reply["tool_calls"]]
    return f"{reply['text'].strip()}{calls or ''}"


def _exact(repeats: _Repeats) -> list[Advice]:
    if not repeats.calls:
        return []
    low, high = wilson(repeats.agreed, repeats.compared) if repeats.compared else (None, None)
    return [
        Advice(
            "keep answers to identical calls: inference.exact.enabled = true",
            repeats.calls,
            None if repeats.unpriced == repeats.calls else repeats.usd,
            repeats.agreed / repeats.compared if repeats.compared else None,
            low,
            high,
            repeats.compared,
            "share of the repeated calls that the model answered word for word as the first time",
        )
    ]


def _cheaper(traffic: Mapping[tuple[str, str], _Traffic], reprice: Reprice, margin: float) -> list[Advice]:
    """For each task and model, the cheapest other whose scores are no worse."""
    found: list[Advice] = []
    for (task, model), own in traffic.items():
        if len(own.scores) < _LEAST_SCORES:
            continue
        rivals: list[tuple[float, str, _Traffic]] = []
        for (other_task, rival), theirs in traffic.items():
            usd = reprice(rival, own.usage) if other_task == task and rival != model else None
            enough = len(theirs.scores) >= _LEAST_SCORES
            if usd is not None and usd < own.usd and enough and _no_worse(theirs.scores, own.scores, margin):
                rivals.append((usd, rival, theirs))
        if rivals:
            usd, rival, theirs = min(rivals, key=lambda one: one[0])
            mean, spread = _mean(theirs.scores)
            what = "" if task == "-" else f" for {task}"
            found.append(
                Advice(
                    f"ask {rival} instead of {model}{what}",
                    own.calls,
                    own.usd - usd,
                    mean,
                    mean - spread,
                    mean + spread,
                    len(theirs.scores),
                    f"mean score; {model} has {_mean(own.scores)[0]:.3f} (n = {len(own.scores)})",
                )
            )
    return found


def _batch(traffic: Mapping[tuple[str, str], _Traffic], batched: Callable[[str], bool]) -> list[Advice]:
    fit = [own for (_, model), own in traffic.items() if batched(model)]
    usd = sum(own.usd for own in fit)
    if not usd:
        return []
    calls = sum(own.calls for own in fit)
    note = "if none of them is waited for; the same model answers, so quality is as it was"
    return [Advice("let calls that can wait go through batch APIs", calls, usd * _HALF, None, None, None, 0, note)]


def _no_worse(theirs: list[float], own: list[float], margin: float) -> bool:
    """Whether the 95 % interval of the difference of means lies above ``-margin``."""
    (a, spread_a), (b, spread_b) = _mean(theirs), _mean(own)
    return a - b - math.hypot(spread_a, spread_b) > -margin


def _mean(values: list[float]) -> tuple[float, float]:
    """The mean, and half its 95 % interval."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    return mean, Z95 * math.sqrt(variance / n)
