"""The best of many tries has to be better than the best of many tries that are all the same."""

from __future__ import annotations

import random

from kaizen.learn.verdict import likely


def scores(rng: random.Random, rows: int, right: float) -> dict[str, float]:
    return {str(row): float(rng.random() < right) for row in range(rows)}


def test_a_clear_gain_is_likely() -> None:
    base = dict.fromkeys(map(str, range(20)), 0.0)
    assert likely("a", {"a": dict.fromkeys(base, 1.0)}, base) < 0.01


def test_no_difference_is_none() -> None:
    base = dict.fromkeys(map(str, range(20)), 1.0)
    assert likely("a", {"a": dict(base)}, base) == 1.0
    assert likely("a", {"a": {**base, "3": 0.0}}, base) == 1.0


def test_the_best_of_many_equals_is_taken_for_a_gain_no_more_often_than_it_should_be() -> None:
    claimed = {"corrected": 0, "alone": 0}
    worlds = 60
    for seed in range(worlds):
        rng = random.Random(seed)
        base = scores(rng, 20, 0.6)
        tries = {f"t{number}": scores(rng, 20, 0.6) for number in range(8)}
        best = max(tries, key=lambda name: sum(tries[name].values()))
        claimed["corrected"] += likely(best, tries, base, seed) <= 0.1
        claimed["alone"] += likely(best, {best: tries[best]}, base, seed) <= 0.1
    # 6 of 60 are expected at 10 %; 12 and more would be seen once in 50 such series
    assert claimed["corrected"] < 12
    assert claimed["alone"] > 15


def test_tries_that_are_alike_count_as_few() -> None:
    rng = random.Random(5)
    base = scores(rng, 24, 0.4)
    good = {row: max(score, float(rng.random() < 0.35)) for row, score in base.items()}
    alone = likely("a", {"a": good}, base)
    assert likely("a", {"a": good, **{f"same{n}": dict(good) for n in range(20)}}, base) == alone
    others = {f"other{n}": scores(rng, 24, 0.4) for n in range(20)}
    assert likely("a", {"a": good, **others}, base) > alone


def test_a_try_that_was_scored_on_few_rows_is_compared_on_those() -> None:
    base = dict.fromkeys(map(str, range(20)), 0.0)
    few = {str(row): 1.0 for row in range(3)}
    assert likely("a", {"a": few}, base) > 0.1
    assert likely("b", {"b": {**few, "elsewhere": 1.0}}, base) > 0.1
