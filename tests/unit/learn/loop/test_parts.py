"""Plans, clusters of failures, and parameters within bounds."""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import replace
from typing import Any

import pytest

from kaizen import errors, signature
from kaizen.core.params import Params
from kaizen.core.request import Options
from kaizen.learn.loop.failures import alike
from kaizen.learn.loop.plan import Plan, Watch, plan_of
from kaizen.learn.loop.tunable import Tunable
from kaizen.programs.signature import Mark, mark_of

PLAN = Plan(program="triage.Triage", target="triage.py:Triage", metric="accuracy", rows="dataset/triage@1")


def test_a_plan_is_the_same_after_the_registry() -> None:
    tunables = (Tunable("repairs", 0, 3), Tunable("options.semantic", choices=(True, False)))
    plan = replace(PLAN, watch=Watch(floor=0.8), per_day=3, optimizer="tuning", tunables=tunables)
    assert plan_of(plan.artifact()) == plan
    assert plan.artifact().parents == ("dataset/triage@1",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"watch": Watch(floor=2.0)}, "a floor"),
        ({"watch": Watch(least=300)}, "a window"),
        ({"watch": Watch(harm=0.0)}, "a harm"),
        ({"watch": Watch(alpha=0.9)}, "an alpha"),
        ({"share": 1.0}, "a share"),
        ({"usd_per_day": -1.0}, "limits"),
        ({"optimizer": "tuning"}, "bounds of parameters"),
        ({"tunables": (Tunable("temperature", 0, 1),)}, "bounds of parameters"),
    ],
)
def test_what_can_be_no_plan_is_refused(changes: Any, said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        replace(PLAN, **changes)


def points(*groups: tuple[float, int]) -> bytes:
    """Points on a circle: so many at each angle."""
    made = array("f")
    for angle, count in groups:
        made.extend([math.cos(angle), math.sin(angle)] * count)
    return made.tobytes()


def test_failures_that_lie_together_make_a_cluster() -> None:
    failed = [True] * 8 + [False] * 2 + [True, False] * 5 + [False] * 30
    found = alike(points((0.0, 10), (1.5, 10), (3.0, 30)), 2, failed, least=6)
    assert found is not None
    assert (len(found.failures), found.of) == (8, 10)
    assert found.share == 0.8
    assert found.overall == pytest.approx(13 / 50)


def test_failures_as_frequent_as_everywhere_make_none() -> None:
    rng = random.Random(1)
    failed = [rng.random() < 0.3 for _ in range(60)]
    assert alike(points((0.0, 30), (2.0, 30)), 2, failed, least=5) is None


def test_parameters_stay_within_their_bounds() -> None:
    warm, tries = Tunable("temperature", 0, 1), Tunable("repairs", 0, 3)
    model = Tunable("model", choices=("up/small", "up/large"))
    threshold = Tunable("options.quality_threshold", 1.0, 5.0)
    rng = random.Random(0)
    drawn = [tries.draw(rng) for _ in range(50)]
    assert set(drawn) == {0, 1, 2, 3}
    assert all(0.4 <= float(warm.draw(rng, 0.5)) <= 0.6 for _ in range(50))
    params = threshold.put(model.put(warm.put(Params(), 0.3), "up/small"), 2.5)
    assert params.options == Options(quality_threshold=2.5)
    assert [one.of(params) for one in (warm, model, threshold, tries)] == [0.3, "up/small", 2.5, None]
    for tunable, value in ((warm, 1.5), (warm, True), (tries, 1.5), (model, "up/other")):
        with pytest.raises(errors.ConfigError):
            tunable.put(Params(), value)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (("instructionz", 0.0, 1.0), "no field"),
        (("contract", 0.0, 1.0), "no field"),
        (("temperature", None, None), "either"),
        (("temperature", 1.0, 0.0), "low bound"),
        (("repairs", 0.5, 1.5), "a whole number"),
        (("output_mode", None, None, ("text", "verse")), "can't be 'verse'"),
        (("repairs", 0, 100), "can't be 100: repairs = 100 should be from 0 to 16"),
        (("votes", None, None, (3, "many")), "can't be 'many'"),
    ],
)
def test_what_can_be_no_parameter_is_refused(made: Any, said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        Tunable(*made)


def test_a_program_can_be_marked_for_the_loop() -> None:
    class Triage:
        """Name the team."""

    with pytest.raises(errors.DefinitionError, match="floor"):
        signature.optimized(floor=2.0)  # pyright: ignore[reportFunctionMemberAccess] - a form of it
    assert mark_of(Triage) is None
    namespace: dict[str, Any] = {"__name__": "marked"}
    exec(  # noqa: S102 - a user's file
        "from kaizen import context, signature\n"
        "@signature.optimized(metric='f1', floor=0.7, train='rows.jsonl')\n"
        "class Marked:\n"
        "    '''Name the team.'''\n"
        "    message: str = context.input('text')\n"
        "    team: str = context.output('team')\n",
        namespace,
    )
    marked = namespace["Marked"]
    assert mark_of(marked) == Mark(metric="f1", floor=0.7, train="rows.jsonl")
    assert mark_of(marked.using(temperature=0.5)) == mark_of(marked)
    assert list(marked.spec.outputs) == ["team"]
