"""An experiment's rule: when it ends, how, and what it says."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.artifact import Arm
from kaizen.core.errors import ConfigError
from kaizen.learn.experiment.definition import Definition, Guard, Rule, definition_of
from kaizen.learn.experiment.trial import Call, Trial

RULE = Rule(scores=1, window_s=0.0)


def defined(*weights: float, rule: Rule = RULE, **more: Any) -> Definition:
    """Arms with these weights."""
    arms = tuple(Arm(f"{place:032d}", weight) for place, weight in enumerate(weights or (0.5, 0.5)))
    return Definition(program="triage.Triage", arms=arms, metric="feedback", begun=0.0, rule=rule, **more)


def fed(trial: Trial, rates: list[float], subjects: int = 2000, seed: int = 0) -> Trial:
    """Subjects with one score each, until it is over."""
    rng = random.Random(seed)
    weights = [arm.weight for arm in trial.definition.arms]
    for number in range(subjects):
        arm = rng.choices(range(len(rates)), weights)[0]
        trial.score(f"s{number}", arm, float(rng.random() < rates[arm]), at=float(number))
        if trial.verdict is not None:
            break
    return trial


def test_a_better_candidate_wins_and_the_reason_has_the_numbers() -> None:
    trial = fed(Trial(defined()), [0.6, 0.8])
    assert trial.verdict is not None
    assert (trial.state, trial.verdict.arm) == ("won", 1)
    assert "difference +0." in trial.verdict.reason
    assert min(one.subjects for one in trial.standings()) >= 100


def test_a_worse_candidate_loses_and_the_control_stays() -> None:
    trial = fed(Trial(defined(rule=replace(RULE, guards=()))), [0.8, 0.7], subjects=4000)
    assert trial.verdict is not None
    assert (trial.state, trial.verdict.arm) == ("lost", 0)


def test_of_several_candidates_the_best_wins_and_each_needs_more_evidence() -> None:
    trial = fed(Trial(defined(0.34, 0.33, 0.33, rule=replace(RULE, guards=()))), [0.5, 0.55, 0.85], subjects=4000)
    assert trial.verdict is not None
    assert (trial.state, trial.verdict.arm) == ("won", 2)


def test_a_gain_too_small_to_matter_is_inconclusive() -> None:
    trial = fed(Trial(defined(rule=replace(RULE, effect=0.2, guards=()))), [0.7, 0.72], subjects=6000)
    assert trial.state == "inconclusive"


def test_it_ends_after_its_days_and_after_its_subjects() -> None:
    trial = Trial(defined(rule=replace(RULE, days=1.0)))
    trial.due(86_399.0)
    assert trial.state == "running"
    trial.due(86_400.0)
    assert trial.state == "inconclusive"
    assert fed(Trial(defined(rule=replace(RULE, subjects=50))), [0.5, 0.5]).state == "inconclusive"


def test_a_subject_that_comes_late_counts_when_its_window_is_over() -> None:
    trial = Trial(defined(rule=Rule(scores=5, window_s=60.0)))
    trial.call(Call("ada", 0, 0.0, failed=False, latency_ms=5.0, cost_usd=0.1))
    trial.score("ada", 0, 2.0, at=1.0)
    assert trial.standings()[0].subjects == 0
    trial.due(100.0)
    first = trial.standings()[0]
    assert (first.subjects, first.score) == (1, 1.0)


@pytest.mark.parametrize(
    ("quantity", "usual", "candidate"),
    [
        ("errors", {"failed": False}, {"failed": True}),
        ("latency", {"latency_ms": 100.0}, {"latency_ms": 400.0}),
        ("cost", {"cost_usd": 0.01}, {"cost_usd": 0.05}),
    ],
)
def test_a_guard_stops_a_candidate_before_it_could_lose(quantity: str, usual: Any, candidate: Any) -> None:
    trial = Trial(defined())
    rng, number = random.Random(2), 0
    for number in range(200):
        arm = rng.randrange(2)
        values = {"failed": False, "latency_ms": 100.0, "cost_usd": 0.01} | (candidate if arm else usual)
        values["latency_ms"] *= rng.uniform(0.8, 1.2)
        trial.call(Call(f"s{number}", arm, float(number), **values))
        if trial.verdict is not None:
            break
    assert trial.state == "stopped"
    assert number < 150, "an arm has fewer than 100 subjects"
    assert trial.verdict is not None
    assert quantity.rstrip("s") in trial.verdict.reason or "failed" in trial.verdict.reason


def test_the_guard_of_the_score_stops_a_bad_candidate_early() -> None:
    trial = fed(Trial(defined()), [0.9, 0.1])
    assert trial.state == "stopped"
    assert trial.verdict is not None
    assert "lower" in trial.verdict.reason
    assert sum(one.subjects for one in trial.standings()) < 100


def test_within_its_bounds_no_guard_stops_it() -> None:
    trial = Trial(defined())
    rng = random.Random(3)
    for number in range(1500):
        failed = rng.random() < 0.02
        trial.call(Call(f"s{number}", rng.randrange(2), float(number), failed, rng.lognormvariate(5, 0.8), None))
    assert trial.state == "running"


def test_scores_lost_on_their_way_stop_it() -> None:
    trial = Trial(defined(rule=replace(RULE, guards=())))
    rng = random.Random(4)
    for number in range(3000):
        arm = rng.randrange(2)
        if arm == 0 or rng.random() < 0.6:
            trial.score(f"s{number}", arm, float(rng.random() < 0.7), at=float(number))
    assert trial.state == "stopped"
    assert trial.verdict is not None
    assert "lost on their way" in trial.verdict.reason


def test_after_its_end_nothing_counts_and_a_subject_keeps_its_arm() -> None:
    trial = Trial(defined())
    trial.score("ada", 0, 1.0, at=0.0)
    trial.score("ada", 1, 1.0, at=1.0)
    assert [one.subjects for one in trial.standings()] == [1, 0]
    trial.stop("by hand", 2.0)
    trial.stop("again", 3.0)
    trial.score("bob", 0, 1.0, at=4.0)
    trial.call(Call("bob", 0, 4.0, failed=False, latency_ms=1.0, cost_usd=None))
    assert trial.verdict is not None
    assert trial.verdict.reason == "by hand"
    assert trial.standings()[0].subjects == 1


def test_a_definition_is_the_same_after_the_registry() -> None:
    definition = defined(0.9, 0.1, rule=replace(RULE, guards=(Guard("cost", 2.0),)), label="canary")
    artifact = definition.artifact()
    assert definition_of(artifact) == definition
    assert artifact.parents[1] == f"params/triage.Triage@{definition.arms[1].version}"


@pytest.mark.parametrize(("arms", "said"), [((1.0,), "two arms"), ((0.5, 0.4), "sum to 1")])
def test_what_can_be_no_experiment_is_refused(arms: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        defined(*arms)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"least": 10}, "100 subjects"),
        ({"alpha": 0.9}, "an alpha"),
        ({"effect": 1.5}, "an effect"),
        ({"scores": 0}, "a score a subject"),
        ({"guards": (Guard("cost", 0.5),)}, "margin"),
        ({"guards": (Guard("errors", 2.0),)}, "margin"),
    ],
)
def test_a_rule_is_refused_by_itself_since_a_loop_keeps_one_long_before_its_first_experiment(
    rule: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Rule(**rule)
