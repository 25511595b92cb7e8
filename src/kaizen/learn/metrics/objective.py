"""Several metrics as one: weights for what should rise, bounds for what must hold."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program
from kaizen.core.errors import ConfigError
from kaizen.learn.metrics.measure import Measure, Scored, metric_spec
from kaizen.learn.metrics.taken import Reading

_SIGNS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_BOUND: Final = re.compile(r"^\s*([\w:./-]+)\s*(<=|>=|<|>)\s*([-+\d.eE]+)\s*(ms|usd|%)?\s*$", re.ASCII)
_TERM: Final = re.compile(r"^\s*(?:([\d.]+)\s*\*\s*)?(\S+?)\s*(?:up)?\s*$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bound:
    """What must hold of an evaluation's figures, such as ``p95 < 200``.

    Args:
        figure: its name in ``Evaluation.figures``.
        sign: one of ``<``, ``<=``, ``>``, ``>=``.
        value: milliseconds, dollars a row, or a share.
    """

    figure: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.figure} {self.sign} {self.value:g}"

    def broken(self, figures: Mapping[str, float]) -> str | None:
        """Why it does not hold, None where it does. A figure that is not known breaks it: nobody could tell."""
        found = figures.get(self.figure)
        if found is None:
            return f"{self}: {self.figure} is not known"
        return None if _SIGNS[self.sign](found, self.value) else f"{self}: it is {found:.6g}"


@dataclass(frozen=True, slots=True)
class Term:
    """A metric and its weight."""

    name: str
    weight: float
    program: Program


class Objective:
    """The weighted mean of metrics, under bounds.

    A metric that has nothing to say about a row drops out of that row, the other weights are made to sum to 1 again,
    and the share of the weights that counted is kept as the score's coverage.

    Args:
        name: as it was written.
        terms: what is weighed.
        bounds: what must hold of the whole.
    """

    def __init__(self, name: str, terms: Sequence[Term], bounds: Sequence[Bound] = ()) -> None:
        self.name, self.terms, self.bounds = name, tuple(terms), tuple(bounds)
        self.programs = tuple(term.program for term in terms)
        self.spec = metric_spec(f"objective:{name}", self.__doc__ or "")

    def combine(self, said: Sequence[Scored | None]) -> Scored | None:
        """The terms' words on one answer, in order, as one; None where none had anything to say."""
        pairs = [(term, word) for term, word in zip(self.terms, said, strict=True) if word is not None]
        counted = sum(term.weight * word.coverage for term, word in pairs)
        if not pairs or not counted:
            return None
        total = sum(term.weight for term in self.terms)
        value = sum(term.weight * word.coverage * word.value for term, word in pairs) / counted
        comment = "; ".join(f"{term.name}: {word.comment}" for term, word in pairs if word.comment)
        parts: dict[str, float | None] = {}
        for term, word in zip(self.terms, said, strict=True):
            parts |= {} if word is None else word.parts
            parts[term.name] = None if word is None else word.value
        return Scored(value, comment, parts, counted / total)

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """As a program's step: the terms that are no Measures are steps of it."""
        said: list[Scored | None] = []
        for term in self.terms:
            if isinstance(term.program, Measure):
                said.append(term.program.said(inputs["inputs"], inputs["expected"], inputs.get("prediction")))
            else:
                word = await ctx.call(term.program, **inputs)
                said.append(Scored(float(word.outputs["score"]), str(word.outputs.get("comment") or "")))
        scored = self.combine(said) or Scored(0.0, "nothing here to measure")
        return Answer.of({"score": scored.value, "comment": scored.comment}, inputs=inputs)


def objective(text: str, make: Callable[[str], Program]) -> Objective:
    """An objective as people write it: ``0.7*accuracy, 0.3*rouge, cost_usd < 0.01, p95 < 200``.

    Args:
        text: metrics with or without a weight (1), and bounds, separated by commas.
        make: the metric of a name.

    Raises:
        ConfigError: it can't be read, has no metric to raise, or weighs what is no share.
    """
    terms: list[Term] = []
    bounds: list[Bound] = []
    for part in text.split(","):
        if (found := _BOUND.match(part)) is not None:
            bounds.append(_bound(part, found))
            continue
        found = _TERM.match(part)
        if found is None:
            raise ConfigError(
                f"--metric: {part.strip()!r} is neither a metric, as in 0.5*f1, nor a bound, as in p95 < 200"
            )
        program = make(found[2])
        if isinstance(program, Reading):
            raise ConfigError(
                f"--metric: {found[2]} has no best value to rise to: bound it, as in {_bounded(found[2])}"
            )
        terms.append(Term(found[2], _number(part, found[1] or "1"), program))
    if not terms:
        raise ConfigError(f"--metric {text!r} bounds, but names no metric to raise")
    if sum(term.weight for term in terms) <= 0:
        raise ConfigError(f"--metric {text!r}: the weights have to sum to more than 0")
    return Objective(text.strip(), terms, bounds)


def _bounded(name: str) -> str:
    return {"latency": "p95 < 200", "cost": "cost_usd < 0.01"}.get(name, f"{name} < 1000")


def _bound(part: str, found: re.Match[str]) -> Bound:
    value = _number(part, found[3])
    return Bound(
        {"latency": "latency_ms", "cost": "cost_usd"}.get(found[1], found[1]),
        found[2],
        value / 100 if found[4] == "%" else value,
    )


def _number(part: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--metric: {text!r} in {part.strip()!r} is no number") from None
