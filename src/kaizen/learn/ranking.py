"""A trained judgement of which search is worth its calls next: learned from the candidates of past runs.

Ridge regression (Hoerl and Kennard, 1970) of what a candidate gained over the one it was made from (nothing, where it
lost: a search keeps its best), on the search that made it and the kind of task, all of what was left to gain. Few rows
and strong shrinkage: where little is known it predicts the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from kaizen.core.artifact import Artifact
from kaizen.core.spec import Spec

STAGES: Final = ("demonstrations", "decoding", "instructions", "reflective", "genetic", "models")
"""The searches that make candidates."""

LEAST: Final = 24
"""Past candidates without which nothing is learned."""

_SHRINKAGE: Final = 0.5
_LEAST_SHARE: Final = 0.1
_KINDS: Final = ("choice", "text", "number", "structure")


@dataclass(frozen=True, slots=True)
class Past:
    """A candidate of a run that was.

    Args:
        stage: the search that made it, of ``STAGES``.
        kind: the task's, see ``task_kind``.
        start: the mean score of the candidate it was made from.
        gain: its own over that.
        run: the run.
    """

    stage: str
    kind: str
    start: float
    gain: float
    run: str = ""


def task_kind(spec: Spec) -> str:
    """What kind of task a contract is: ``choice``, ``number``, ``text`` or ``structure``, by its outputs."""
    properties: Mapping[str, Any] = spec.output_schema.get("properties", {})
    outputs = [properties.get(name, {}) for name in spec.outputs]
    if len(outputs) != 1:
        return "structure"
    only = outputs[0]
    if "enum" in only or "const" in only or only.get("type") == "boolean":
        return "choice"
    if only.get("type") in ("integer", "number"):
        return "number"
    return "text" if only.get("type") == "string" else "structure"


def past_of(artifact: Artifact) -> Past | None:
    """What a kept candidate says; None where it was made of none. One that was dropped early gained nothing."""
    body: dict[str, Any] = from_json(artifact.body)
    start, score, stage = body.get("start"), body.get("score"), body.get("stage")
    if not isinstance(start, float | int) or stage not in STAGES:
        return None
    if body.get("partial") or not isinstance(score, float | int):
        score = start
    return Past(str(stage), str(body.get("kind")), float(start), float(score - start), str(body.get("run")))


@dataclass(frozen=True, slots=True)
class Ranking:
    """What was learned.

    Args:
        weights: of ``_features``; empty where there was too little to learn from.
        count: past candidates that it was learned from.
    """

    weights: tuple[float, ...] = ()
    count: int = 0

    @classmethod
    def of(cls, past: Sequence[Past]) -> Ranking:
        """Learn."""
        if len(past) < LEAST:
            return cls()
        rows = [_features(one.stage, one.kind, one.start) for one in past]
        return cls(tuple(_ridge(rows, [max(0.0, one.gain) for one in past])), len(past))

    def gain(self, stage: str, kind: str, start: float) -> float | None:
        """What a candidate of a search is likely to gain; None where nothing was learned."""
        if not self.weights:
            return None
        return sum(w * x for w, x in zip(self.weights, _features(stage, kind, start), strict=True))


def _features(stage: str, kind: str, start: float) -> list[float]:
    """What is left to gain: as such, by each search, and by each search at each kind of task."""
    room = 1.0 - start
    made = [room]
    made += [room * (stage == one) for one in STAGES]
    made += [room * (stage == one and kind == each) for one in STAGES for each in _KINDS]
    return made


def _ridge(rows: Sequence[Sequence[float]], targets: Sequence[float]) -> list[float]:
    """Weights that minimise the squared error plus the shrinkage of all but the first, which is the mean's."""
    size = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) + (_SHRINKAGE if i == j and i else 1e-6 * (i == j)) for j in range(size)]
        for i in range(size)
    ]
    right = [sum(row[i] * target for row, target in zip(rows, targets, strict=True)) for i in range(size)]
    # Gaussian elimination; the matrix is symmetric and positive definite, so that no pivot is 0
    for i in range(size):
        for k in range(i + 1, size):
            factor = matrix[k][i] / matrix[i][i]
            if factor:
                matrix[k] = [a - factor * b for a, b in zip(matrix[k], matrix[i], strict=True)]
                right[k] -= factor * right[i]
    weights = [0.0] * size
    for i in range(size - 1, -1, -1):
        rest = sum(matrix[i][j] * weights[j] for j in range(i + 1, size))
        weights[i] = (right[i] - rest) / matrix[i][i]
    return weights


def shares(stages: Sequence[str], ranking: Ranking, kind: str, start: float) -> dict[str, float] | None:
    """How a budget is to be parted among searches, by what their candidates are likely to gain, best first.

    Args:
        stages: the searches.
        ranking: what was learned.
        kind: of the task.
        start: the base's mean score.

    Returns:
        Shares that sum to 1; None where nothing was learned, or nothing ever helped.
    """
    gains = {name: ranking.gain(name, kind, start) for name in stages}
    worth = {name: max(0.0, gain) ** 2 for name, gain in gains.items() if gain is not None}
    total = sum(worth.values())
    if len(worth) < 2 or not total:
        return None
    # nothing is given up for good: what was bad for other tasks may be good for this one
    parted = {name: _LEAST_SHARE / len(worth) + (1 - _LEAST_SHARE) * one / total for name, one in worth.items()}
    return dict(sorted(parted.items(), key=lambda one: -one[1]))
