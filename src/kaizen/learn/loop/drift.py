"""Whether a version's scores have turned worse: what is known of its level, and two watches over it. No clock, no I/O.

Both bet on scores being lower than they were, each score against what its own subject's were before: calls of one
subject are correlated, and what is known of a subject takes that out. A bet at the odds of a mean that is ``harm``
lower multiplies the capital by 1 + b (expected - score); while nothing has changed, that is a fair game.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

_KEPT: Final = 200_000
"""Subjects that are known one by one; further ones are taken for strangers."""
_OVERSHOOT: Final = 1.166
"""How far a sum of steps passes its bound, in standard deviations of a step, twice over (Siegmund, 1985)."""


@dataclass(slots=True)
class _Subject:
    n: int = 0
    total: float = 0.0


class Level:
    """How a version scores, and how alike the scores of one subject are.

    The expected next score of a subject is the mean of all, drawn towards the subject's own by how much scores of one
    subject agree (the intraclass correlation of the one-way analysis of variance). For rates that follow a beta
    distribution over subjects this is exactly the mean given the past.
    """

    __slots__ = ("_between", "_sizes", "_squares", "_subjects", "_total", "n")

    def __init__(self) -> None:
        self.n = 0
        self._total = self._squares = self._between = self._sizes = 0.0
        self._subjects: dict[str, _Subject] = {}

    def add(self, subject: str, value: float) -> None:
        """Take in one score."""
        self.n += 1
        self._total += value
        self._squares += value * value
        known = self._subjects.get(subject)
        if known is None:
            if len(self._subjects) >= _KEPT:
                self._between += value * value
                self._sizes += 1
                return
            known = self._subjects[subject] = _Subject()
        if known.n:
            self._between -= known.total * known.total / known.n
        self._sizes += 2 * known.n + 1
        known.n += 1
        known.total += value
        self._between += known.total * known.total / known.n

    @property
    def mean(self) -> float:
        """Of all scores; 0.5 without any."""
        return self._total / self.n if self.n else 0.5

    @property
    def variance(self) -> float:
        """Of one score; with few or equal scores, as if a good and a bad one had come besides."""
        n, mean = self.n + 2, (self._total + 1) / (self.n + 2)
        return max(1e-4, (self._squares + 1) / n - mean * mean)

    @property
    def correlation(self) -> float:
        """Of two scores of one subject: 0 to 0.95."""
        groups = len(self._subjects)
        if groups < 2 or self.n - groups < 2:
            return 0.0
        size = (self.n - self._sizes / self.n) / (groups - 1)
        between = (self._between - self._total * self._total / self.n) / (groups - 1)
        within = (self._squares - self._between) / (self.n - groups)
        spread = between + (size - 1) * within
        return min(0.95, max(0.0, (between - within) / spread)) if spread > 0 else 0.0

    def expected(self, subject: str, seen: int = 0, total: float = 0.0) -> tuple[float, float]:
        """Mean and variance of a subject's next score.

        Args:
            subject: whose.
            seen: its scores that are not part of the level yet.
            total: their sum.
        """
        mean, variance, correlation = self.mean, self.variance, self.correlation
        if correlation == 0.0:
            return mean, variance
        known = self._subjects.get(subject)
        n, own = seen + (known.n if known else 0), total + (known.total if known else 0.0)
        drawn = (1 - correlation) / correlation
        return (drawn * mean + own) / (drawn + n), variance * (1 - correlation + correlation * drawn / (drawn + n))


class _Bets:
    """Steps of the logarithm of the capital.

    Args:
        level: what is expected.
        harm: how much lower scores are where the bet is best.
        doubt: standard errors of the level's mean by which less is expected: the level may be a little lower than it
            seems, and who bets on that for long wins.
    """

    __slots__ = ("_doubt", "_harm", "_level", "_pending")

    def __init__(self, level: Level, harm: float, doubt: float = 0.0) -> None:
        self._level, self._harm, self._doubt = level, harm, doubt
        self._pending: dict[str, _Subject] = {}

    def step(self, subject: str, value: float) -> tuple[float, float, float]:
        """The logarithm of what the bet multiplies, how far below its expectation the score is, and its variance."""
        own = self._pending.setdefault(subject, _Subject())
        mean, variance = self._level.expected(subject, own.n, own.total)
        own.n += 1
        own.total += value
        if self._doubt:
            mean = max(0.0, mean - self._doubt * math.sqrt(variance / self._level.n))
        bet = min(self._harm / variance, 0.5 / max(1 - mean, 1e-3))
        return math.log1p(bet * (mean - value)), mean - value, variance

    def forget(self) -> None:
        """What came since is part of the level now."""
        self._pending.clear()


class Probation:
    """A version that was released, against the level of the one before it: is it worse?

    Half of alpha is for a bet that may win at any time (Ville's inequality), the other half for one look after ``look``
    scores, where a test of fixed size is sharper; the two together take back a version that is as good as the one
    before with a probability of at most alpha, as far as that one's level is known.

    Args:
        level: of the version before. It is read, not changed.
        harm: how much worse is to be found: 0.1 is ten points.
        alpha: how often a version may be taken back that is no worse.
        look: scores after which the one look is taken.
    """

    __slots__ = ("_alpha", "_below", "_bets", "_log", "_look", "_variance", "mean", "n")

    def __init__(self, level: Level, *, harm: float = 0.1, alpha: float = 0.15, look: int = 180) -> None:
        self._bets = _Bets(level, harm)
        self._alpha, self._look = alpha, look
        self._log = self._below = self._variance = 0.0
        self.n = 0
        self.mean = 0.0

    def add(self, subject: str, value: float) -> bool:
        """Take in one score of the version; whether it is worse."""
        self.n += 1
        self.mean += (value - self.mean) / self.n
        step, below, variance = self._bets.step(subject, value)
        self._log += step
        self._below += below
        self._variance += variance
        if self._log >= math.log(2 / self._alpha):
            return True
        return self.n == self._look and self._below > _z(self._alpha / 2) * math.sqrt(self._variance)

    @property
    def evidence(self) -> float:
        """The capital of the bet: to be read against 2 / alpha."""
        return math.exp(min(self._log, 700.0))


class Drift:
    """A version against its own level: has it turned worse at some time that nobody knows?

    A cumulative sum of the bets that never falls below 0 (Page, 1954; as an e-detector: Shin, Ramdas and Rinaldo, arXiv
    2203.03532). Its bound is set so that with nothing changed an alarm comes once in ``quiet`` scores, in the mean, by
    Siegmund's approximation (1985) for steps of the size that the level's variance gives.

    Scores join the level whenever the sum is back at 0: until then they may be those of a change.

    Args:
        level: what is known; it grows.
        harm: how much worse is to be found.
        quiet: scores to a false alarm, in the mean.
    """

    __slots__ = ("_bets", "_harm", "_held", "_quiet", "_sum", "level")

    def __init__(self, level: Level, *, harm: float = 0.1, quiet: float = 25_000.0) -> None:
        self.level = level
        self._harm, self._quiet = harm, quiet
        self._bets = _Bets(level, harm, doubt=1.0)
        self._held: list[tuple[str, float]] = []
        self._sum = 0.0

    def add(self, subject: str, value: float) -> bool:
        """Take in one score; whether this is an alarm."""
        step, _, variance = self._bets.step(subject, value)
        self._sum += step
        self._held.append((subject, value))
        if self._sum <= 0.0:
            for one in self._held:
                self.level.add(*one)
            self._held.clear()
            self._bets.forget()
            self._sum = 0.0
            return False
        return self._sum >= bound(round(self._harm / math.sqrt(variance), 2), self._quiet)

    @property
    def held(self) -> tuple[tuple[str, float], ...]:
        """Subjects and scores that speak against the level, since the sum left 0."""
        return tuple(self._held)


@lru_cache(256)
def bound(size: float, quiet: float) -> float:
    """The bound of a cumulative sum of log likelihood ratios, for so many steps to a false alarm.

    Args:
        size: of the change, in standard deviations of one score.
        quiet: steps to a false alarm, in the mean.
    """
    # with steps of mean -size^2 / 2 and deviation size: ARL = (e^a - 1 - a) / (size^2 / 2), a = bound + overshoot
    wanted = quiet * size * size / 2
    low, high = 0.0, 60.0
    for _ in range(50):
        middle = (low + high) / 2
        if math.expm1(middle) - middle < wanted:
            low = middle
        else:
            high = middle
    return max(0.5, low - _OVERSHOOT * size)


def _z(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha)
