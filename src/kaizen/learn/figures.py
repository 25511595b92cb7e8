"""What a row scored and cost before and after, and whether a quality holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, Protocol

from kaizen.learn.stats import paired

MARGIN: Final = 0.1
"""How far a score may have fallen, at worst, for its quality to hold."""

_POINT: Final = 0.01 + 1e-9


class Judged(Protocol):
    """What is known of a row that was answered: its score, and what the answer took."""

    @property
    def score(self) -> float:
        """What the metric gave it."""
        ...

    @property
    def cost_usd(self) -> float | None:
        """Dollars; None where a price is not known."""
        ...

    @property
    def tokens(self) -> int:
        """Read and written."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Before and after, on the same rows.

    Args:
        rows: how many.
        before, after: mean scores.
        low, high: 95 % interval of the gain, by paired bootstrap.
        usd_before, usd_after: mean dollars a row; None where a price is not known.
        tokens_before, tokens_after: mean tokens a row.
    """

    rows: int
    before: float
    after: float
    low: float
    high: float
    usd_before: float | None = None
    usd_after: float | None = None
    tokens_before: float = 0.0
    tokens_after: float = 0.0

    @property
    def gain(self) -> float:
        """Mean difference."""
        return self.after - self.before


def figures_of(before: Sequence[Judged], after: Sequence[Judged]) -> Figures:
    """Figures of the same rows before and after."""
    old, new = [one.score for one in before], [one.score for one in after]
    low, high = paired(old, new)
    return Figures(
        rows=len(old),
        before=fmean(old),
        after=fmean(new),
        low=low,
        high=high,
        usd_before=_usd(before),
        usd_after=_usd(after),
        tokens_before=fmean(one.tokens for one in before),
        tokens_after=fmean(one.tokens for one in after),
    )


def _usd(outcomes: Sequence[Judged]) -> float | None:
    costs = [one.cost_usd for one in outcomes]
    return None if None in costs else fmean(cost or 0.0 for cost in costs)


def costs(figures: Figures) -> tuple[float, float]:
    """What a row cost before and after: dollars, or tokens where those are not known."""
    if figures.usd_before is None or figures.usd_after is None:
        return figures.tokens_before, figures.tokens_after
    return figures.usd_before, figures.usd_after


def holds(figures: Figures) -> bool:
    """Whether the quality holds: the mean falls by no more than a point, at the interval's worst by ``MARGIN``."""
    return figures.gain >= -_POINT and figures.low >= -MARGIN
