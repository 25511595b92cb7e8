"""What a loop needs of others: an optimizer, and whoever notices more than scores say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kaizen.learn.feed import News
from kaizen.learn.loop.monitor import Signal
from kaizen.learn.loop.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A proposal that is wanted.

    Args:
        plan: of the loop.
        run_id: the optimizer's run: one that was begun before is gone on with.
        start: content address of the version to start from, or ``base``.
        usd: dollars it may cost.
        since: Unix seconds from which corrections are taken as rows to learn from.
    """

    plan: Plan
    run_id: str
    start: str
    usd: float
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What an optimizer found.

    Args:
        version: content address of the params version that is better on held-out rows; None where nothing is.
        said: the numbers.
        large: why a person should look at it first; empty for a small change.
        usd: what it cost; None where a price is not known.
    """

    version: str | None
    said: str
    large: str = ""
    usd: float | None = 0.0


class Proposer(Protocol):
    """Makes proposals: an optimizer with the rows of the plan."""

    async def __call__(self, wanted: Wanted, /) -> Proposal:
        """Search, and test the best on held-out rows.

        Raises:
            Conflict: another process works on this run.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What has come since the last proposal; what came before was answered by it.

    Args:
        since: Unix seconds of the proposal.
        latest: the latest scores, some hundreds at most.
        failures: how many scores were below 0.5, of all that came.
        corrections: how many answers were corrected, of all.
    """

    since: float
    latest: Sequence[News]
    failures: int
    corrections: int


class Noticing(Protocol):
    """Finds what calls for a proposal besides scores: clusters of failures, corrections."""

    async def __call__(self, plan: Plan, arrived: Arrived, /) -> Signal | None:
        """What it calls for.

        Args:
            plan: of the loop.
            arrived: what has come.
        """
        ...
