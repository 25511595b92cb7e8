"""The interval of a counted share."""

from __future__ import annotations

import pytest

from kaizen.ledger.intervals import wilson


def test_the_interval_of_a_share_is_wilsons() -> None:
    # by hand, from his formula: (0.8 + 1.9207/10 -+ 1.96 sqrt(0.016 + 0.009604)) / 1.3841
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(95, 100) == pytest.approx((0.8882, 0.9785), abs=1e-4)


def test_an_interval_stays_within_0_and_1_and_says_nothing_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == pytest.approx(1.0)
    assert wilson(5, 5)[1] <= 1.0
