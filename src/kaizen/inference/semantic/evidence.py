"""What is known of false hits: evidence, and the bound that it proves.

Each time a question was answered anew although an earlier one lay near, the two answers agree or not. Of such evidence
two things are made, for each scope and type of task. A logistic model of "the earlier answer would have been right"
puts hits in an order, from the likeliest. And a count: of all hits at least as likely as this one, how many were false?
The bound is the upper end of the share of false ones that this count allows, with 95 % confidence (Clopper and Pearson,
The Use of Confidence or Fiducial Limits, 1934). An answer is given where the bound lies within the budget. What the
model gets wrong costs hits: it orders, it promises nothing.

With a budget of 1 % that takes 300 pieces of evidence without a false one, 475 with one, 630 with two.
``benchmarks/semantic_cache.py`` draws evidence again and again and looks how often the promise is kept.

The idea to learn the decision from explored hits, and to promise a rate, is vCache's (Schroeder et al., arXiv
2502.03771). There each cached prompt learns a threshold of similarity alone, and evidence of one tells nothing of
another. Here the order is learned of several marks of likeness, evidence is shared, and an entry's own comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kaizen.inference.semantic.likeness import FEATURES, Floats

# Where the learning of the order begins, and how far from there it may be. Set by hand: each only says that what is
# less alike is less likely the same.
_START: Final = np.array([4.5, -6.0, -4.0, -1.0, -1.0, -1.0, -2.0, -2.0, -0.5])
_SPREAD: Final = np.array([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.5])
# What is farther apart is never likelier the same, whatever little evidence says.
_DISTANCES: Final = [FEATURES.index(name) for name in ("apart", "gist_apart", "rest_apart", "rest")]
# How far a type of task may be from the others together.
_TASK_SPREAD: Final = 0.7
# 95 % on one side, as standard errors; and the bound on the mean of a count of none, which the formula misses a little.
_Z: Final = 1.645
_NONE: Final = 2.996
# An entry's own evidence counts against so many pieces like what is known of hits as likely as this one.
_NEIGHBOURHOOD: Final = 20.0
# Log odds that are still about as likely.
_ABOUT: Final = 1.0
# Likelihoods are sums, which come out a little different in another order.
_TIE: Final = 1e-9
# What is known of one hit comes from so many pieces of evidence nearest in likelihood.
_NEAR: Final = 100
_KEPT: Final = 4000


@dataclass(frozen=True, slots=True)
class Sample:
    """One piece of evidence.

    Args:
        pair: the question and the entry, digested; later evidence of the same pair replaces earlier.
        entry: the entry.
        task: the type of task.
        features: how alike the questions are.
        agreed: whether the fresh answer agreed with the kept one.
    """

    pair: str
    entry: str
    task: str
    features: tuple[float, ...]
    agreed: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """What is known of one would-be hit.

    Args:
        likely: how likely the kept answer is right.
        bound: the share of false hits that hits at least as likely have at most, with 95 % confidence, and what the
            entry's own evidence makes of it.
        alone: how likely this one hit is false at most.
        evidence: pieces of evidence of this type of task.
    """

    likely: float
    bound: float
    alone: float
    evidence: int


@dataclass(slots=True)
class _Model:
    """What was learned of one type of task. The arrays go from the likeliest piece of evidence down."""

    weights: Floats
    scores: Floats = field(default_factory=lambda: np.empty(0))
    wrong: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))  # false ones so far
    bounds: Floats = field(default_factory=lambda: np.empty(0))


class Evidence:
    """The evidence of one scope. Not for several threads at once."""

    def __init__(self, samples: Sequence[Sample] = ()) -> None:
        self._samples: dict[str, Sample] = {}
        self._entries: dict[str, dict[str, Sample]] = {}
        self._models: dict[str, tuple[int, _Model]] = {}
        self._added = 0
        for sample in samples:
            self.add(sample)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All that is kept, the oldest first."""
        return tuple(self._samples.values())

    def has(self, pair: str) -> bool:
        """Whether there is evidence of a question and an entry."""
        return pair in self._samples

    def tasks(self) -> tuple[str, ...]:
        """The types of tasks that there is evidence of."""
        return tuple(dict.fromkeys(sample.task for sample in self._samples.values()))

    def add(self, sample: Sample) -> None:
        """Take in one piece; beyond 4,000 the oldest goes."""
        self._forget(sample.pair)
        self._samples[sample.pair] = sample
        self._entries.setdefault(sample.entry, {})[sample.pair] = sample
        self._added += 1
        if len(self._samples) > _KEPT:
            self._forget(next(iter(self._samples)))

    def _forget(self, pair: str) -> None:
        gone = self._samples.pop(pair, None)
        if gone is not None:
            own = self._entries[gone.entry]
            del own[pair]
            if not own:
                del self._entries[gone.entry]

    def score(self, task: str, rows: Floats) -> Floats:
        """How likely each is right, as log odds: for the order."""
        return rows @ self._model(task).weights

    def bound(self, task: str, entry: str, features: Floats) -> Bound:
        """What is known of one would-be hit."""
        model = self._model(task)
        score = float(features @ model.weights)
        known, alone = _known(model, score)
        wrong, right = self._own(model, entry, score)
        if wrong or right:
            own = (_NEIGHBOURHOOD * alone + wrong) / (_NEIGHBOURHOOD + right + wrong)
            known = max(known, own) if wrong else min(known, own)
        return Bound(1.0 / (1.0 + math.exp(-score)), known, alone, len(model.scores))

    def _own(self, model: _Model, entry: str, score: float) -> tuple[int, int]:
        """An entry's own evidence: false hits about as likely as this one or likelier, right ones no likelier."""
        own = self._entries.get(entry)
        if not own:
            return 0, 0
        scores = np.array([sample.features for sample in own.values()]) @ model.weights
        agreed = np.array([sample.agreed for sample in own.values()])
        return int(np.sum(~agreed & (scores >= score - _ABOUT))), int(np.sum(agreed & (scores <= score + _TIE)))

    def stats(self, budget: float) -> Mapping[str, Mapping[str, Any]]:
        """By type of task: pieces of evidence, the false ones among them, the bound, and what the budget lets pass.

        ``bound`` is that of all that the budget lets pass, or the least there is. ``likely_from`` is the likelihood
        from which on answers are given, None where none are; ``share`` is the share of the evidence as likely.
        """
        return {task: _shown(self._model(task), budget) for task in self.tasks()}

    def _model(self, task: str) -> _Model:
        known = self._models.get(task)
        # learned anew with every piece at first, then with every hundredth part more
        if known is not None and self._added - known[0] <= len(self._samples) // 100:
            return known[1]
        own = [sample for sample in self._samples.values() if sample.task == task]
        others = [sample for sample in self._samples.values() if sample.task != task]
        start, spread = _START, _SPREAD
        if others:
            start, spread = _learned(others, _START, _SPREAD), np.minimum(_SPREAD, _TASK_SPREAD)
        model = _Model(_learned(own, start, spread))
        if own:
            _count(model, own)
        self._models[task] = (self._added, model)
        return model


def _learned(samples: Sequence[Sample], start: Floats, spread: Floats) -> Floats:
    """The likeliest weights, by Newton's method, where they are normal about ``start`` before."""
    if not samples:
        return start
    weights, precision = start.copy(), np.diag(1.0 / spread**2)
    rows = np.array([sample.features for sample in samples])
    right = np.array([sample.agreed for sample in samples], np.float64)
    for _ in range(30):
        likely = 1.0 / (1.0 + np.exp(-np.clip(rows @ weights, -30, 30)))
        hessian = (rows.T * (likely * (1 - likely))) @ rows + precision
        step = np.linalg.solve(hessian, rows.T @ (likely - right) + precision @ (weights - start))
        # a long step is shortened: with few samples the first one overshoots
        length = float(np.abs(step).max())
        weights = weights - step * min(1.0, 2.0 / max(length, 1e-9))
        weights[_DISTANCES] = np.minimum(weights[_DISTANCES], 0.0)
        if length < 1e-4:
            break
    return weights


def _count(model: _Model, own: Sequence[Sample]) -> None:
    """Count false hits from the likeliest down, and bound each region by the best of those that hold it."""
    rows = np.array([sample.features for sample in own])
    scores = rows @ model.weights
    order = np.argsort(-scores, kind="stable")
    model.scores = scores[order]
    model.wrong = np.cumsum(~np.array([sample.agreed for sample in own])[order])
    # hits as likely as each other are in a region together or not at all
    last = np.searchsorted(-model.scores, -model.scores + _TIE, side="right") - 1
    bounds = _upper(model.wrong, np.arange(1, len(own) + 1))[last]
    model.bounds = np.minimum.accumulate(bounds[::-1])[::-1]


def _known(model: _Model, score: float) -> tuple[float, float]:
    """The bound of all hits at least so likely, and that of hits just so likely."""
    count = len(model.scores)
    if not count:
        return 1.0, 1.0
    # a hit belongs to every region that reaches down to it or further
    at = int(np.searchsorted(-model.scores, -score - _TIE, side="left"))
    known = float(model.bounds[at]) if at < count else 1.0
    first = max(0, min(at - _NEAR // 2, count - _NEAR))
    last = min(count, first + _NEAR)
    wrong = int(model.wrong[last - 1]) - (int(model.wrong[first - 1]) if first else 0)
    return known, min(1.0, _end(wrong) / (last - first))


def _upper(wrong: NDArray[np.intp], count: NDArray[np.intp]) -> Floats:
    """The upper ends of shares of which some were counted, with 95 % confidence.

    The exact end is a beta distribution's; this is the gamma distribution's, which lies a little above it.
    """
    ends = np.array([_end(number) for number in range(int(wrong[-1]) + 1)])
    return np.minimum(1.0, ends[wrong] / count)


@cache
def _end(wrong: int) -> float:
    """The upper end of the mean of a count (Wilson and Hilferty, The Distribution of Chi-Square, 1931)."""
    if not wrong:
        return _NONE
    degrees = 2.0 * wrong + 2.0
    return degrees * (1.0 - 2.0 / (9.0 * degrees) + _Z * math.sqrt(2.0 / (9.0 * degrees))) ** 3 / 2.0


def _shown(model: _Model, budget: float) -> Mapping[str, Any]:
    within = np.flatnonzero(model.bounds <= budget)
    served = int(within[-1]) + 1 if len(within) else 0
    least = float(model.scores[served - 1]) if served else None
    return {
        "evidence": len(model.scores),
        "false": int(model.wrong[-1]),
        "bound": float(model.bounds[served - 1] if served else model.bounds[0]),
        "likely_from": None if least is None else 1.0 / (1.0 + math.exp(-least)),
        "share": served / len(model.scores),
    }
