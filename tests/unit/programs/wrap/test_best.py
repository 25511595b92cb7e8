"""The best of several answers, and one made better: typed as the program's own, each attempt and score on record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kaizen import best_of, program, refine
from kaizen.core.errors import DefinitionError, OutputInvalid, RateLimited
from kaizen.core.protocols import Ask, Suspended
from kaizen.core.request import Spare
from tests.unit.programs.house import Open
from tests.unit.programs.test_runner import Rule
from tests.unit.programs.test_signature import Triage


def said(urgency: int) -> str:
    return f'{{"team": "cards", "urgency": {urgency}}}'


def urgent(inputs: Mapping[str, Any], answer: Triage) -> float:
    assert inputs == {"message": "x"}
    return answer.urgency


async def verdict(inputs: Mapping[str, Any], answer: Triage) -> tuple[float, str]:
    return answer.urgency, "More urgent, please."


async def test_the_best_of_several_is_kept(house: Open) -> None:
    here = house([said(2), said(5), said(5)])
    answer = await best_of(Triage, 3, metric=urgent)(message="x")
    assert isinstance(answer, Triage)
    assert answer.urgency == 5
    asked = [(request.decoding.temperature, request.decoding.seed) for request in here.model.requests]
    assert asked == [(0.7, 0), (0.7, 1), (0.7, 2)]
    assert all(isinstance(seed, Spare) for _, seed in asked)  # nobody asked for them: they may be left out
    assert (answer.record.model_calls, answer.record.step) == (3, "0")
    attempts = {record.step: record for record in await here.records(kind="program")}
    assert sorted(attempts) == ["0", "0.0.0", "0.1.0", "0.2.0"]
    scores = await here.records(kind="score")
    assert sorted((score.about, score.value, score.ref) for score in scores) == sorted(
        (attempts[f"0.{n}.0"].id, value, "urgent") for n, value in enumerate((2.0, 5.0, 5.0))
    )


async def test_with_a_threshold_attempts_stop_once_it_is_reached(house: Open) -> None:
    here = house([said(2), said(4), said(5)])
    assert (await best_of(Triage, 3, metric=verdict, threshold=4)(message="x")).urgency == 4
    assert here.calls == 2
    here = house([said(2), said(3), said(1)])
    assert (await best_of(Triage, 3, metric=verdict, threshold=4)(message="x")).urgency == 3


async def test_a_misfit_is_the_worst_of_answers(house: Open) -> None:
    house(["no", said(1)], repairs=0)
    assert (await best_of(Triage, 2, metric=urgent)(message="x")).urgency == 1
    house(["no", "no"], repairs=0)
    with pytest.raises(OutputInvalid):
        await best_of(Triage, 2, metric=urgent)(message="x")


async def test_an_error_in_one_attempt_is_raised_as_it_is(house: Open) -> None:
    here = house([RateLimited("slow"), said(1)])
    with pytest.raises(RateLimited, match="slow"):
        await best_of(Triage, 2, metric=urgent)(message="x")
    (root,) = await here.records(kind="program", root_only=True)
    assert root.error_code == "rate_limited"


async def test_attempts_that_have_to_ask_suspend_the_run(house: Open) -> None:
    here = house([said(1)], policy=Rule(route=Ask("sure?")))

    @program
    async def route(message: str) -> str:
        return message

    wait = await here.app.start(best_of(route, 2, metric=lambda _inputs, _answer: 1.0), {"message": "x"})
    assert isinstance(wait, Suspended)


async def test_refining_shows_what_was_wrong_after_the_stable_part(house: Open) -> None:
    here = house([said(2), said(4), said(5)])
    answer = await refine(Triage, 5, metric=verdict, threshold=4)(message="x")
    assert isinstance(answer, Triage)
    assert (answer.urgency, here.calls) == (4, 2)
    first, second = here.model.requests
    assert second.messages[:-1] == first.messages[:-1]
    assert second.messages[-1].text == (
        "message: x\n\nAn earlier answer was: team = 'cards', urgency = 2. It scored 2. More urgent, please. "
        "Give a better one."
    )
    assert second.decoding.seed == 1
    assert isinstance(second.decoding.seed, Spare)


async def test_refining_gives_the_best_when_none_is_good_enough(house: Open) -> None:
    here = house([said(3), "no", said(1)], repairs=0)
    assert (await refine(Triage, 3, metric=urgent, threshold=5)(message="x")).urgency == 3
    assert "An earlier answer did not fit: the answer holds no JSON object" in here.model.requests[2].messages[-1].text


def test_no_attempt_is_no_program() -> None:
    for way, made in {
        "best_of": best_of(Triage, 1, metric=urgent),
        "refine": refine(Triage, 1, metric=urgent, threshold=1),
    }.items():
        assert made.spec.name == f"{Triage.spec.name}:{way}"  # so that its calls and those below it count apart
        assert made.spec.contract == Triage.spec.contract
    with pytest.raises(DefinitionError, match="at least one attempt"):
        best_of(Triage, 0, metric=urgent)
    with pytest.raises(DefinitionError, match="at least one attempt"):
        refine(Triage, 0, metric=urgent, threshold=1)


def test_wrapped_programs_block_and_nest(house: Open) -> None:
    here = house([said(1), said(2), said(3), said(4)])
    nested = best_of(best_of(Triage, 2, metric=urgent), 2, metric=urgent)
    assert nested.execute(message="x").urgency == 4
    assert here.calls == 4


async def test_refining_a_composite_shows_the_advice_to_the_programs_below(house: Open) -> None:
    @program
    async def indirect(message: str) -> Triage:
        return await Triage(message=message)

    here = house([said(1), said(5)])
    assert (await refine(indirect, 2, metric=urgent, threshold=5)(message="x")).outputs["urgency"] == 5
    assert "An earlier answer was:" in here.model.requests[1].messages[-1].text
