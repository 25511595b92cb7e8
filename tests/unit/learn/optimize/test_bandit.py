"""A bandit over live variants: what it serves, what it never serves, and what its records say afterwards."""

from __future__ import annotations

import json
import random
from statistics import fmean, stdev
from typing import Literal

import pytest

from kaizen import Signature, context, errors
from kaizen.core.answer import Answer
from kaizen.core.params import Params
from kaizen.core.record import RecordQuery
from kaizen.core.request import Request
from kaizen.learn.optimize.bandit import Adaptive, Bandit, Decision, Rails
from kaizen.ledger.intervals import Z95
from kaizen.ledger.scores import keep_feedback
from tests.unit.programs.house import Open

RATES = {"a": (0.8, 0.5), "b": (0.4, 0.8)}


class Triage(Signature):
    """Name the team."""

    message: str = context.input("text")
    team: Literal["cards", "transfers"] = context.output("team")


def served(bandit: Bandit, rounds: int, seed: int = 0) -> dict[str, list[int]]:
    """How often each arm was served, by task."""
    rng = random.Random(seed)
    counts = {task: [0, 0] for task in RATES}
    for number in range(rounds):
        task = "ab"[number % 2]
        decision = bandit.choose(task)
        counts[task][decision.arm] += 1
        bandit.reward(decision, float(rng.random() < RATES[task][decision.arm]))
    return counts


def test_it_learns_another_best_arm_for_each_kind_of_task() -> None:
    bandit = Bandit(2, seed=1)
    served(bandit, 400)
    after = served(bandit, 400, seed=1)
    assert after["a"][0] > 150
    assert after["b"][1] > 150


def test_every_arm_keeps_its_least_share_and_propensities_are_what_is_drawn_with() -> None:
    bandit = Bandit(2, rails=Rails(least=0.1), seed=2)
    served(bandit, 600)
    shares = bandit.shares("a")
    assert min(shares) >= 0.1
    assert sum(shares) == pytest.approx(1.0)
    decision = bandit.choose("a")
    assert decision.propensity == shares[decision.arm]


def test_an_arm_under_its_floor_is_served_no_more_and_the_first_where_all_are() -> None:
    bandit = Bandit(2, rails=Rails(floor=0.7, seen=20), seed=3)
    for number in range(60):
        bandit.reward(Decision("a", number % 2, 0.5), 0.9 if number % 2 == 0 else float(number % 8 == 1))
    assert bandit.under_floor(1)
    assert bandit.shares("new") == (1.0, 0.0)
    bad = Bandit(2, rails=Rails(floor=0.7, seen=5), seed=4)
    for _ in range(60):
        bad.reward(bad.choose("a"), 0.0)
    assert bad.shares("b") == (1.0, 0.0)


def test_what_an_arm_would_score_everywhere_is_estimated_from_what_was_served() -> None:
    held, bandit = 0, Bandit(2)
    for seed in range(8):
        bandit = Bandit(2, rails=Rails(least=0.1), seed=seed)
        served(bandit, 300, seed)
        mean, (low, high) = bandit.estimate(1)
        assert low <= mean <= high
        held += low <= 0.65 <= high
    assert held >= 6
    assert bandit.estimate(0)[0] == pytest.approx(0.6, abs=0.2)
    assert Bandit(2).estimate(0) == (0.5, (0.0, 1.0))


def test_the_estimate_is_the_doubly_robust_one_of_all_that_was_served() -> None:
    bandit = Bandit(2, seed=9)
    rng = random.Random(9)
    values: list[list[float]] = [[], []]
    for number in range(50):
        decision, value = bandit.choose("ab"[number % 2]), rng.random()
        for arm in (0, 1):
            guess = bandit._mean(decision.task, arm)
            values[arm].append(guess + ((value - guess) / decision.propensity if decision.arm == arm else 0.0))
        bandit.reward(decision, value)
    for arm in (0, 1):
        mean, (low, high) = bandit.estimate(arm)
        assert mean == pytest.approx(fmean(values[arm]))
        assert high - low == pytest.approx(2 * Z95 * stdev(values[arm]) / 50**0.5)


def test_what_it_keeps_does_not_grow_with_the_calls_or_the_kinds_of_task() -> None:
    bandit = Bandit(2, seed=9)
    for number in range(1200):
        bandit.shares("often")
        bandit.reward(Decision(f"caller {number}", number % 2, 0.5), float(number % 2))
    assert len(bandit._by_task) == 1000
    assert not any(isinstance(kept, list) and len(kept) > 2 for kept in vars(bandit).values())
    for number in range(1200):
        bandit.shares(f"other {number}")
    assert len(bandit._shares) <= 1000
    assert bandit.shares("new again")[1] > 0.9  # what was forgotten of a kind of task is known of all


def test_what_can_be_no_bandit_or_score_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="two arms"):
        Bandit(1)
    with pytest.raises(errors.ConfigError, match="least shares"):
        Bandit(3, rails=Rails(least=0.4))
    bandit = Bandit(2)
    with pytest.raises(errors.ConfigError, match="from 0 to 1"):
        bandit.reward(bandit.choose(""), 2.0)


def reply(request: Request) -> str:
    """Right with care."""
    text = "".join(message.text for message in request.messages)
    return json.dumps({"team": "cards" if "care" in text else "transfers"})


async def test_a_live_program_serves_more_of_the_better_variant_and_keeps_every_propensity(house: Open) -> None:
    home = house(reply)
    app = home.app
    variants = [Params(instructions="Guess."), Params(instructions="Read with care.")]
    adaptive = Adaptive(Triage, variants, Bandit(2, seed=5), task_of=lambda inputs: inputs["message"][:1])

    async def ask(number: int) -> Answer:
        answer = await app.start(adaptive, {"message": f"{number}"})
        assert isinstance(answer, Answer)
        await keep_feedback(app.ledger, answer.record, float(answer.outputs["team"] == "cards"))
        return answer

    for number in range(60):
        await ask(number % 10)
        if number % 20 == 19:
            assert await adaptive.learn(app.ledger, app.scope, "feedback") == 20
    late = [(await ask(1)).outputs["team"] for _ in range(20)]
    assert late.count("cards") >= 14
    draws = [one async for one in app.ledger.records(app.scope, RecordQuery(ref=f"kaizen.bandit.{Triage.spec.name}"))]
    assert len(draws) == 80
    data = await home.kept(draws[-1].output_digest)
    assert data is not None
    assert 0 < json.loads(data)["propensity"] <= 1


async def test_a_resumed_run_draws_no_second_time(house: Open) -> None:
    home = house(reply)
    adaptive = Adaptive(Triage, [Params(instructions="Guess."), Params(instructions="Care.")], Bandit(2, seed=6))
    first = await home.app.start(adaptive, {"message": "hi"}, run_id=None)
    assert isinstance(first, Answer)
    again = await home.app.start(adaptive, {"message": "hi"}, run_id=first.record.run_id)
    assert isinstance(again, Answer)
    assert again.outputs == first.outputs
    assert home.calls == 1
