"""Views of the records: statistics and export. They read the records once, in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, assert_never

from pydantic_core import from_json, to_json

from kaizen.core.protocols import Store
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.ledger.ledger import Ledger

By: TypeAlias = Literal["program", "version", "model", "day"]

_GROWTH: Final = 1.015
_LOG_GROWTH: Final = math.log(_GROWTH)
_LEAST_MS, _MOST_MS = 1e-3, 1e9
_RECENT: Final = 65_536


class Histogram:
    """Counts of positive values in buckets whose bounds grow by 1.5 %, so that quantiles need no sorted list.

    A quantile lies within 0.8 % of the exact one, for values from 1e-3 to 1e9; it takes at most some
    1,900 counters (the buckets of DDSketch: Masson, Rim and Lee, VLDB 2019).
    """

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0

    def add(self, value: float) -> None:
        """Count a value; what lies outside the range counts as its end."""
        bucket = math.ceil(math.log(min(max(value, _LEAST_MS), _MOST_MS)) / _LOG_GROWTH)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._total += 1

    def quantile(self, fraction: float) -> float | None:
        """The smallest value that at least this fraction of all do not exceed; None without values."""
        rank = max(1, math.ceil(fraction * self._total))
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return math.exp(bucket * _LOG_GROWTH) * 2 / (1 + _GROWTH)
        return None


@dataclass(frozen=True, slots=True)
class Stat:
    """Sums over one group of calls.

    Args:
        group: the program, the program and its params' version, the model, or the UTC day.
        calls: how many.
        errors: how many of them ended with an error.
        p50_ms, p95_ms, p99_ms: latency in milliseconds, within 0.8 %; of calls answered, whichever way.
        tokens_in, tokens_out: as the providers counted them.
        cost_usd: dollars of the calls whose price is known; None where none is.
        unpriced: calls that asked a model whose price is not known.
        scores: how many scores there are about the calls.
        score: their mean, None without any.
    """

    group: str
    calls: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    unpriced: int
    scores: int
    score: float | None


def is_unpriced(record: Record) -> bool:
    """Whether a call may have cost something, nobody knows how much.

    One that was cancelled or timed out may have; one that failed before a provider was asked has not.
    """
    asked = record.attempts > 0 or record.status != "error"
    return record.cost_usd is None and record.model_calls > 0 and asked


class _Sum:
    """A Stat while it is counted."""

    def __init__(self) -> None:
        self.calls = self.errors = self.tokens_in = self.tokens_out = self.priced = self.unpriced = self.scores = 0
        self.cost = self.score = 0.0
        self.latency = Histogram()

    def add(self, record: Record) -> None:
        self.calls += 1
        self.errors += record.status == "error"
        self.tokens_in += record.tokens_in
        self.tokens_out += record.tokens_out
        self.latency.add(record.latency_ms)
        if record.cost_usd is not None:
            self.priced += 1
            self.cost += record.cost_usd
        elif is_unpriced(record):
            self.unpriced += 1

    def stat(self, group: str) -> Stat:
        quantile = self.latency.quantile
        return Stat(
            group=group,
            calls=self.calls,
            errors=self.errors,
            p50_ms=quantile(0.5),
            p95_ms=quantile(0.95),
            p99_ms=quantile(0.99),
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            cost_usd=self.cost if self.priced else None,
            unpriced=self.unpriced,
            scores=self.scores,
            score=self.score / self.scores if self.scores else None,
        )


async def stats(store: Store, scope: Scope, by: By, query: RecordQuery | None = None) -> list[Stat]:
    """Calls, errors, latency, tokens, cost and score by group, the groups in order of their names.

    ``program`` and ``version`` count program calls, ``model`` model calls, ``day`` root calls. A program's
    tokens and cost contain those of the programs it calls, so rows of ``program`` and ``version`` don't add up.
    A score counts for the call it is about, when that call is counted. One pass over the calls and one over
    the scores; memory grows with the number of groups.

    Args:
        store: where the records lie.
        scope: whose.
        by: what to group by.
        query: which calls to count; its ``kind`` and order are not used.
    """
    wanted = replace(query or RecordQuery(), kind="model" if by == "model" else "program", newest_first=False)
    if by == "day":
        wanted = replace(wanted, root_only=True)
    sums: dict[str, _Sum] = {}
    counted: OrderedDict[str, str] = OrderedDict()  # group of the calls counted last, to find their scores' groups
    last = ""
    async for record in store.records(scope, wanted):
        group = counted[record.id] = _group(record, by)
        if len(counted) > _RECENT:
            counted.popitem(last=False)
        sums.setdefault(group, _Sum()).add(record)
        last = record.id
    async for score in store.records(scope, RecordQuery(kind="score")):
        if score.value is None or score.about is None:
            continue
        group = counted.get(score.about)
        if group is None and score.about <= last:
            record = await store.record(scope, score.about)
            if record is not None and wanted.matches(record):
                group = _group(record, by)
        found = None if group is None else sums.get(group)
        if found is not None:
            found.scores += 1
            found.score += score.value
    return [sums[group].stat(group) for group in sorted(sums)]


def _group(record: Record, by: By) -> str:
    match by:
        case "program":
            return record.ref
        case "version":
            return f"{record.ref}@{record.params or '-'}"
        case "model":
            return record.model or record.ref
        case "day":
            return datetime.fromtimestamp(record.started_at, UTC).date().isoformat()
        case _:
            assert_never(by)


async def export(
    ledger: Ledger, scope: Scope, query: RecordQuery | None = None, *, with_payloads: bool = False
) -> AsyncIterator[bytes]:
    """Records as lines of JSON, each with its newline.

    Args:
        ledger: whose records.
        scope: whose data.
        query: which.
        with_payloads: adds ``input`` and ``output``: the contents, or null where they are not kept.
    """
    async for record in ledger.records(scope, query):
        line = as_json(record)
        if with_payloads:
            for name, address in (("input", record.input_digest), ("output", record.output_digest)):
                line[name] = _content(await ledger.payload(scope, address))
        yield to_json(line, inf_nan_mode="null") + b"\n"


def as_json(record: Record) -> dict[str, Any]:
    """A record's fields by name, as JSON-able values."""
    values = {field.name: getattr(record, field.name) for field in fields(Record)}
    values["scope"] = {"tenant": record.scope.tenant, "environment": record.scope.environment}
    values["stages"] = [asdict(stage) for stage in record.stages]
    return values


def _content(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return from_json(data)
    except ValueError:  # payloads are JSON; what another program kept need not be
        return data.decode(errors="replace")
