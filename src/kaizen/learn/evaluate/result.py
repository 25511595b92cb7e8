"""What an evaluation found: each row's answer and score, and the figures made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from kaizen.core.artifact import Artifact
from kaizen.core.errors import Conflict
from kaizen.learn.data.rows import Row, canonical
from kaizen.learn.metrics.named import RIGHT, STATED, calibration_error
from kaizen.learn.metrics.objective import Bound
from kaizen.learn.stats import Interval, interval, mcnemar, paired, sign_flip

KIND: Final = "evaluation"


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row's answer and its score.

    Args:
        row: the row.
        prediction: what came out, by field name as JSON values, intermediates included; None where nothing did.
        score: the metric's word; None where it had nothing to say about this row.
        comment: why, in the metric's words, or what went wrong.
        record: id of the program call's record.
        error: code of the error it ended with.
        calls: requests that reached a model, retries included; what a cache answered is free.
        cost_usd: dollars; None where a price is not known.
        latency_ms: wall milliseconds of the call.
        tokens: read and written.
        parts: the scores that the score was made of, by metric.
        coverage: the share of the metric's weights that had something to say.
        params: version of the params the program ran with.
        metric_calls, metric_cost_usd: what the metric itself asked of models.
    """

    row: Row
    prediction: Mapping[str, Any] | None
    score: float | None
    comment: str = ""
    record: str | None = None
    error: str | None = None
    calls: int = 0
    cost_usd: float | None = 0.0
    latency_ms: float = 0.0
    tokens: int = 0
    parts: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])
    coverage: float = 1.0
    params: str | None = None
    metric_calls: int = 0
    metric_cost_usd: float | None = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A program on rows, scored.

    Args:
        program: its name.
        params: version of the params it ran with; ``mixed`` where they were several (an experiment ran), empty where
            it has none.
        metric: what scored it.
        results: by row, in order.
        score: the mean; a row that could not be answered counts as 0.
        low, high: 95 % interval of the score.
        n: rows that were scored.
        coverage: the share of rows, and of the metric's weights, that had a score.
        calls: requests that reached a model, those of the metric included.
        cost_usd: dollars of the program and the metric; None where a price is not known.
        errors: rows that could not be answered.
        run_id: the run it was.
        seconds: wall time of this attempt.
        figures: ``p50``, ``p95`` (milliseconds), ``cost_usd`` and ``calls`` (of the program, a row), ``errors`` (their
            share), ``score``, and each part of the metric: what constraints are about.
        broken: constraints of the objective that do not hold.
    """

    program: str
    params: str
    metric: str
    results: tuple[RowResult, ...]
    score: float
    low: float
    high: float
    n: int
    coverage: float
    calls: int
    cost_usd: float | None
    errors: int
    run_id: str
    seconds: float
    figures: Mapping[str, float]
    broken: tuple[str, ...] = ()

    def artifact(self, parents: Sequence[str] = ()) -> Artifact:
        """What the registry keeps of it: figures, and each row's score under the row's address.

        Inputs and answers stay behind their records, where they can be erased.
        """
        rows = [[one.row.key, one.score, one.record, one.error] for one in self.results]
        return Artifact(KIND, self.program, canonical({**self.summary(), "rows": rows}), tuple(parents))

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return {
            "program": self.program,
            "params": self.params,
            "metric": self.metric,
            "score": self.score,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "coverage": self.coverage,
            "calls": self.calls,
            "cost_usd": self.cost_usd,
            "errors": self.errors,
            "figures": {name: value for name, value in self.figures.items() if math.isfinite(value)},
            "broken": list(self.broken),
            "run_id": self.run_id,
        }


def summed(
    results: Sequence[RowResult],
    *,
    program: str,
    metric: str,
    run_id: str,
    seconds: float = 0.0,
    seed: int = 0,
    bounds: Sequence[Bound] = (),
) -> Evaluation:
    """The evaluation that these rows' results make.

    Args:
        results: in the order of the rows.
        program: its name.
        metric: what scored them.
        run_id: the run it was.
        seconds: what it took.
        seed: of the interval's resampling.
        bounds: what must hold of the figures.
    """
    scores = [one.score for one in results if one.score is not None]
    score = fmean(scores) if scores else 0.0
    low, high = interval(scores, seed=seed) if scores else Interval(0.0, 1.0)
    versions = {one.params for one in results if one.params is not None}
    costs = [one.cost_usd for one in results] + [one.metric_cost_usd for one in results]
    known = [cost for cost in costs if cost is not None]
    figures = _figures(results, score)
    return Evaluation(
        program=program,
        params="mixed" if len(versions) > 1 else next(iter(versions), ""),
        metric=metric,
        results=tuple(results),
        score=score,
        low=low,
        high=high,
        n=len(scores),
        coverage=sum(one.coverage for one in results if one.score is not None) / len(results) if results else 0.0,
        calls=sum(one.calls + one.metric_calls for one in results),
        cost_usd=math.fsum(known) if len(known) == len(costs) else None,
        errors=sum(one.error is not None for one in results),
        run_id=run_id,
        seconds=seconds,
        figures=figures,
        broken=tuple(why for bound in bounds if (why := bound.broken(figures)) is not None),
    )


def _figures(results: Sequence[RowResult], score: float) -> dict[str, float]:
    if not results:
        return {}
    times = sorted(one.latency_ms for one in results)
    made = {"score": score, "p50": _quantile(times, 0.5), "p95": _quantile(times, 0.95), "p99": _quantile(times, 0.99)}
    made["latency_ms"] = fmean(times)
    made["calls"] = fmean(one.calls for one in results)
    made["errors"] = sum(one.error is not None for one in results) / len(results)
    costs = [one.cost_usd for one in results if one.cost_usd is not None]
    if len(costs) == len(results):
        made["cost_usd"] = fmean(costs)
    for name in dict.fromkeys(name for one in results for name in one.parts):
        values = [value for one in results if (value := one.parts.get(name)) is not None]
        if values:
            made[name] = fmean(values)
    sure = [
        (one.parts[STATED] or 0.0, one.parts[RIGHT] or 0.0) for one in results if {STATED, RIGHT} <= one.parts.keys()
    ]
    if sure:
        made["calibration_error"] = calibration_error([x for x, _ in sure], [y for _, y in sure])
    return made


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


# -- two of them ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same rows under two versions.

    Args:
        before, after: the mean scores on the rows that both have.
        gain: of the second over the first.
        low, high: 95 % interval of the gain, by pairs.
        p: that there is no difference: McNemar's exact test where all scores are 0 or 1, else by flipping signs.
        n: rows in both.
        better, worse: rows that the second does better, and worse.
    """

    before: float
    after: float
    gain: float
    low: float
    high: float
    p: float
    n: int
    better: int
    worse: int

    def summary(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {name: getattr(self, name) for name in self.__slots__}


def compare(before: Evaluation, after: Evaluation, *, seed: int = 0) -> Comparison:
    """Two evaluations, row by row.

    Raises:
        Conflict: they used different metrics or rows, or their scores are of unlike coverage.
    """
    if before.metric != after.metric:
        raise Conflict(f"scores of {before.metric} and of {after.metric} can't be compared")
    first, second = _by_row(before), _by_row(after)
    if first.keys() != second.keys():
        raise Conflict("the two evaluations are of different rows")
    unlike = [key for key in first if (first[key].score is None) != (second[key].score is None)]
    unlike += [key for key in first if abs(first[key].coverage - second[key].coverage) > 1e-9]
    if unlike:
        raise Conflict(
            f"scores of unlike coverage can't be compared: {before.coverage:.3f} and {after.coverage:.3f} "
            f"({len(set(unlike))} rows differ in what could be measured)"
        )
    pairs = [
        (a, b) for key, one in first.items() if (a := one.score) is not None and (b := second[key].score) is not None
    ]
    if not pairs:
        raise Conflict("the two evaluations have no scores to compare")
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    low, high = paired(a, b, seed)
    binary = all(value in (0.0, 1.0) for value in (*a, *b))
    mean_a, mean_b = fmean(a), fmean(b)
    better, worse = sum(y > x for x, y in pairs), sum(y < x for x, y in pairs)
    p = mcnemar(a, b) if binary else sign_flip(a, b, seed)
    return Comparison(mean_a, mean_b, mean_b - mean_a, low, high, p, len(pairs), better, worse)


def _by_row(evaluation: Evaluation) -> dict[tuple[str, int], RowResult]:
    """Results by row; equal rows by their order."""
    seen: dict[str, int] = {}
    made: dict[tuple[str, int], RowResult] = {}
    for one in evaluation.results:
        key = one.row.key
        seen[key] = seen.get(key, 0) + 1
        made[key, seen[key]] = one
    return made
