"""Intervals and paired tests: known values, and how often they hold."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from kaizen.learn.stats import bootstrap, interval, mcnemar, paired, sign_flip
from kaizen.ledger.intervals import wilson


def test_zeros_and_ones_get_wilsons_interval() -> None:
    assert interval([1.0] * 8 + [0.0] * 2) == wilson(8, 10)
    assert interval([1.0] * 10).low < 1.0


def test_other_values_get_the_bootstrap_which_a_seed_fixes() -> None:
    values = [0.1, 0.5, 0.9, 0.4, 0.7]
    found = interval(values, seed=3)
    assert found == bootstrap(values, 3)
    assert found != bootstrap(values, 4)
    assert found.low < fmean(values) < found.high


def test_no_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_values_that_are_all_the_same_are_not_taken_for_certain() -> None:
    low, high = bootstrap([0.5] * 10)
    assert low < 0.25
    assert high > 0.75
    assert bootstrap([7.0, 7.0]) == (7.0, 7.0)  # not from 0 to 1: nothing bounds their spread


def test_many_values_get_the_normal_interval_which_the_bootstrap_agrees_with() -> None:
    rng = random.Random(1)
    values = [rng.random() for _ in range(2500)]
    quick = bootstrap(values)
    slow = bootstrap(values[:500])
    assert quick.high - quick.low == pytest.approx((slow.high - slow.low) * (500 / 2500) ** 0.5, rel=0.15)


def test_another_statistic_of_many_values_takes_fewer_resamples() -> None:
    values = [float(place % 7) for place in range(2100)]
    assert bootstrap(values, statistic=max) == (6.0, 6.0)


def test_the_interval_of_a_mean_holds_about_as_often_as_it_says() -> None:
    rng = random.Random(7)
    held = 0
    for seed in range(50):
        values = [rng.betavariate(2, 1) for _ in range(25)]
        low, high = bootstrap(values, seed)
        held += low <= 2 / 3 <= high
    assert held >= 0.86 * 50


def test_a_paired_interval_is_narrower_than_two_alone() -> None:
    rng = random.Random(2)
    before = [float(rng.random() < 0.5) for _ in range(200)]
    after = [max(one, float(rng.random() < 0.1)) for one in before]
    low, high = paired(before, after, 0)
    assert 0 < low < fmean(after) - fmean(before) < high
    assert high - low < wilson(100, 200)[1] - wilson(100, 200)[0]


def test_rows_that_do_not_differ_leave_room_for_some_that_would() -> None:
    low, high = paired([1.0] * 20, [1.0] * 20)
    assert -0.2 < low < 0 < high < 0.2
    with pytest.raises(ValueError, match="paired"):
        paired([1.0], [1.0, 0.0])


def test_rows_that_all_differ_by_the_same_are_not_taken_for_certain() -> None:
    assert paired([0.0], [1.0]) == pytest.approx((2 * wilson(1, 1)[0] - 1, 1.0))
    assert paired([0.0], [1.0]).low < 0 < paired([0.0] * 20, [1.0] * 20).low < 1.0
    assert paired([1.0] * 3, [0.0] * 3) == pytest.approx((-1.0, 1 - 2 * wilson(3, 3)[0]))
    low, high = paired([0.25] * 30, [0.5] * 30)
    assert low < 0.25 < high
    assert paired([0.0, 0.0], [7.0, 7.0]) == (7.0, 7.0)  # not from -1 to 1: nothing bounds their spread


def test_mcnemar_looks_at_the_rows_that_differ() -> None:
    before = [0.0] * 8 + [1.0] * 12
    after = [1.0] * 8 + [1.0] * 12
    assert mcnemar(before, after) == pytest.approx(2 / 2**8)
    assert mcnemar(before, before) == 1.0
    assert mcnemar([1.0, 0.0], [0.0, 1.0]) == 1.0
    assert mcnemar([0.0] * 3000 + [1.0], [1.0] * 3000 + [0.0]) < 1e-9


def test_signs_are_flipped_for_graded_scores() -> None:
    rng = random.Random(5)
    before = [rng.random() * 0.5 for _ in range(60)]
    assert sign_flip(before, before) == 1.0
    assert sign_flip(before, [one + 0.3 for one in before]) == pytest.approx(1 / 2001)
    noise = [one + rng.gauss(0, 0.2) for one in before]
    assert sign_flip(before, noise) > 0.01


def test_mcnemar_finds_a_difference_where_there_is_none_as_seldom_as_it_says() -> None:
    rng = random.Random(11)
    found = 0
    for _ in range(400):
        flips = rng.randrange(1, 40)
        lost = sum(rng.random() < 0.5 for _ in range(flips))
        won = flips - lost
        found += mcnemar([1.0] * lost + [0.0] * won, [0.0] * lost + [1.0] * won) < 0.05
    assert found <= 0.05 * 400
