"""A program on rows: what is asked, scored and kept; what stops it; and what a resumed evaluation pays for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from kaizen import Signature, context, program, tool
from kaizen.core.context import Budget, Context, Program
from kaizen.core.errors import (
    AuthFailed,
    BudgetExceeded,
    Conflict,
    OutputInvalid,
    Timeout,
    Unavailable,
)
from kaizen.core.params import Params
from kaizen.core.record import Record
from kaizen.core.request import Reply, Request
from kaizen.learn.data.rows import Row
from kaizen.learn.evaluate.evaluate import evaluate
from kaizen.learn.evaluate.result import Evaluation, RowResult, compare, summed
from kaizen.learn.metrics import metric
from kaizen.ledger.scores import said_with
from tests.unit.programs.house import House, Open


class Sentiment(Signature):
    """Is it good?"""

    text: str = context.input("t")
    label: Literal["good", "bad"] = context.output("l")


def rows_of(n: int) -> list[Row]:
    return [Row({"text": f"row {place}."}, {"label": ("good", "bad")[place % 2]}) for place in range(n)]


def always(label: str) -> Callable[[Request], str]:
    return lambda request: json.dumps({"label": label})


async def evaluated(
    here: House, rows: list[Row], name: str | Program = "accuracy", *, run: Any = None, **how: Any
) -> Evaluation:
    judged = metric(name, Sentiment.spec) if isinstance(name, str) else name
    ctx = Context(run or await here.app.new_run())
    return await evaluate(ctx, how.pop("program", Sentiment), rows, judged, **how)


async def test_every_row_is_asked_once_and_its_score_is_on_record(house: Open) -> None:
    here = house(always("good"))
    seen: list[RowResult] = []
    found = await evaluated(here, rows_of(10), progress=seen.append)
    assert here.calls == 10
    assert (found.score, found.n, found.calls, found.errors) == (0.5, 10, 10, 0)
    assert found.low < 0.5 < found.high
    assert [one.row for one in found.results] == rows_of(10)
    assert len(seen) == 10
    answers = {record.id: record for record in await here.records(ref=Sentiment.spec.name)}
    scores = await here.records(kind="score")
    assert len(scores) == len(answers) == 10
    for one, score in zip(found.results, sorted(scores, key=lambda each: answers[str(each.about)].step), strict=False):
        assert one.record in answers
        assert score.ref == "accuracy"
    wrong = next(score for score in scores if score.value == 0.0)
    assert "expected 'bad', got 'good'" in (await said_with(here.app.ledger, wrong)).comment
    assert found.params == next(iter(answers.values())).params
    assert found.figures["calls"] == 1.0


async def test_rows_are_steps_in_their_order_whoever_works_on_them(house: Open) -> None:
    here = house(always("good"))
    found = await evaluated(here, rows_of(12), concurrency=5)
    steps = {record.id: record.step for record in await here.records(ref=Sentiment.spec.name)}
    assert [steps[str(one.record)] for one in found.results] == [f"0.{place}.0" for place in range(12)]


async def test_candidates_are_run_with_their_params(house: Open) -> None:
    here = house(always("good"))
    plain = await evaluated(here, rows_of(2))
    told = await evaluated(here, rows_of(2), params={Sentiment.spec.name: Params(instructions="Say good, always.")})
    assert "Say good, always." in here.model.requests[-1].messages[0].text
    assert told.params != plain.params


async def test_a_row_without_an_answer_scores_0_and_says_why(house: Open) -> None:
    here = house(lambda request: "no json" if "row 1." in request.messages[-1].text else '{"label": "bad"}', repairs=0)
    found = await evaluated(here, rows_of(4))
    failed = found.results[1]
    assert (failed.score, failed.prediction, failed.error) == (0.0, None, "output_invalid")
    assert failed.comment.startswith("not answered: ")
    assert failed.calls == 1
    assert failed.record is not None
    assert (found.score, found.errors, found.figures["errors"]) == (0.25, 1, 0.25)
    assert any(score.about == failed.record and score.value == 0.0 for score in await here.records(kind="score"))


async def test_a_users_own_mistake_fails_its_row(house: Open) -> None:
    here = house()

    @program
    async def broken(text: str) -> str:
        raise ValueError("row is odd")

    found = await evaluated(
        here, [Row({"text": "x"}, {"result": "y"})], metric("accuracy", broken.spec), program=broken
    )
    assert (found.results[0].error, found.score) == ("exception", 0.0)
    assert found.results[0].comment == "not answered: ValueError: row is odd"


async def test_what_would_fail_every_row_stops_the_evaluation(house: Open) -> None:
    here = house(lambda request: AuthFailed("no key"))
    with pytest.raises(AuthFailed):
        await evaluated(here, rows_of(20), concurrency=2)
    assert here.calls <= 2


async def test_a_spent_budget_ends_it_and_says_what_was_done(house: Open) -> None:
    here = house(always("good"))
    run = replace(await here.app.new_run(), budget=Budget(calls=5))
    with pytest.raises(BudgetExceeded) as error:
        await evaluated(here, rows_of(20), run=run, concurrency=3)
    assert here.calls == 5
    assert error.value.detail == {"done": 5, "rows": 20, "calls": 5, "run_id": run.run_id}
    assert "5 of 20 rows are done, with 5 calls" in str(error.value)
    assert len(await here.records(kind="score")) == 5


async def resumed(here: House, run_id: str) -> Any:
    run = await here.app.new_run(run_id)
    return replace(run, replay={step: one for step, one in (run.replay or {}).items() if step != "0"})


async def test_a_resumed_evaluation_pays_only_for_what_is_left(house: Open) -> None:
    here = house(always("good"))
    run = replace(await here.app.new_run(), budget=Budget(calls=7))
    with pytest.raises(BudgetExceeded):
        await evaluated(here, rows_of(20), run=run, concurrency=3)
    found = await evaluated(here, rows_of(20), run=await resumed(here, run.run_id))
    assert here.calls == 20
    assert (found.n, found.score, found.calls) == (20, 0.5, 20)
    scores = await here.records(kind="score")
    assert len(scores) == len({score.about for score in scores}) == 20
    whole = await evaluated(house(always("good")), rows_of(20))
    assert [one.score for one in whole.results] == [one.score for one in found.results]


async def test_scores_that_a_killed_process_left_out_are_made_up_for(house: Open) -> None:
    here = house(always("good"))
    run = await here.app.new_run()
    await evaluated(here, rows_of(4), run=run)
    again = await evaluated(here, rows_of(4), "exact", run=await resumed(here, run.run_id))
    assert again.calls == 4
    assert here.calls == 4
    assert len(await here.records(kind="score", ref="exact")) == 4
    assert len(await here.records(kind="score", ref="accuracy")) == 4


async def test_a_resumed_run_refuses_other_rows(house: Open) -> None:
    here = house(always("good"))
    run = await here.app.new_run()
    await evaluated(here, rows_of(4), run=run)
    with pytest.raises(Conflict, match="with other inputs"):
        await evaluated(here, rows_of(4)[::-1], run=await resumed(here, run.run_id))


async def test_cancelling_keeps_the_scores_of_what_is_done(house: Open) -> None:
    here = house(always("good"))
    begun = asyncio.Event()

    @program
    async def slow(text: str) -> str:
        if text == "last":
            begun.set()
            await asyncio.sleep(30)
        return text

    rows = [Row({"text": text}, {"result": text}) for text in ("a", "b", "last")]
    task = asyncio.ensure_future(evaluated(here, rows, metric("accuracy", slow.spec), program=slow, concurrency=1))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await here.records(kind="score")) == 2


async def test_the_runs_deadline_ends_it(house: Open) -> None:
    here = house(always("good"))
    run = replace(await here.app.new_run(), deadline=0.0)
    with pytest.raises(Timeout, match="0 of 3 rows are done"):
        await evaluated(here, rows_of(3), run=run)
    assert here.calls == 0


async def test_a_metric_may_be_any_program(house: Open) -> None:
    here = house(always("good"))

    @tool
    def long_enough(inputs: dict[str, Any], expected: dict[str, Any], prediction: dict[str, Any] | None) -> float:
        """Is it long?"""
        return 1.0 if prediction and len(prediction["label"]) > 3 else 0.0

    found = await evaluated(here, rows_of(3), long_enough)
    assert found.score == 1.0
    assert found.metric.endswith("long_enough")
    steps = [record.step for record in await here.records(kind="program", ref=long_enough.spec.name)]
    assert sorted(steps) == ["0.0.1", "0.1.1", "0.2.1"]

    @tool
    def wordy(inputs: dict[str, Any], expected: dict[str, Any], prediction: dict[str, Any] | None) -> str:
        """It says no number."""
        return "good"

    with pytest.raises(OutputInvalid, match="used as a metric"):
        await evaluated(here, rows_of(1), wordy)

    @tool
    def wrong(inputs: dict[str, Any], expected: dict[str, Any], prediction: dict[str, Any] | None) -> float:
        """It does not give what it says."""
        return "much"  # type: ignore[return-value]

    with pytest.raises(OutputInvalid, match="not what it declares"):
        await evaluated(here, rows_of(1), wrong)


JUDGED = json.dumps({"why": "so it is", "verdict": "right"})


async def test_a_judges_calls_count_and_its_failure_is_no_word_against_the_answer(house: Open) -> None:
    def answer(request: Request) -> Any:
        if request.model != "judge/m":
            return '{"label": "good"}'
        return Unavailable("away") if "row 1." in "".join(one.text for one in request.messages) else JUDGED

    here = house(answer)
    found = await evaluated(here, rows_of(3), "judge:judge/m")
    assert (found.score, found.n) == (1.0, 2)
    assert found.results[1].score is None
    assert found.coverage == pytest.approx(2 / 3)
    assert found.calls >= 6
    assert found.results[0].calls == 1
    here = house(lambda request: AuthFailed("no") if request.model == "judge/m" else '{"label": "good"}')
    with pytest.raises(AuthFailed):
        await evaluated(here, rows_of(1), "judge:judge/m")


async def test_a_judge_stops_at_the_budget_too(house: Open) -> None:
    here = house(lambda request: JUDGED if request.model == "judge/m" else '{"label": "good"}')
    run = replace(await here.app.new_run(), budget=Budget(calls=3))
    with pytest.raises(BudgetExceeded):
        await evaluated(here, rows_of(4), "judge:judge/m", run=run, concurrency=1)
    assert here.calls == 3


async def test_several_metrics_with_bounds(house: Open) -> None:
    here = house(always("good"))
    found = await evaluated(here, rows_of(4), "accuracy, judge:judge/m, p95 < 0.000001", concurrency=1)
    # the judge's words are no verdict: it drops out, and what it took is counted all the same
    assert (found.score, found.coverage, found.calls) == (0.5, 0.5, 12)
    assert found.results[0].parts == {"accuracy": 1.0, "judge:judge/m": None}
    assert found.broken[0].startswith("p95 < 1e-06: it is ")


async def test_what_an_answer_took_can_be_the_metric(house: Open) -> None:
    here = house(lambda request: Reply(model=request.model, text='{"label": "good"}', cost_usd=0.25))
    found = await evaluated(here, rows_of(4), "cost")
    assert found.score == 0.25
    assert (found.cost_usd, found.figures["cost_usd"]) == (1.0, 0.25)
    unknown = await evaluated(house(always("good")), rows_of(4), "cost")
    assert (unknown.n, unknown.coverage, unknown.cost_usd) == (0, 0.0, None)
    bounded = await evaluated(here, rows_of(4), "accuracy, cost_usd < 0.01")
    assert bounded.broken == ("cost_usd < 0.01: it is 0.25",)


async def test_cached_answers_are_no_calls(house: Open) -> None:
    here = house(
        lambda request: Reply(model=request.model, text='{"label": "good"}', tier="exact", attempts=0, cost_usd=0.0)
    )
    found = await evaluated(here, rows_of(4))
    assert (found.calls, found.cost_usd) == (0, 0.0)
    twice = await evaluated(
        house(lambda request: Reply(model=request.model, text='{"label": "good"}', attempts=2)), rows_of(4)
    )
    assert twice.calls == 8


# -- two of them ---


def result(row: Row, score: float | None, **more: Any) -> RowResult:
    return RowResult(row, {"label": "good"}, score, **more)


def of(scores: list[float | None], **more: Any) -> Evaluation:
    rows = rows_of(len(scores))
    results = [result(row, score) for row, score in zip(rows, scores, strict=True)]
    return summed(results, program="p", metric=more.get("metric", "accuracy"), run_id="r")


def test_two_evaluations_are_compared_by_pairs() -> None:
    found = compare(of([0.0] * 10 + [1.0] * 10), of([1.0] * 20))
    assert (found.gain, found.better, found.worse, found.n) == (0.5, 10, 0, 20)
    assert found.p == pytest.approx(2 / 2**10)
    assert 0 < found.low < 0.5 < found.high
    assert found.summary()["before"] == 0.5
    graded = compare(of([0.2] * 10 + [0.5] * 5), of([0.4] * 10 + [0.5] * 5))
    assert graded.p < 0.05


def test_what_is_unlike_is_not_compared() -> None:
    with pytest.raises(Conflict, match="scores of accuracy and of f1"):
        compare(of([1.0]), of([1.0], metric="f1"))
    with pytest.raises(Conflict, match="different rows"):
        compare(of([1.0]), of([1.0, 0.0]))
    with pytest.raises(Conflict, match=r"unlike coverage can't be compared: 1.000 and 0.500 \(1 rows"):
        compare(of([1.0, 0.0]), of([1.0, None]))
    partly = replace(of([1.0]), results=(result(rows_of(1)[0], 1.0, coverage=0.5),))
    with pytest.raises(Conflict, match="unlike coverage"):
        compare(of([1.0]), partly)
    with pytest.raises(Conflict, match="no scores"):
        compare(of([None]), of([None]))


def test_an_evaluation_is_kept_without_contents() -> None:
    found = of([1.0, 0.0])
    artifact = found.artifact(("params/p@x",))
    assert (artifact.kind, artifact.name, artifact.parents) == ("evaluation", "p", ("params/p@x",))
    body = json.loads(artifact.body)
    assert (body["score"], len(body["rows"])) == (0.5, 2)
    assert b"row 1" not in artifact.body
    assert summed([], program="p", metric="m", run_id="r").figures == {}
    mixed = summed(
        [result(rows_of(1)[0], 1.0, params="a"), result(rows_of(2)[1], 1.0, params="b")],
        program="p",
        metric="m",
        run_id="r",
    )
    assert mixed.params == "mixed"


def test_confidence_shows_in_the_figures() -> None:
    results = [result(row, 0.5, parts={"confidence": 0.9, "right": 1.0}) for row in rows_of(12)]
    found = summed(results, program="p", metric="calibration", run_id="r")
    assert found.figures["calibration_error"] == pytest.approx(0.1)


def test_a_record_is_what_the_cost_is_of() -> None:
    from kaizen.core.scope import LOCAL
    from kaizen.learn.metrics.taken import cost_of

    record = Record(id="1", kind="program", ref="p", run_id="r", scope=LOCAL, started_at=0.0)
    assert cost_of(record) == 0.0
    assert cost_of(replace(record, model_calls=1)) is None
