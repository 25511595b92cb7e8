"""The Pareto front of quality against cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def front(found: Iterable[T], *, cost: Callable[[T], float], score: Callable[[T], float]) -> list[T]:
    """Those that nothing is both better and cheaper than, the cheapest first.

    Args:
        found: what there is.
        cost: of one, in whatever all have.
        score: of one.
    """
    best: list[T] = []
    for one in sorted(found, key=lambda one: (cost(one), -score(one))):
        if not best or score(one) > score(best[-1]):
            best.append(one)
    return best
