"""What a model's calls say about it, on a clock of the test's own."""

from __future__ import annotations

import random
import sys

import pytest

from kaizen.inference.failover.health import Condition, Health
from kaizen.inference.failover.vitals import Limits, Outcome, Vitals

REF = "mine/large"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(Limits(), clock=clock)


def call(health: Health, outcome: Outcome = "ok", *, ms: float | None = None, first: float | None = None) -> None:
    vitals = health.of(REF)
    admitted = vitals.admit(health.clock())
    assert admitted != "refused"
    vitals.end(health.clock(), outcome, admitted, ms=ms, first=first)


def traffic(health: Health, clock: Clock, seconds: int, ms: float, outcome: Outcome = "ok") -> None:
    """One call a second."""
    for _ in range(seconds):
        call(health, outcome, ms=ms)
        clock.now += 1.0


def test_a_model_never_asked_does_well(health: Health) -> None:
    assert (health.state(REF), health.why(REF), health.in_flight(REF)) == ("ok", (), 0)
    assert (health.latency_ms(REF, 0.5), health.first_ms(REF, 0.5), health.error_rate(REF)) == (None, None, 0.0)
    assert health.snapshot() == {}


@pytest.mark.parametrize("ms", [0.1, 0.3, 1.0, 40.0, 900.0, 30_000.0, 1e7])
def test_a_quantile_is_right_within_a_tenth(health: Health, ms: float) -> None:
    for _ in range(20):
        call(health, ms=ms)
    measured = health.latency_ms(REF, 0.5)
    assert measured is not None
    if 0.3 <= ms <= 30_000:  # outside, the first and the last bin
        assert abs(measured / ms - 1) < 0.1


def test_quantiles_follow_the_distribution(health: Health) -> None:
    rng = random.Random(7)
    sample = sorted(rng.lognormvariate(5.0, 0.7) for _ in range(2000))
    for ms in sample:
        call(health, ms=ms)
    for q in (0.05, 0.5, 0.95, 0.99):
        measured = health.latency_ms(REF, q)
        assert measured is not None
        assert abs(measured / sample[int(q * 2000)] - 1) < 0.12


def test_too_few_calls_say_nothing(health: Health) -> None:
    for _ in range(9):
        call(health, "fault", ms=5.0)
    assert (health.state(REF), health.latency_ms(REF, 0.5)) == ("ok", None)


def test_faults_open_the_circuit_and_one_probe_closes_it(health: Health, clock: Clock) -> None:
    for number in range(10):
        call(health, "ok" if number < 5 else "fault")
    vitals = health.of(REF)
    assert (health.state(REF), health.error_rate(REF), health.why(REF)) == ("open", 0.5, ("open",))
    assert vitals.admit(clock.now) == "refused"
    assert vitals.left(clock.now) == 15.0
    clock.now += 15.0
    assert health.state(REF) == "degraded"  # somebody may try
    assert [vitals.admit(clock.now) for _ in range(3)] == ["probe", "refused", "refused"]
    assert health.state(REF) == "open"
    vitals.end(clock.now, "fault", "probe")
    assert (vitals.admit(clock.now), vitals.left(clock.now)) == ("refused", 15.0)
    clock.now += 15.0
    assert vitals.admit(clock.now) == "probe"
    vitals.end(clock.now, "unknown", "probe")  # the caller left: the next may try
    assert vitals.admit(clock.now) == "probe"
    vitals.end(clock.now, "other", "probe")  # it answered, if only to say no
    assert health.state(REF) == "ok"
    call(health, "fault")
    assert health.state(REF) == "ok"  # what opened it is forgotten
    assert (vitals.in_flight, vitals.left(clock.now)) == (0, 0.0)


def test_faults_are_forgotten_when_the_window_is_over(health: Health, clock: Clock) -> None:
    for _ in range(9):
        call(health, "fault")
    clock.now += 31.0
    for _ in range(9):
        call(health, "fault")
    assert health.state(REF) == "ok"
    call(health, "fault")
    assert health.state(REF) == "open"


def test_a_circuit_that_may_not_break_only_degrades(clock: Clock) -> None:
    health = Health(Limits(breaks=False), clock=clock)
    for _ in range(20):
        call(health, "fault")
    assert (health.state(REF), health.why(REF)) == ("degraded", ("errors",))


@pytest.mark.parametrize(("outcome", "why"), [("limited", ("limited",)), ("other", ())])
def test_what_is_no_fault_never_opens(health: Health, outcome: Outcome, why: tuple[str, ...]) -> None:
    for _ in range(50):
        call(health, outcome)
    assert (health.why(REF), health.error_rate(REF)) == (why, 0.0)
    assert health.state(REF) == ("degraded" if why else "ok")


def test_some_errors_degrade(health: Health, clock: Clock) -> None:
    for number in range(30):
        call(health, "fault" if number % 3 == 0 else "ok")
    assert (health.state(REF), health.why(REF)) == ("degraded", ("errors",))
    clock.now += 60.0
    assert health.state(REF) == "ok"


@pytest.mark.parametrize("kind", ["ms", "first"])
def test_a_model_twice_as_slow_as_it_was_is_degraded_within_a_minute(health: Health, clock: Clock, kind: str) -> None:
    def steady(seconds: int, ms: float) -> int | None:
        for second in range(seconds):
            call(health, **{kind: ms})  # type: ignore[arg-type] - one of two names
            clock.now += 1.0
            if health.state(REF) == "degraded":
                return second
        return None

    assert steady(120, 200.0) is None
    noticed = steady(60, 500.0)
    assert noticed is not None
    assert noticed < 30
    assert health.why(REF) == ("latency",)
    for _ in range(40):
        steady(1, 200.0)
    assert health.state(REF) == "ok"  # well again


def test_noise_below_what_anybody_notices_is_no_degradation(health: Health, clock: Clock) -> None:
    traffic(health, clock, 60, 1.0)
    traffic(health, clock, 60, 8.0)
    assert health.state(REF) == "ok"


def test_scores_that_fall_degrade(health: Health, clock: Clock) -> None:
    for value in [4.0] * 30:
        health.score(REF, "rating", value)
        health.score(REF, "length", 100 * value)  # another scale
        clock.now += 1.0
    assert health.state(REF) == "ok"
    clock.now += 31.0
    for value in [3.0] * 10:
        health.score(REF, "rating", value)
        for other in range(20):
            health.score(REF, f"metric {other}", value)  # more than anybody keeps
    assert (health.state(REF), health.why(REF)) == ("degraded", ("score",))


def test_latency_of_old_is_remembered_where_there_is_none_of_late_and_forgotten_in_hours(
    health: Health, clock: Clock
) -> None:
    traffic(health, clock, 60, 100.0)
    clock.now += 600.0
    assert health.latency_ms(REF, 0.5) == pytest.approx(100.0, rel=0.1)
    clock.now += 4 * 3600.0
    assert health.latency_ms(REF, 0.5) is None


def test_the_page_shows_all_models(health: Health) -> None:
    for _ in range(10):
        call(health, ms=100.0)
    health.of("other/small").admit(1000.0)
    page = health.snapshot()
    assert page["other/small"] == Condition("ok", (), 1, 0, 0, None, None)
    assert (page[REF].calls, page[REF].faults, page[REF].in_flight) == (10, 0, 0)
    assert page[REF].p95_ms == pytest.approx(100.0, rel=0.1)


def test_it_never_grows_however_many_calls_and_names_there_are(health: Health, clock: Clock) -> None:
    def size(vitals: Vitals) -> int:
        held = [vitals.latency, vitals.first]
        return sum(sys.getsizeof(bins) for one in held for bins in (*one.slots, one.recent, one.baseline))

    traffic(health, clock, 100, 10.0)
    before = size(health.of(REF))
    traffic(health, clock, 2000, 10.0)
    assert size(health.of(REF)) == before
    held = health.of("held/one")
    held.admit(clock.now)
    for number in range(2000):
        health.of(f"made/up-{number}")
    assert len(health.snapshot()) <= 512
    assert health.of("held/one") is held  # a call is in the air
