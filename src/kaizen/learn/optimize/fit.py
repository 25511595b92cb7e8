"""Weights for values that are weighed, fitted to rows whose value is known; and how good they are on others."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul, sub
from statistics import fmean
from typing import Final

from kaizen.core.params import Weights

# Penalties, in nats for all cases together: with few rows the weights stay near what is usual.
_MODEL: Final = 2.0
_NEAR: Final = 0.5
_LEAD: Final = 1.0
_USUAL: Final = (0.7, 0.3)
_ROUNDS: Final = 120
_FOLDS: Final = 8


@dataclass(frozen=True, slots=True)
class Case:
    """What spoke for the values of one row's field, and which is right.

    Args:
        texts: of the options that may have a lead, the first ones; the same for all cases. For a field with few values
            these are all, for one of text only the first, which is nothing: a phrase has none of its own.
        likely: the model's log-probability of each.
        near: the logarithm of each one's share among near demos; None where there are none.
        right: the place of the right one.
    """

    texts: tuple[str, ...]
    likely: tuple[float, ...]
    near: tuple[float, ...] | None
    right: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights and what to expect of them.

    Args:
        weights: fitted to all cases.
        loss: mean nats by which they miss the right value, on cases they were not fitted to.
        right: share of those cases in which the right value is the likeliest.
    """

    weights: Weights
    loss: float
    right: float


def fit(cases: Sequence[Case], *, absent: str | None = None, seed: int = 0) -> Fitted:
    """Fit weights, and say how good they are by cross-validation.

    A value's lead is its mean log-probability over the cases, and what the rows say beyond that (Zhou et al. 2023,
    https://arxiv.org/abs/2309.17249, has the mean). The weights minimise the log-loss with a penalty.

    Args:
        cases: one or more.
        absent: see ``Weights``.
        seed: of the partition.
    """
    order = list(range(len(cases)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a partition
    folds = min(_FOLDS, len(cases))
    losses: list[float] = []
    hits: list[float] = []
    for part in range(folds if folds > 1 else 0):
        held = set(order[part::folds])
        model = _solved([case for at, case in enumerate(cases) if at not in held])
        for at in held:
            found = model.chances(cases[at])
            losses.append(-math.log(max(found[cases[at].right], 1e-9)))
            hits.append(float(max(range(len(found)), key=lambda one: found[one]) == cases[at].right))
    solved = _solved(cases)
    lead = {text: round(solved.lead[at], 4) for at, text in enumerate(solved.texts)}
    weights = Weights(round(solved.model, 4), round(solved.near, 4), lead, absent)
    return Fitted(weights, fmean(losses) if losses else math.inf, fmean(hits) if hits else 0.0)


@dataclass(frozen=True, slots=True)
class _Solved:
    texts: tuple[str, ...]
    model: float
    near: float
    lead: tuple[float, ...]

    def chances(self, case: Case) -> list[float]:
        near = case.near or (0.0,) * len(case.likely)
        leads = (*self.lead, *(0.0 for _ in case.likely[len(self.lead) :]))
        sums = [
            self.model * lp + self.near * one - lead for lp, one, lead in zip(case.likely, near, leads, strict=True)
        ]
        return _softmax(sums)


def _solved(cases: Sequence[Case]) -> _Solved:
    """The weights with the least penalised log-loss: convex, so a plain descent with momentum finds them."""
    size = len(cases[0].texts)
    mean = _usual(cases, size)
    centred = [[*map(sub, case.likely, mean), *case.likely[size:]] for case in cases]
    nearby = [case.near or (0.0,) * len(case.likely) for case in cases]
    has_near = any(case.near is not None for case in cases)
    spread = 1.0 + fmean(value * value for row in (*centred, *nearby) for value in row)
    step = 1.0 / (len(cases) * spread / 2 + _MODEL + _LEAD)
    at, speed = [*_USUAL, *([0.0] * size)], [0.0] * (size + 2)
    for _ in range(_ROUNDS):
        ahead = [value + 0.9 * one for value, one in zip(at, speed, strict=True)]
        slope = _slope(ahead, cases, centred, nearby)
        if not has_near:
            slope[1] = 0.0
        speed = [0.9 * one - step * each for one, each in zip(speed, slope, strict=True)]
        at = [value + one for value, one in zip(at, speed, strict=True)]
        at[0], at[1] = max(0.0, at[0]), max(0.0, at[1])  # what speaks for a value must not be held against it
    lead = tuple(at[0] * middle + beyond for middle, beyond in zip(mean, at[2:], strict=True))
    least = min(lead) if size > 1 else 0.0
    return _Solved(cases[0].texts, at[0], at[1] if has_near else 0.0, tuple(one - least for one in lead))


def _usual(cases: Sequence[Case], size: int) -> list[float]:
    """By how much the model usually prefers each option that may have a lead."""
    if size > 1:
        return [fmean(case.likely[at] for case in cases) for at in range(size)]
    return [fmean(case.likely[0] - max(case.likely[1:]) for case in cases)]


def _slope(
    at: Sequence[float], cases: Sequence[Case], centred: Sequence[Sequence[float]], nearby: Sequence[Sequence[float]]
) -> list[float]:
    """The gradient of the penalised loss by model, near and what each lead has beyond the mean."""
    model, near, beyond = at[0], at[1], at[2:]
    slope = [_MODEL * (model - _USUAL[0]), _NEAR * (near - _USUAL[1]), *(_LEAD * one for one in beyond)]
    for case, likely, share in zip(cases, centred, nearby, strict=True):
        leads = (*beyond, *(0.0 for _ in likely[len(beyond) :]))
        off = _softmax([model * a + near * b - c for a, b, c in zip(likely, share, leads, strict=True)])
        off[case.right] -= 1.0
        slope[0] += sum(map(mul, off, likely))
        slope[1] += sum(map(mul, off, share))
        for place, one in enumerate(off[: len(beyond)]):
            slope[place + 2] -= one
    return slope


def _softmax(sums: Sequence[float]) -> list[float]:
    most = max(sums)
    raised = [math.exp(one - most) for one in sums]
    whole = sum(raised)
    return [one / whole for one in raised]


def losses(fitted: Mapping[str, Fitted]) -> float:
    """The mean over fields of the nats they miss by."""
    return fmean(one.loss for one in fitted.values()) if fitted else math.inf
