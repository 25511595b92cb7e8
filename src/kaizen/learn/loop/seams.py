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


class Noticing(Protocol):
    """Finds what calls for a proposal besides scores: clusters of failures, corrections."""

    async def __call__(self, plan: Plan, news: Sequence[News], since: float, /) -> Signal | None:
        """What calls and scores call for.

        Args:
            plan: of the loop.
            news: the latest scores.
            since: Unix seconds of the last proposal: what came before was answered by it.
        """
        ...
