"""Failures that are alike: inputs that lie close together and go wrong more often than others."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

from kaizen.ledger.intervals import wilson

_NEAR: Final = 0.6
"""Cosine similarity from which two texts are alike."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Inputs that are alike.

    Args:
        centre: place of the input that most of them lie round.
        failures: places of those that failed.
        of: how many there are in all.
        share: of them, that failed.
        overall: the share of all inputs that failed.
    """

    centre: int
    failures: tuple[int, ...]
    of: int
    share: float
    overall: float


def alike(points: bytes, dim: int, failed: Sequence[bool], least: int, near: float = _NEAR) -> Cluster | None:
    """The largest cluster of failures, or None where none stands out.

    A cluster stands out where at least ``least`` inputs near one another failed, and the lower end of the 95 % interval
    of their share is above the share of failures among all others.

    Args:
        points: float32, little endian, one after another, each of length 1; as embedders give them.
        dim: numbers a point has.
        failed: for each point.
        least: failures that make a cluster.
        near: cosine similarity from which two are alike.
    """
    numbers = array("f", points)
    rows = [numbers[at * dim : (at + 1) * dim] for at in range(len(failed))]
    found: Cluster | None = None
    bad = sum(failed)
    for centre, row in enumerate(rows):
        if not failed[centre]:
            continue
        close = [at for at, other in enumerate(rows) if sum(map(mul, row, other)) >= near]
        wrong = tuple(at for at in close if failed[at])
        others = len(rows) - len(close)
        overall = (bad - len(wrong)) / others if others else 0.0
        stands_out = len(wrong) >= least and wilson(len(wrong), len(close))[0] > overall
        if stands_out and (found is None or len(wrong) > len(found.failures)):
            found = Cluster(centre, wrong, len(close), len(wrong) / len(close), bad / len(rows))
    return found
