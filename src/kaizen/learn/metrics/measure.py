"""A metric as a plain function of inputs, expected and predicted outputs: a Program that is also called directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import pydantic

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.spec import Field, Spec

Values: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scored:
    """A metric's word on one answer.

    Args:
        value: 0 (wrong) to 1 (right), unless the metric says otherwise.
        comment: why, in words that an optimizer can learn from; empty where there is nothing to say.
        parts: the values of the metrics it was made of, by name; None for one that had nothing to say.
        coverage: the share of the weights that had something to say; scores of unlike coverage can't be compared.
    """

    value: float
    comment: str = ""
    parts: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])
    coverage: float = 1.0


Judging: TypeAlias = Callable[[Values, Values, Values | None], Scored | None]


def _field(name: str, annotation: Any, role: Any, **more: Any) -> Field:
    info: Any = pydantic.Field(**more)
    return Field(name, role, annotation, info)


def metric_spec(name: str, doc: str) -> Spec:
    """The contract of a metric: ``inputs``, ``expected`` and ``prediction`` to ``score`` and ``comment``."""
    return Spec(
        f"kaizen.metrics.{name}",
        doc,
        [
            _field("inputs", dict[str, Any], "input"),
            _field("expected", dict[str, Any], "input"),
            _field("prediction", dict[str, Any] | None, "input", default=None),
            _field("score", float, "output"),
            _field("comment", str, "output", default=""),
        ],
    )


class Measure:
    """A metric that asks no model and no other program.

    Args:
        name: as it is named in ``--metric``.
        doc: what it says.
        judge: inputs, expected and predicted outputs (by field name; the prediction is None where there was no answer)
            to a score, or None where it has nothing to say about this row.
    """

    def __init__(self, name: str, doc: str, judge: Judging) -> None:
        self.name, self._judge = name, judge
        self.spec = metric_spec(name, doc)

    def __repr__(self) -> str:
        return f"<metric {self.name}>"

    def said(self, inputs: Values, expected: Values, prediction: Values | None) -> Scored | None:
        """Its word on one answer, None where it has nothing to say: this row has nothing that it measures."""
        return self._judge(inputs, expected, prediction)

    def of(self, inputs: Values, expected: Values, prediction: Values | None) -> Scored:
        """Its word on one answer; 0 where it has nothing to say."""
        return self._judge(inputs, expected, prediction) or Scored(0.0, "nothing here to measure", coverage=0.0)

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """As a program's step; ``of`` is the same without a record."""
        scored = self.of(inputs["inputs"], inputs["expected"], inputs.get("prediction"))
        return Answer.of({"score": scored.value, "comment": scored.comment}, inputs=inputs)


NO_ANSWER: Final = Scored(0.0, "there was no answer")
