"""What scores call for: drift, a floor, a bad release; and what is known of a version."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kaizen.learn.loop.drift import Drift, Level, Probation, bound
from kaizen.learn.loop.monitor import Monitor, Signal
from kaizen.learn.loop.plan import Watch

OLD, NEW = "a" * 32, "b" * 32


def scores(seed: int, correlation: float = 0.2, subjects: int = 300) -> Callable[[float], tuple[str, float]]:
    """Draws a subject and a score whose mean is what is asked for."""
    rng = random.Random(seed)
    strength = (1 - correlation) / correlation
    rates = [rng.betavariate(0.8 * strength, 0.2 * strength) for _ in range(subjects)]

    def one(mean: float) -> tuple[str, float]:
        subject = rng.randrange(subjects)
        return f"s{subject}", float(rng.random() < rates[subject] * mean / 0.8)

    return one


def filled(monitor: Monitor, draw: Callable[[float], tuple[str, float]], n: int, mean: float) -> list[Signal]:
    """What so many scores of the current version call for."""
    found = [monitor.score(monitor.version, *draw(mean)) for _ in range(n)]
    return [one for one in found if one is not None]


def test_how_alike_scores_of_one_subject_are_is_found() -> None:
    draw = scores(1, correlation=0.3, subjects=400)
    level = Level()
    for _ in range(6000):
        level.add(*draw(0.8))
    assert level.correlation == pytest.approx(0.3, abs=0.08)
    assert level.mean == pytest.approx(0.8, abs=0.04)
    expected, variance = level.expected("nobody yet")
    assert expected == pytest.approx(level.mean)
    assert level.expected("nobody yet", 20, 0.0)[0] < expected - 0.3
    assert level.expected("nobody yet", 20, 0.0)[1] < variance


def test_a_level_without_scores_is_open() -> None:
    level = Level()
    assert (level.mean, level.correlation) == (0.5, 0.0)
    level.add("ada", 1.0)
    assert level.expected("ada")[1] > 0


def test_the_bound_keeps_the_rate_of_false_alarms() -> None:
    lengths: list[int] = []
    for seed in range(10):
        rng = random.Random(seed)
        level = Level()
        for number in range(5000):
            level.add(f"s{number}", float(rng.random() < 0.8))
        drift, calls = Drift(level, quiet=500.0), 0
        while not drift.add(f"t{calls}", float(rng.random() < 0.8)):
            calls += 1
            if calls > 5000:
                break
        lengths.append(calls)
    assert sum(lengths) / len(lengths) > 350
    assert bound(0.25, 30_000.0) > bound(0.25, 1000.0) > 0


def test_a_version_that_is_ten_points_worse_is_taken_back_soon() -> None:
    calls: list[int] = []
    for seed in range(8):
        draw, monitor = scores(seed), Monitor(Watch(), OLD)
        filled(monitor, draw, 2000, 0.8)
        monitor.released(NEW)
        assert monitor.before == OLD
        for number in range(400):
            signal = monitor.score(NEW, *draw(0.7))
            if signal is not None and signal.trigger == "bad release":
                assert (signal.version, signal.before) == (NEW, OLD)
                calls.append(number)
                break
    assert sum(number <= 200 for number in calls) >= 6


def test_a_drift_is_found_and_the_new_level_taken_for_what_it_is() -> None:
    draw, monitor = scores(5), Monitor(Watch(), OLD)
    assert filled(monitor, draw, 2500, 0.8) == []
    found = filled(monitor, draw, 1500, 0.65)
    assert [one.trigger for one in found] == ["drift"]
    assert "against 0." in found[0].said


def test_a_mean_under_the_floor_calls_for_something_once_there_are_enough_scores() -> None:
    draw, monitor = scores(6), Monitor(Watch(floor=0.9, least=50), OLD)
    found = filled(monitor, draw, 49, 0.6)
    assert found == []
    found = filled(monitor, draw, 60, 0.6)
    assert found[0].trigger == "floor"
    assert monitor.recent[0] < 60, "it is asked anew of later scores"
    assert filled(Monitor(Watch(floor=0.5), OLD), scores(7), 500, 0.8) == []


def test_scores_of_other_versions_are_kept_as_what_is_known_of_them() -> None:
    draw, monitor = scores(8), Monitor(Watch(), OLD)
    for _ in range(100):
        assert monitor.score(NEW, *draw(0.1)) is None
    assert monitor.known(NEW)[0] == 100
    assert monitor.known(OLD) == (0, None)
    assert monitor.recent == (0, None)


def test_a_version_without_a_known_one_before_it_is_on_no_probation() -> None:
    monitor = Monitor(Watch(), OLD)
    monitor.released(OLD)
    monitor.released(NEW)
    assert (monitor.version, monitor.before) == (NEW, None)
    monitor.returned(OLD)
    assert (monitor.version, monitor.before) == (OLD, None)


def test_probation_ends_after_its_scores() -> None:
    draw, monitor = scores(9), Monitor(Watch(probation=200), OLD)
    filled(monitor, draw, 500, 0.8)
    monitor.released(NEW)
    filled(monitor, draw, 200, 0.85)
    assert monitor.before is None


def test_probation_counts_what_it_saw() -> None:
    level = Level()
    for number in range(500):
        level.add(f"s{number}", float(number % 5 > 0))
    probation = Probation(level)
    assert not probation.add("ada", 1.0)
    assert (probation.n, probation.mean) == (1, 1.0)
    assert probation.evidence < 1
