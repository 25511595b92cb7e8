"""What a search found, and whether its best is better than the base or only lucky: one test for all that was tried."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import from_json

from kaizen.learn.data.rows import canonical
from kaizen.learn.figures import Figures

_FLIPS: Final = 2000
_EPSILON: Final = 1e-12


def likely(winner: str, tries: Mapping[str, Mapping[str, float]], base: Mapping[str, float], seed: int = 0) -> float:
    """The p-value that the best of many tries is no better than the base, corrected for how many there were.

    Westfall and Young's step-down idea (Resampling-Based Multiple Testing, 1993), its first step: the differences of
    each row keep or change their sign together in all tries, and the winner is compared with the best of them all. So
    tries that are alike count as few, and rows that a try was not scored on don't count for it. One-sided, 2000 flips:
    the least value it gives is 1/2001.

    Args:
        winner: key of the try to test.
        tries: scores by row key, of every try but the base.
        base: the base's scores.
        seed: of the flips.
    """
    rows = sorted(base)
    place = {row: at for at, row in enumerate(rows)}
    differences = {
        name: [(place[row], score - base[row]) for row, score in sorted(scores.items()) if row in base]
        for name, scores in tries.items()
    }
    differences = {
        name: kept for name, some in differences.items() if (kept := [(at, d) for at, d in some if abs(d) > _EPSILON])
    }
    if winner not in differences:
        return 1.0
    scales = {name: math.sqrt(sum(d * d for _, d in some)) for name, some in differences.items()}
    seen = sum(d for _, d in differences[winner]) / scales[winner]
    if seen <= 0:
        return 1.0
    rng = random.Random(seed)  # noqa: S311 - flipping signs, no secret
    # equal tries need be looked at once
    distinct = {tuple(some): scales[name] for name, some in differences.items()}
    reached = 0
    for _ in range(_FLIPS):
        signs = rng.getrandbits(len(rows))
        reached += any(
            sum(-d if signs >> at & 1 else d for at, d in some) >= (seen - 1e-9) * scale
            for some, scale in distinct.items()
        )
    return (1 + reached) / (_FLIPS + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found.

    Args:
        program, optimizer, metric, seed: what was done.
        improved: whether there is a winner.
        reason: why it was taken, or why nothing was.
        how: how the winner came about.
        params: its params by program name, canonical JSON; empty where nothing was gained.
        chance: the p-value of the choice, all tries together; None where none was made.
        chosen_on: figures on the rows it was chosen by, which flatter it; without a winner the program's as it is, as
            before and as after.
        test: figures on held-out rows; None where there were none, nothing to test, or no budget left for them.
        test_rows: how many held-out rows there are.
        tested_before: how many other runs were tested on the same ones before; 0 where this one was not.
        candidates: how many were tried.
        used: model calls planned with, cached ones included.
        stopped: what ended the search early, such as the budget.
        front: the Pareto front of quality against cost: score, dollars and tokens a row, and how.
    """

    program: str
    optimizer: str
    metric: str
    seed: int
    improved: bool
    reason: str
    how: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    chance: float | None = None
    chosen_on: Figures | None = None
    test: Figures | None = None
    test_rows: int = 0
    candidates: int = 0
    used: int = 0
    stopped: str = ""
    front: Sequence[Mapping[str, Any]] = ()
    tested_before: int = 0


def report_json(report: Report) -> dict[str, Any]:
    """A report as JSON-able values."""
    made: dict[str, Any] = from_json(canonical(report))
    return made


def report_of(made: Mapping[str, Any]) -> Report:
    """A report from JSON."""
    figures: dict[str, Any] = {
        name: None if made[name] is None else Figures(**made[name]) for name in ("chosen_on", "test")
    }
    return Report(**{**made, **figures})
