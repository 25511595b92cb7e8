"""A metric's word on one answer, whatever kind of Program the metric is, and what that took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program
from kaizen.core.errors import AuthFailed, OutputInvalid, ProviderError
from kaizen.core.record import Record
from kaizen.learn.data.rows import Row
from kaizen.learn.metrics.measure import Measure, Scored
from kaizen.learn.metrics.objective import Objective
from kaizen.learn.metrics.taken import Reading, cost_of

_OUTPUTS: Final = ("score", "result")


@dataclass(frozen=True, slots=True)
class Judged:
    """A metric's word, and the calls and dollars it took."""

    said: Scored | None
    calls: int = 0
    cost_usd: float | None = 0.0


def name_of(metric: Program) -> str:
    """What a metric is called in scores and reports."""
    return metric.name if isinstance(metric, Measure | Objective) else metric.spec.name.removeprefix("kaizen.metrics.")


async def judge(ctx: Context, metric: Program, row: Row, record: Record, prediction: Mapping[str, Any]) -> Judged:
    """A metric's word on the answer to a row.

    A judge that could not be asked has nothing to say; that shows in the coverage, and is no word against the answer.

    Args:
        ctx: the row's branch.
        metric: what scores.
        row: what was asked.
        record: the answer's.
        prediction: the answer.

    Raises:
        OutputInvalid: the metric gave no number; a model's reply that does not fit is a model's failure.
        KaizenError: as the metric raises it, but for a model's failures.
    """
    if isinstance(metric, Reading):
        return Judged(metric.read(record))
    if isinstance(metric, Measure):
        return Judged(metric.said(row.inputs, row.outputs, prediction))
    if isinstance(metric, Objective):
        words = [await judge(ctx, term, row, record, prediction) for term in metric.programs]
        costs = [word.cost_usd for word in words]
        known = [cost for cost in costs if cost is not None]
        total = math.fsum(known) if len(known) == len(costs) else None
        return Judged(metric.combine([word.said for word in words]), sum(word.calls for word in words), total)
    try:
        word = await ctx.call(metric, inputs=row.inputs, expected=row.outputs, prediction=prediction)
    except AuthFailed:
        raise
    except (ProviderError, OutputInvalid) as error:
        failed = error.record
        if failed is None or not failed.model_calls:
            raise  # no model was asked: a mistake in the metric's own code
        return Judged(None, failed.attempts, cost_of(failed))
    return Judged(_scored(metric, word), word.record.attempts, cost_of(word.record))


def unmeasured(metric: Program, row: Row) -> bool:
    """Whether a metric has nothing to say about a row, whatever the answer: a row without an answer then has no 0."""
    if isinstance(metric, Reading):
        return True
    if isinstance(metric, Objective):
        return all(unmeasured(term, row) for term in metric.programs)
    return isinstance(metric, Measure) and metric.said(row.inputs, row.outputs, None) is None


def _scored(metric: Program, answer: Answer) -> Scored:
    outputs = answer.outputs
    value = next((outputs[name] for name in _OUTPUTS if name in outputs), None)
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return Scored(float(value), str(outputs.get("comment") or ""))
    said = f"{metric.spec.name} is used as a metric"
    raise OutputInvalid(said, reply="", problem="a metric gives a number, as `score` or as its return value")
