"""Fitted weights undo a lead, listen to what is right, and are judged on cases they did not see."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from kaizen.learn.optimize.fit import Case, fit, losses
from kaizen.programs.prompt.options import chances

TEXTS = ("a", "b", "c")


def cases(count: int, *, signal: float = 2.0, lead: float = 3.0, near: float = 0.0, seed: int = 1) -> list[Case]:
    """A model that leads by so much with the first value, and likes the right one by ``signal``."""
    rng = random.Random(seed)
    made: list[Case] = []
    for _ in range(count):
        right = rng.randrange(3)
        likely = [rng.gauss(0, 1) + (lead if at == 0 else 0.0) + (signal if at == right else 0.0) for at in range(3)]
        share = [math.log(0.8 if at == right and near else 0.1) for at in range(3)]
        made.append(Case(TEXTS, tuple(likely), tuple(share) if near else None, right))
    return made


def right(some: list[Case], found: object) -> float:
    hits = 0
    for case in some:
        chance = chances(found.weights, TEXTS, case.likely, case.near)  # type: ignore[attr-defined]  # Fitted
        hits += max(range(3), key=lambda at: chance[at]) == case.right
    return hits / len(some)


def test_a_lead_is_taken_off() -> None:
    found = fit(cases(40))
    assert found.weights.lead["a"] > found.weights.lead["b"] + 1.0
    assert min(found.weights.lead.values()) == 0.0
    assert found.weights.near == 0.0
    test = cases(300, seed=2)
    raw = sum(max(range(3), key=lambda at: case.likely[at]) == case.right for case in test) / len(test)
    assert right(test, found) > raw + 0.2


def test_what_tells_nothing_gets_little_say() -> None:
    deaf, hears = fit(cases(40, signal=0.0)), fit(cases(40, signal=3.0))
    assert deaf.weights.model < 0.5 < hears.weights.model
    assert fit(cases(40, signal=0.0, near=1.0)).weights.near > 0.5


def test_the_loss_is_of_cases_it_did_not_see() -> None:
    assert fit(cases(40, signal=0.0)).loss > 1.0
    assert fit(cases(40, signal=4.0)).loss < 0.5
    assert fit(cases(40, signal=4.0)).right > 0.8
    assert fit(cases(1)).loss == math.inf


def test_few_cases_stay_near_what_is_usual() -> None:
    assert fit(cases(3, signal=9.0)).weights.model < 2.5


def test_what_speaks_for_a_value_is_never_held_against_it() -> None:
    turned = [replace(case, likely=tuple(-lp for lp in case.likely)) for case in cases(60, signal=4.0)]
    assert fit(turned).weights.model == 0.0


def test_the_loss_of_several_fields_is_their_mean() -> None:
    one, other = fit(cases(20)), fit(cases(20, signal=5.0))
    assert losses({"x": one, "y": other}) == pytest.approx((one.loss + other.loss) / 2)
    assert losses({}) == math.inf
