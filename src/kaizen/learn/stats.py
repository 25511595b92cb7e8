"""How sure a mean or a difference is that was measured on rows: intervals and paired tests. Standard library only."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Final, NamedTuple

from kaizen.ledger.intervals import Z95, wilson

_RESAMPLES: Final = 2000
_DRAWS: Final = 4_000_000  # resamples times values, about half a second; with more the mean is as good as normal
_TAIL: Final = 0.025


class Interval(NamedTuple):
    """Where a figure lies with 95 % confidence, both ends included."""

    low: float
    high: float


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The 95 % interval of a mean: Wilson's for values that are all 0 or 1, else the bootstrap's.

    Args:
        values: one for each row; rows are taken for independent.
        seed: of the resampling.
    """
    if all(value in (0.0, 1.0) for value in values):
        return Interval(*wilson(round(sum(values)), len(values)))
    return bootstrap(values, seed)


def bootstrap(
    values: Sequence[float], seed: int = 0, *, statistic: Callable[[Sequence[float]], float] = fmean
) -> Interval:
    """The percentile bootstrap interval of a statistic (Efron and Tibshirani, 1993), 2000 resamples.

    A sample whose values are all the same says nothing of their spread: values from 0 to 1 then get Wilson's interval,
    which holds for the widest spread such values can have. The mean of so many values that resampling would take long
    gets the normal interval, from which the bootstrap's does not differ there.

    Raises:
        ValueError: without values.
    """
    n = len(values)
    if not n:
        raise ValueError("there is no interval of no values")
    least, most = min(values), max(values)
    if least == most and 0.0 <= least <= 1.0 and statistic is fmean:
        return Interval(*_wilson_mean(least, n))
    if n * _RESAMPLES > _DRAWS and statistic is fmean:
        middle, spread = fmean(values), Z95 * stdev(values) / math.sqrt(n)
        return Interval(max(least, middle - spread), min(most, middle + spread))
    rng = random.Random(seed)  # noqa: S311 - resampling, no secret
    resamples = _RESAMPLES if n * _RESAMPLES <= _DRAWS else max(200, _DRAWS // n)
    means = sorted(statistic(rng.choices(values, k=n)) for _ in range(resamples))
    tail = int(_TAIL * resamples)
    return Interval(means[tail], means[-1 - tail])


def _wilson_mean(mean: float, n: int) -> tuple[float, float]:
    """Wilson's interval for a mean of values from 0 to 1: their variance is at most that of zeros and ones."""
    z2 = Z95 * Z95
    middle = (mean + z2 / (2 * n)) / (1 + z2 / n)
    spread = Z95 * math.sqrt(mean * (1 - mean) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - spread), min(1.0, middle + spread)


def paired(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Interval:
    """The bootstrap interval of the mean of ``b - a``, row by row; the same rows in the same order.

    Where no row differs at all, rows that differ may still be rare: the interval then is as wide as for one row in each
    direction that was not seen. Where all differ by the same, that says nothing of their spread: differences from -1
    to 1 then get Wilson's interval, stretched to where they lie, which holds for the widest spread they can have.

    Raises:
        ValueError: for samples of different sizes, or none.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values can't be paired with {len(b)}")
    differences = [y - x for x, y in zip(a, b, strict=True)]
    if differences and not any(differences):
        unseen = wilson(0, len(differences))[1]
        return Interval(-unseen, unseen)
    if differences and min(differences) == max(differences) and abs(differences[0]) <= 1.0:
        low, high = _wilson_mean((differences[0] + 1) / 2, len(differences))
        return Interval(2 * low - 1, 2 * high - 1)
    return bootstrap(differences, seed)


def mcnemar(a: Sequence[float], b: Sequence[float]) -> float:
    """The exact two-sided p-value that two programs are right equally often, from the rows on which they differ.

    McNemar's test (Psychometrika 12, 1947) with binomial probabilities. A row is right from 0.5 on.

    Raises:
        ValueError: for samples of different sizes.
    """
    pairs = [(x >= 0.5, y >= 0.5) for x, y in zip(a, b, strict=True)]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    n, few = lost + won, min(lost, won)
    if n == 0:
        return 1.0
    half = n * math.log(2.0)
    logs = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - half for k in range(few + 1))
    return min(1.0, 2.0 * math.fsum(math.exp(each) for each in logs))


def sign_flip(a: Sequence[float], b: Sequence[float], seed: int = 0) -> float:
    """The two-sided p-value that the mean of ``b - a`` is 0, by flipping the signs of the differences at random.

    Fisher's randomisation test, 2000 flips: the least value it gives is 1/2001.

    Raises:
        ValueError: for samples of different sizes.
    """
    differences = [y - x for x, y in zip(a, b, strict=True) if x != y]
    if not differences:
        return 1.0
    seen = abs(math.fsum(differences)) - 1e-12
    rng = random.Random(seed)  # noqa: S311 - flipping signs, no secret
    n = len(differences)
    total = math.fsum(differences)

    def flipped() -> float:
        signs = rng.getrandbits(n)
        return total - 2.0 * math.fsum(each for place, each in enumerate(differences) if signs >> place & 1)

    rounds = max(200, min(_RESAMPLES, _DRAWS // n))
    return (1 + sum(abs(flipped()) >= seen for _ in range(rounds))) / (rounds + 1)
