"""What is seen of a program while a candidate is scored, and what of it ends the search."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

import pytest

from kaizen import tool
from kaizen.core.answer import Answer
from kaizen.core.context import Context, Partial
from kaizen.core.errors import BudgetExceeded, ConfigError, Unavailable
from kaizen.core.params import Params
from kaizen.core.record import RecordQuery
from kaizen.core.request import Reply, Stage, Usage
from kaizen.learn.metrics.metric import metric
from kaizen.learn.optimize.task import Candidate, Task
from kaizen.learn.optimize.trial import score_rows, watched
from tests.desk import Desk, by_request, front, rows
from tests.unit.learn.optimize.conftest import Bench
from tests.unit.programs.house import Open

BASE = Candidate({})


class Does:
    """The desk's contract, served by a function of the context."""

    def __init__(self, work: Any) -> None:
        self.spec, self._work = Desk.spec, work

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        await self._work(ctx, inputs)
        return Answer.of({"team": "blue"}, inputs=inputs)


async def scored(bench: Bench, program: Any, **how: Any) -> Any:
    """One row that expects blue, and what was seen."""
    task = Task(program=program, train=(), val=(), metric=how.pop("metric", metric("accuracy", program.spec)), **how)
    outcomes, seen = await bench.run(lambda ctx: score_rows(ctx, task, BASE, [rows(2)[1]]))
    return outcomes[0], seen[0]


async def test_streams_scores_and_kept_steps_pass_through(bench: Bench) -> None:
    kept: list[Any] = []

    async def work(ctx: Context, inputs: Any) -> None:
        answer = await ctx.fork(emit=lambda partial: kept.append(partial)).call(Desk, **inputs)
        await ctx.score("mine", answer, 0.5)
        await ctx.keep("key", b"value")
        kept.append((await ctx.recall("key")).value)

    outcome, seen = await scored(bench, Does(work))
    assert outcome.score == 1.0
    assert (seen.calls, outcome.tokens > 0) == (1, True)
    assert isinstance(kept[0], Partial)
    assert kept[-1] is None  # what another candidate kept must not answer for this one
    scores = await bench.house.records(kind="score")
    assert [(one.ref, one.value) for one in scores] == [("mine", 0.5)]


async def test_texts_can_be_compared(bench: Bench) -> None:
    async def work(ctx: Context, inputs: Any) -> None:
        assert (await ctx.embed(["a"])).dim > 0

    outcome, _ = await scored(bench, Does(work))
    assert outcome.score == 1.0


async def test_a_program_s_own_error_fails_its_row(bench: Bench) -> None:
    async def work(ctx: Context, inputs: Any) -> None:
        raise ValueError("mine")

    outcome, _ = await scored(bench, Does(work))
    assert (outcome.score, outcome.error) == (0.0, "ValueError")
    assert outcome.comment == "there was no answer: mine"


async def test_a_program_that_hides_a_spent_budget_is_not_taken_for_a_bad_one(house: Open) -> None:
    bench = Bench(house(lambda _: BudgetExceeded("spent")))

    async def hides(ctx: Context, inputs: Any) -> None:
        with contextlib.suppress(BudgetExceeded):
            await ctx.call(Desk, **inputs)

    async def hides_streams(ctx: Context, inputs: Any) -> None:
        with contextlib.suppress(BudgetExceeded):
            await ctx.fork(emit=lambda _: None).call(Desk, **inputs)

    for work in (hides, hides_streams):
        with pytest.raises(BudgetExceeded):
            await scored(bench, Does(work))


async def test_an_error_after_the_deadline_is_the_deadline_s(house: Open) -> None:
    bench = Bench(house(lambda _: Unavailable("late")))

    async def late(ctx: Context) -> Any:
        ended = Context(replace(ctx.run, deadline=time.monotonic() - 1), step=ctx.step, record_id=ctx.record_id)
        task = Task(program=Desk, train=(), val=(), metric=metric("accuracy", Desk.spec))
        return await score_rows(ended, task, BASE, rows(1))

    with pytest.raises(BudgetExceeded, match="time is over"):
        await bench.run(late)


@tool
def judge(inputs: dict[str, Any], expected: dict[str, Any], prediction: dict[str, Any] | None) -> float:
    """Half right, always."""
    return 0.5


async def test_a_metric_that_is_a_program_judges_and_is_no_part_of_what_is_tuned(bench: Bench) -> None:
    outcome, seen = await scored(bench, front, metric=judge)
    assert outcome.score == 0.5
    assert list(seen.parts) == [Desk.spec.name]
    assert [step.name for step in outcome.steps] == [Desk.spec.name]


async def test_a_metric_of_the_cost_sees_what_was_not_asked_for_the_cache(house: Open) -> None:
    saved = Stage("exact", saved_usd=0.25)
    bench = Bench(house(lambda request: Reply(model="m", text=by_request(request), cost_usd=0.0, stages=(saved,))))
    outcome, seen = await scored(bench, Desk)
    assert (outcome.cost_usd, seen.usd) == (0.25, 0.25)
    unknown = Bench(house(lambda request: Reply(model="m", text=by_request(request), usage=Usage(1, 1))))
    assert (await scored(unknown, Desk))[0].cost_usd is None


async def test_greedy_requests_may_be_answered_by_the_cache_and_others_may_not(bench: Bench) -> None:
    async def ask(ctx: Context, inputs: Any) -> None:
        for params in (Params(temperature=0.0), Params(seed=3, temperature=1.0), Params(temperature=1.0)):
            await ctx.fork(overrides={Desk.spec.name: params}).call(Desk, **inputs)

    _, seen = await scored(bench, Does(ask))
    assert [one.options.exact for one in bench.house.model.requests] == [True, True, None]
    assert (len(seen.keys), seen.others, seen.calls) == (2, 1, 3)


async def test_what_would_fail_every_row_is_raised(bench: Bench) -> None:
    async def wrong(ctx: Context, inputs: Any) -> None:
        raise ConfigError("no such model")

    with pytest.raises(ConfigError):
        await scored(bench, Does(wrong))


async def test_what_else_a_runner_can_do_is_the_runner_s(bench: Bench) -> None:
    async def work(ctx: Context) -> Any:
        _, watch = watched(ctx, "0")
        return watch.start

    runner = bench.house.app._runner
    assert await bench.run(work) == runner.start
    assert not [one async for one in bench.house.app.ledger.records(bench.house.app.scope, RecordQuery(kind="model"))]
