"""Several metrics as one: weights, what drops out, coverage, bounds; and judges, who decide nothing unmeasured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kaizen.core.artifact import Artifact
from kaizen.core.errors import ConfigError, Denied, InvalidInput
from kaizen.learn.metrics import metric
from kaizen.learn.metrics.judge import Agreement, Judge, agreement, check_gate, judges_in
from kaizen.learn.metrics.measure import Scored
from kaizen.learn.metrics.objective import Bound, Objective
from tests.unit.learn.metrics.test_named import Label, Reply, Slots
from tests.unit.programs.house import Open


def of(text: str, spec: Any = Slots.spec) -> Objective:
    made = metric(text, spec)
    assert isinstance(made, Objective)
    return made


def test_weights_are_made_to_sum_to_one() -> None:
    made = of("3*accuracy:people, 1*accuracy:time")
    said = made.combine([Scored(1.0), Scored(0.0, "time: wrong")])
    assert said == Scored(0.75, "accuracy:time: time: wrong", {"accuracy:people": 1.0, "accuracy:time": 0.0}, 1.0)


def test_a_metric_with_nothing_to_say_drops_out_and_the_coverage_says_so() -> None:
    made = of("3*accuracy:people, accuracy:time")
    said = made.combine([None, Scored(0.5)])
    assert said is not None
    assert (said.value, said.coverage) == (0.5, 0.25)
    assert said.parts == {"accuracy:people": None, "accuracy:time": 0.5}
    assert made.combine([None, None]) is None
    half = of("accuracy, f1").combine([Scored(1.0, coverage=0.5), Scored(0.0)])
    assert half is not None
    assert half.coverage == 0.75
    assert half.value == pytest.approx(1 / 3)


def test_bounds_are_about_the_figures_of_the_whole() -> None:
    made = of("accuracy up, cost_usd < 0.01, p95 <= 200 ms, errors < 5 %, latency < 100")
    assert [str(bound) for bound in made.bounds] == [
        "cost_usd < 0.01",
        "p95 <= 200",
        "errors < 0.05",
        "latency_ms < 100",
    ]
    cost, slow, errors, _ = made.bounds
    assert cost.broken({"cost_usd": 0.02}) == "cost_usd < 0.01: it is 0.02"
    assert cost.broken({}) == "cost_usd < 0.01: cost_usd is not known"
    assert slow.broken({"p95": 200.0}) is None
    assert errors.broken({"errors": 0.01}) is None
    assert Bound("score", ">", 0.5).broken({"score": 0.6}) is None
    assert Bound("score", ">=", 0.7).broken({"score": 0.6}) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p95 < 200", "names no metric to raise"),
        ("accuracy, latency", "bound it, as in p95 < 200"),
        ("accuracy, tokens", "bound it, as in tokens < 1000"),
        ("0*accuracy, 0*f1", "sum to more than 0"),
        ("accuracy, ", "is neither a metric"),
        ("1.2.3*accuracy", "'1.2.3' in '1.2.3*accuracy' is no number"),
        ("accuracy, p95 < 1-2", "'1-2' in 'p95 < 1-2' is no number"),
        ("accuracy, rogue", "did you mean rouge"),
    ],
)
def test_objectives_that_can_not_be_read(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        metric(text, Slots.spec)
    assert said in str(error.value)


async def test_an_objective_is_a_program_whose_other_programs_are_steps(house: Open) -> None:
    here = house()
    given = {"inputs": {}, "expected": {"answer": "hello there"}, "prediction": {"answer": "hello there"}}
    answer = await here.app.start(of("accuracy, similarity", Reply.spec), given)
    assert answer.outputs["score"] == 1.0  # type: ignore[union-attr]
    assert len(await here.records(ref="kaizen.metrics.similarity")) == 1
    nothing = await here.app.start(of("accuracy, f1", Reply.spec), given | {"expected": {}})
    assert nothing.outputs["comment"] == "nothing here to measure"  # type: ignore[union-attr]


async def test_a_judge_is_asked_about_task_reference_and_answer(house: Open) -> None:
    here = house([json.dumps({"why": "it misses the point", "verdict": "partly right"})] * 2)
    judge = metric("judge:other/model", Label.spec)
    given: dict[str, Any] = {"inputs": {"text": "hi"}, "expected": {"label": "a"}, "prediction": {"label": "b"}}
    answer = await here.app.start(judge, given)
    assert answer.outputs == {"score": 0.5, "comment": "it misses the point"}  # type: ignore[union-attr]
    request = here.model.requests[0]
    shown = "\n".join(message.text for message in request.messages)
    assert request.model == "other/model"
    for part in ("Label.", '{"text":"hi"}', '{"label":"a"}', '{"label":"b"}'):
        assert part in shown
    await here.app.start(judge, given | {"expected": {}, "prediction": None})
    assert here.calls == 2


def test_agreement_with_people_is_counted_beyond_chance() -> None:
    judge = Judge(Label.spec, "m/x")
    found = agreement(judge, [1.0, 1.0, 0.0, 0.0], [1.0, 0.5, 0.0, 1.0])
    assert (found.n, found.rate, found.kappa) == (4, 0.75, pytest.approx(0.5))
    assert Agreement.load(found.artifact()) == found
    # a judge that likes everything agrees with people who do, and shows nothing
    assert agreement(judge, [1.0] * 40, [1.0] * 40).kappa == 0.0
    with pytest.raises(InvalidInput, match="no answers"):
        agreement(judge, [], [])
    with pytest.raises(InvalidInput, match="is no agreement"):
        Agreement.load(Artifact("agreement", "j", b"{}"))


def test_an_unmeasured_judge_decides_nothing() -> None:
    judge = Judge(Label.spec, "m/x")
    name = agreement(judge, [1.0], [1.0]).artifact().name
    people = [1.0, 0.0] * 20
    check_gate(metric("accuracy", Label.spec), {})
    with pytest.raises(Denied, match="was never measured"):
        check_gate(judge, {})
    with pytest.raises(Denied, match="measured on 10 answers only"):
        check_gate(judge, {name: agreement(judge, people[:10], people[:10])})
    with pytest.raises(Denied, match=r"0\.00 beyond chance"):
        check_gate(judge, {name: agreement(judge, [1.0] * 40, people)})
    check_gate(judge, {name: agreement(judge, people, people)})
    both = metric("accuracy, judge:m/x", Label.spec)
    assert [one.spec.name for one in judges_in(both)] == [judge.spec.name]
    with pytest.raises(Denied, match="may not decide anything"):
        check_gate(both, {})


def test_a_judge_that_was_measured_on_one_program_decides_nothing_about_another() -> None:
    judge, people = Judge(Label.spec, "m/x"), [1.0, 0.0] * 20
    found = agreement(judge, people, people)
    known = {found.artifact().name: found}
    check_gate(judge, known)
    with pytest.raises(Denied, match=r"on answers of \S*Slots was never measured"):
        check_gate(Judge(Slots.spec, "m/x"), known)
