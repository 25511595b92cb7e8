"""Sequential tests that hold however often they are looked at.

Everything here is a bet: capital starts at 1, each observation multiplies it, and under the null hypothesis it is a
supermartingale. By Ville's inequality it ever reaches 1 / alpha with a probability of at most alpha, so whoever looks
after every observation and stops when it pleases errs no more often than one who looks once (Ville, 1939; Waudby-Smith
and Ramdas, "Estimating means of bounded random variables by betting", arXiv 2010.09686). No distribution is assumed
beyond bounds on the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

# Shares of the largest bet that can't lose everything. The mixture of all is within ln 6 of the best of them, and
# neighbours are near enough to share what they win: 2 to 20 points of a share are each near the best of one.
_SHARES: Final = (1 / 48, 1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3)
_TUNED: Final = 500
"""Subjects at which the interval is tightest."""


class Evidence:
    """Evidence that a mean is above a margin: a mixture of bets, each a fixed share of the capital.

    Valid for any values of at least ``-reach`` whose mean given the past is at most ``margin`` under the null.

    Args:
        reach: how far below 0 a value can lie.
        margin: what the mean has to be above.

    Attributes:
        value: the capital: 20 is evidence at the level of 5 %.
    """

    __slots__ = ("_bets", "_capital", "margin", "value")

    def __init__(self, reach: float, margin: float = 0.0) -> None:
        most = 1 / (reach + margin)
        self.margin = margin
        self.value = 1.0
        self._bets = tuple(most * share for share in _SHARES)
        self._capital = [1 / len(_SHARES)] * len(_SHARES)

    def add(self, value: float) -> None:
        """Take in one observation."""
        excess = value - self.margin
        self._capital = [capital * (1 + bet * excess) for capital, bet in zip(self._capital, self._bets, strict=True)]
        self.value = sum(self._capital)


@dataclass(slots=True)
class Moments:
    """How many, their mean and the sum of their squared distances from it (Welford, 1962)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take in one value."""
        self.n += 1
        step = value - self.mean
        self.mean += step / self.n
        self.squares += step * (value - self.mean)

    @property
    def variance(self) -> float:
        """Of one value; 0 for fewer than two."""
        return self.squares / (self.n - 1) if self.n > 1 else 0.0


class Comparison:
    """Two arms, a candidate and a control, by the means of their subjects' values in [0, 1].

    Each subject is in the candidate with a known probability ``share``, whatever its value would be. With s = 1 / share
    for the candidate's subjects and -1 / (1 - share) for the control's, s (y - c) has as its mean exactly the
    difference of the arms' means, for any c fixed before y is seen; c is the mean so far, which takes out most of the
    variance. So the tests are exact for arms of any size and any distribution of values.

    Args:
        share: probability that a subject of the two arms is the candidate's.
        margin: how far apart the arms may be.

    Attributes:
        better, worse: evidence that the difference is above the margin, or that it is below minus the margin.
        arms: the subjects' values, the control's first.
    """

    __slots__ = ("_candidate", "_control", "_pooled", "arms", "better", "share", "worse")

    def __init__(self, share: float, margin: float = 0.0) -> None:
        self.share = share
        self._candidate, self._control = 1 / share, -1 / (1 - share)
        reach = max(self._candidate, -self._control)
        self.better, self.worse = Evidence(reach, margin), Evidence(reach, margin)
        self.arms = (Moments(), Moments())
        self._pooled = Moments(mean=0.5)

    def add(self, candidate: bool, value: float) -> None:
        """Take in one subject."""
        moved = (self._candidate if candidate else self._control) * (value - self._pooled.mean)
        self.better.add(moved)
        self.worse.add(-moved)
        self.arms[candidate].add(value)
        self._pooled.add(value)

    @property
    def difference(self) -> float:
        """Mean of the candidate minus mean of the control."""
        return self.arms[True].mean - self.arms[False].mean

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Where the difference lies: holds at all times at once, for large samples.

        An asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv 2103.06476, theorem
        2.2), with the stratified estimate of the variance. For reading; decisions are made by the bets.
        """
        control, candidate = self.arms
        if min(control.n, candidate.n) < 2:
            return -1.0, 1.0
        n = control.n + candidate.n
        variance = candidate.variance / self.share + control.variance / (1 - self.share)
        rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / _TUNED
        spread = n * rho2 + 1
        half = math.sqrt(variance * 2 * spread / (n * n * rho2) * math.log(math.sqrt(spread) / alpha))
        return max(-1.0, self.difference - half), min(1.0, self.difference + half)


class Balance:
    """Evidence that subjects do not fall into an arm as often as they should.

    Then some never got there, or their scores never came, and the arms can't be compared. The ratio of a beta-binomial
    mixture to the stated share (Lindon and Malek, "Anytime-valid inference for multinomial count data", arXiv
    2011.03567).

    Args:
        share: probability that a subject is the candidate's.
        weight: how strongly the mixture is drawn to ``share``, in subjects.
    """

    __slots__ = ("_counts", "_prior", "_share", "_weight", "log")

    def __init__(self, share: float, weight: float = 100.0) -> None:
        self._share, self._weight = share, weight
        self._prior = (weight * (1 - share), weight * share)
        self._counts = [0, 0]
        self.log = 0.0

    def add(self, candidate: bool) -> None:
        """Take in one subject."""
        believed = (self._prior[candidate] + self._counts[candidate]) / (self._weight + sum(self._counts))
        self.log += math.log(believed / (self._share if candidate else 1 - self._share))
        self._counts[candidate] += 1
