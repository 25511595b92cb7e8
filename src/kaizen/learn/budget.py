"""How a budget of model calls is parted: search, a reserve for what is lost, and the test at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from kaizen.core.errors import BudgetExceeded

_RESERVED: Final = 10
_RESERVE_LEAST: Final = 2
_RESERVE_MOST: Final = 16
_TEST_MOST: Final = 2


class Spent(BudgetExceeded):
    """What a search meant to do does not fit into what is left for it; nothing was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """A budget of calls, parted. All together is never more than ``total``.

    Args:
        total: requests that may reach a model.
        reserve: kept for requests that have to be sent again: after a failure, and those in the air when a process was
            killed. Without it, a search that was killed would have less to spend than one that was not, and could not
            come to the same result.
        test: kept for the test at the end, before and after.
    """

    total: int
    reserve: int
    test: int

    @property
    def search(self) -> int:
        """What the search plans with."""
        return max(0, self.total - self.reserve - self.test)


def parted(total: int, test_rows: int) -> Shares:
    """Part a budget.

    The test takes two calls a row, or half of the budget where that is less: then as many rows are tested as that,
    and what the search left over, are enough for.

    Args:
        total: requests that may reach a model.
        test_rows: rows of the held-out test; 0 without one.
    """
    reserve = min(max(total // _RESERVED, _RESERVE_LEAST), _RESERVE_MOST)
    return Shares(total=total, reserve=reserve, test=min(_TEST_MOST * test_rows, total // 2))


@dataclass(slots=True)
class Purse:
    """What a search has used of its share, counted from the answers it got, so that a resumed one counts the same.

    Not the durable count of requests: that one also has what was lost and sent again, and would have a search that was
    killed decide otherwise than one that was not. Each request of a run is counted once, whether a cache answered or a
    model, unless it may be answered otherwise the next time.

    Args:
        calls: the most calls; None for no limit.
        tokens, usd: likewise.
    """

    calls: float | None = None
    tokens: float | None = None
    usd: float | None = None
    used_calls: int = 0
    used_tokens: int = 0
    used_usd: float = 0.0

    def add(self, calls: int, tokens: int, usd: float | None) -> None:
        """Count what was used."""
        self.used_calls += calls
        self.used_tokens += tokens
        self.used_usd += usd or 0.0

    @property
    def left(self) -> float:
        """Model calls that are left: of the limits, the first to be reached by calls as they were so far."""
        ends = [math.inf if self.calls is None else self.calls - self.used_calls]
        for limit, used in ((self.tokens, self.used_tokens), (self.usd, self.used_usd)):
            if limit is not None:
                each = used / self.used_calls if self.used_calls else 0.0
                ends.append((limit - used) / each if each else (math.inf if limit > used else 0.0))
        return max(0.0, min(ends))
