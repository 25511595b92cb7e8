"""How a budget is parted, and what a search is told is left of it."""

from __future__ import annotations

import math

import pytest

from kaizen.learn.budget import Purse, parted


@pytest.mark.parametrize(
    ("total", "test_rows", "reserve", "test", "search"),
    [(500, 0, 16, 0, 484), (500, 60, 16, 120, 364), (500, 200, 16, 250, 234), (100, 0, 10, 0, 90), (3, 0, 2, 0, 1)],
)
def test_all_shares_together_are_the_budget(total: int, test_rows: int, reserve: int, test: int, search: int) -> None:
    shares = parted(total, test_rows)
    assert (shares.reserve, shares.test, shares.search) == (reserve, test, search)
    assert shares.reserve + shares.test + shares.search == total


def test_a_purse_tells_calls_that_are_left_by_the_limit_that_is_reached_first() -> None:
    purse = Purse(calls=100, tokens=1000, usd=1.0)
    assert purse.left == 100
    purse.add(10, 200, 0.05)
    assert purse.left == 40  # 800 tokens at 20 a call
    purse.add(0, 0, 0.85)
    assert purse.left == pytest.approx(0.1 / 0.09)
    purse.add(90, 0, 0.2)
    assert purse.left == 0


def test_without_a_limit_there_is_no_end() -> None:
    purse = Purse()
    purse.add(10, 10, None)
    assert purse.left == math.inf
    assert Purse(tokens=0).left == 0
