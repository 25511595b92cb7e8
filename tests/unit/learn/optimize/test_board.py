"""The board: what is scored, what it costs, and what a search may not do."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from kaizen import tool
from kaizen.core.context import Context
from kaizen.core.errors import AuthFailed, BudgetExceeded, ConfigError, Conflict, Denied, ProviderError, Unavailable
from kaizen.core.params import Demo, Params
from kaizen.core.request import Reply, Request, Usage
from kaizen.learn.budget import Purse, Spent
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.instructions import ProposeInstruction
from kaizen.learn.optimize.task import Candidate
from tests.desk import TEAMS, Desk, by_request, front, rows
from tests.unit.learn.optimize.conftest import Bench
from tests.unit.programs.house import Open

NAME = Desk.spec.name
RULES = Params(instructions=" ".join(f"{topic} means {team}." for topic, team in TEAMS.items()))
GOOD = Candidate({NAME: RULES}, "told")


async def opened(bench: Bench, ctx: Context, board: Board | None = None) -> Board:
    board = board or bench.board()
    await board.open(ctx.fork())
    return board


async def test_the_base_is_scored_and_the_programs_that_can_be_tuned_are_found(bench: Bench) -> None:
    board = await bench.run(lambda ctx: opened(bench, ctx))
    standing = board.standing(board.base)
    assert (standing.score, standing.rows, standing.calls) == (0.0, 12, 1.0)
    assert board.used == bench.house.calls == 12
    assert list(board.parts) == [NAME]
    assert board.parts[NAME].instructions == "Name the team."
    assert board.parts[NAME].params.model == "test/model"


async def test_programs_below_are_found_by_walking_a_run(bench: Bench) -> None:
    board = bench.board(bench.task(program=front, train=rows(6, 0, "result"), val=rows(6, 100, "result")))
    await bench.run(lambda ctx: opened(bench, ctx, board))
    assert list(board.parts) == [NAME]
    assert board.known(board.base)[rows(1, 100, "result")[0].key].steps[0].name == NAME

    async def told(ctx: Context) -> float:
        return sum(one.score for one in await board.score(ctx, GOOD)) / 6

    assert await bench.run(told) == 1.0


async def test_a_candidate_is_scored_on_a_row_once(bench: Bench) -> None:
    async def work(ctx: Context) -> Board:
        board = await opened(bench, ctx)
        await board.score(ctx, GOOD, rows(4, 100))
        await board.score(ctx, GOOD)
        await board.score(ctx, Candidate({NAME: RULES}, "the same again"))
        return board

    board = await bench.run(work)
    assert bench.house.calls == 24 == board.used
    assert len(board.candidates) == 2
    assert board.best.how == "told"
    assert [one.score for one in board.finished()] == [0.0, 1.0]


async def test_what_does_not_fit_into_the_budget_is_not_begun(bench: Bench) -> None:
    board = bench.board(calls=20)

    async def work(ctx: Context) -> None:
        await opened(bench, ctx, board)
        assert board.left == 8
        with pytest.raises(Spent):
            await board.score(ctx, GOOD)
        await board.score(ctx, GOOD, rows(8, 100))
        assert board.left == 0

    await bench.run(work)
    assert bench.house.calls == 20


async def test_a_share_bounds_one_search_of_several(bench: Bench) -> None:
    async def work(ctx: Context) -> None:
        board = await opened(bench, ctx)
        with board.share(5):
            assert board.left == 5
            assert not board.affords(6)
        assert board.left == 400 - 12

    await bench.run(work)


async def test_requests_that_were_asked_already_are_counted_once(bench: Bench) -> None:
    async def work(ctx: Context) -> int:
        board = await opened(bench, ctx, bench.board(bench.task(start={NAME: Params(temperature=0.0)})))
        before = board.used
        # the same prompt: what changes is only whether a reply that misfits is shown back
        await board.score(ctx, board.base.over(NAME, Params(repairs=2), "more repairs"))
        return board.used - before

    assert await bench.run(work) == 0


async def test_tokens_and_dollars_of_a_request_are_counted_once_as_well(house: Open) -> None:
    def reply(request: Request) -> Reply:
        return Reply(model=request.model, text=by_request(request), usage=Usage(10, 5), cost_usd=0.25)

    bench = Bench(house(reply))
    purse = Purse(tokens=1000.0, usd=100.0)
    board = Board(bench.task(start={NAME: Params(temperature=0.0)}), purse)

    async def work(ctx: Context) -> None:
        await opened(bench, ctx, board)
        await board.score(ctx, board.base.over(NAME, Params(repairs=2), "more repairs"))
        await board.score(ctx, board.base.over(NAME, Params(temperature=1.0), "drawn"), rows(4, 100))

    await bench.run(work)
    assert (purse.used_calls, purse.used_tokens, purse.used_usd) == (16, 16 * 15, 16 * 0.25)
    assert purse.left == pytest.approx((1000 - 240) / 15)


async def test_what_failed_the_first_time_is_counted_when_it_is_answered(house: Open) -> None:
    down = [True]

    def reply(request: Request) -> Any:
        return Unavailable("down") if down[0] else Reply(model="m", text=by_request(request), usage=Usage(10, 5))

    bench = Bench(house(reply))
    purse = Purse(calls=100)
    board = Board(bench.task(start={NAME: Params(temperature=0.0)}), purse)

    async def work(ctx: Context) -> None:
        await board.score(ctx, board.base, rows(2))
        assert (purse.used_calls, purse.used_tokens) == (2, 0)
        down[0] = False
        await board.score(ctx, board.base.over(NAME, Params(repairs=2), "more repairs"), rows(2))

    await bench.run(work)
    assert (purse.used_calls, purse.used_tokens) == (2, 30)


async def test_a_search_scores_its_own_rows_only(bench: Bench) -> None:
    async def work(ctx: Context) -> None:
        board = await opened(bench, ctx)
        with pytest.raises(Denied, match="own rows"):
            await board.score(ctx, GOOD, rows(2, 500))

    await bench.run(work)


async def test_a_row_a_demo_is_made_of_is_scored_without_it(bench: Bench) -> None:
    row = rows(1)[0]
    shown = Candidate({NAME: Params(demos=(Demo(row.inputs, row.outputs),))}, "shown")

    async def work(ctx: Context) -> list[float]:
        board = await opened(bench, ctx)
        same = (await board.score(ctx, shown, [row]))[0].score
        other = (await board.score(ctx, shown, [rows(1, 102)[0], rows(7)[6]]))[1].score
        return [same, other]

    assert await bench.run(work) == [0.0, 1.0]


async def test_an_answer_that_misfits_scores_nothing_and_says_why(house: Open) -> None:
    bench = Bench(house(lambda _: '{"team": "purple"}', repairs=0))
    board = await bench.run(lambda ctx: opened(bench, ctx))
    outcome = next(iter(board.known(board.base).values()))
    assert (outcome.score, outcome.error, outcome.prediction) == (0.0, "output_invalid", None)
    assert "there was no answer" in outcome.comment


async def test_a_program_that_never_answers_ends_the_search_at_once(house: Open) -> None:
    bench = Bench(house(lambda _: Unavailable("down")))
    with pytest.raises(ProviderError, match="gave no answer"):
        await bench.run(lambda ctx: opened(bench, ctx, Board(bench.task(program=_Deaf()), Purse(calls=100))))


class _Deaf:
    """A program that fails before it comes to any other."""

    spec = Desk.spec

    async def __call__(self, ctx: Context, /, **_: Any) -> Any:
        raise Unavailable("down")


@tool
def shout(message: str) -> str:
    """No model has a part in it."""
    return message.upper()


async def test_a_program_without_anything_to_tune_is_refused(bench: Bench) -> None:
    task = bench.task(program=shout, train=rows(6, 0, "result"), val=rows(6, 100, "result"))
    with pytest.raises(ConfigError, match="has params to tune"):
        await bench.run(lambda ctx: opened(bench, ctx, bench.board(task)))


async def test_what_would_fail_every_row_is_raised(house: Open) -> None:
    bench = Bench(house(lambda _: AuthFailed("no key")))
    with pytest.raises(AuthFailed):
        await bench.run(lambda ctx: opened(bench, ctx))


INPUTS = {"program": "p", "current": "c", "examples": 'parcel\nright outputs: {"team":"blue"}', "tried": "", "tip": ""}


async def test_a_proposal_is_asked_for_and_counted(bench: Bench) -> None:
    async def work(ctx: Context) -> Any:
        board = await opened(bench, ctx)
        return await board.ask(ctx, ProposeInstruction, Params(temperature=1.0), INPUTS), board

    outputs, board = await bench.run(work)
    assert outputs == {"instruction": "Name it. parcel means blue."}
    assert board.used == 13 == bench.house.calls


async def test_a_proposal_that_fails_is_none(house: Open) -> None:
    def reply(request: Request) -> Any:
        text = request.messages[0].text
        if text.startswith("Write a better"):
            return Unavailable("down") if "OUT" in request.messages[-1].text else "no JSON"
        return by_request(request)

    bench = Bench(house(reply))

    async def work(ctx: Context) -> list[Any]:
        board = await opened(bench, ctx)
        return [await board.ask(ctx, ProposeInstruction, Params(), INPUTS | {"tip": tip}) for tip in ("OUT", "in")]

    assert await bench.run(work) == [None, None]


@pytest.mark.parametrize(
    ("failure", "late", "raised"),
    [
        (AuthFailed("no key"), False, AuthFailed),
        (Unavailable("down"), True, BudgetExceeded),
        ("no JSON", True, BudgetExceeded),
    ],
)
async def test_a_proposal_that_no_time_or_no_key_was_left_for_is_no_failed_one(
    house: Open, failure: Any, late: bool, raised: type[Exception]
) -> None:
    def reply(request: Request) -> Any:
        if not request.messages[0].text.startswith("Write a better"):
            return by_request(request)
        time.sleep(0.06 if late else 0.0)
        return failure

    bench = Bench(house(reply))

    async def work(ctx: Context) -> None:
        board = await opened(bench, ctx)
        run = replace(ctx.run, deadline=time.monotonic() + 0.05) if late else ctx.run
        await board.ask(Context(run, step=f"{ctx.step}.9"), ProposeInstruction, Params(repairs=0), INPUTS)

    with pytest.raises(raised):
        await bench.run(work)


async def test_a_resumed_search_asks_for_nothing_it_has_on_record(bench: Bench, run_id: str) -> None:
    async def work(ctx: Context) -> Board:
        board = await opened(bench, ctx)
        await board.score(ctx.fork(), GOOD)
        await board.ask(ctx.fork(), ProposeInstruction, Params(temperature=1.0), INPUTS)
        return board

    first = await bench.run(work, run_id)
    asked = bench.house.calls
    second = await bench.run(work, run_id)
    assert bench.house.calls == asked == 25
    assert second.used == first.used
    assert second.standing(GOOD) == first.standing(GOOD)
    assert list(second.parts) == [NAME]  # found again, without asking


async def test_failures_are_kept_as_they_were(house: Open, run_id: str) -> None:
    down = [True]

    def reply(request: Request) -> Any:
        if down[0] and "means" in request.messages[0].text:
            return Unavailable("down")
        return by_request(request)

    bench = Bench(house(reply))

    async def work(ctx: Context) -> list[float]:
        board = await opened(bench, ctx)
        return [one.score for one in await board.score(ctx, GOOD)]

    assert await bench.run(work, run_id) == [0.0] * 12
    down[0] = False  # a search has decided by the failure: it has to stay one
    assert await bench.run(work, run_id) == [0.0] * 12


async def test_a_first_row_that_failed_once_stays_failed(house: Open, run_id: str) -> None:
    down = [True]

    def reply(request: Request) -> Any:
        return Unavailable("down") if down[0] and "no. 100:" in request.messages[-1].text else by_request(request)

    bench = Bench(house(reply))

    async def work(ctx: Context) -> Board:
        board = await opened(bench, ctx)
        await board.score(ctx.fork(), GOOD)
        return board

    first = await bench.run(work, run_id)
    asked = bench.house.calls
    down[0] = False
    second = await bench.run(work, run_id)
    assert bench.house.calls == asked + 1  # the row is walked again; what came of it the first time counts
    assert (second.used, second.each) == (first.used, first.each)
    assert second.known(second.base) == first.known(first.base)
    assert list(second.parts) == [NAME]


@pytest.mark.parametrize("change", [{"model": "test/other"}, {"instructions": "Name the team, please."}])
async def test_a_run_goes_on_only_with_the_params_and_the_model_it_began_with(
    bench: Bench, run_id: str, change: dict[str, Any]
) -> None:
    await bench.run(lambda ctx: opened(bench, ctx), run_id)
    asked = bench.house.calls
    other = bench.board(bench.task(program=Desk.using(**change)))
    with pytest.raises(Conflict, match="other params or on another model"):
        await bench.run(lambda ctx: opened(bench, ctx, other), run_id)
    assert bench.house.calls == asked + 1  # the row by which it was seen


async def test_candidates_are_kept_with_parents_scores_and_cost(bench: Bench) -> None:
    async def work(ctx: Context) -> Board:
        board = await opened(bench, ctx)
        board.stage = "reflective"
        child = board.base.over(NAME, RULES, "told")
        await board.score(ctx, child)
        await board.score(ctx, child.over(NAME, Params(temperature=0.0), "colder"), rows(3))
        board.add(Candidate({NAME: Params(instructions="never scored")}))
        return board

    board = await bench.run(work)
    base, told, colder = (json.loads(one.body) for one in board.artifacts({"optimizer": "test"}))
    assert (base["score"], told["score"], colder["score"]) == (0.0, 1.0, None)
    assert (told["changes"], told["base"], told["kind"], told["optimizer"]) == (["instructions"], 0.0, "choice", "test")
    assert (told["partial"], colder["partial"]) == (False, True)
    assert (base["start"], told["start"], colder["start"], told["stage"]) == (None, 0.0, 1.0, "reflective")
    artifacts = board.artifacts({})
    assert artifacts[1].parents == (artifacts[0].ref,)
    assert artifacts[2].parents == (artifacts[1].ref,)


async def test_the_front_holds_what_nothing_beats_in_both(bench: Bench) -> None:
    async def work(ctx: Context) -> Board:
        board = await opened(bench, ctx)
        await board.score(ctx, GOOD)
        long = Params(instructions=f"{RULES.instructions} {'and so on ' * 20}")
        await board.score(ctx, Candidate({NAME: long}, "told at length"))
        return board

    board = await bench.run(work)
    assert [one.candidate.how for one in board.front()] == ["the program as it is", "told"]
    assert board.best is GOOD


async def test_whoever_watches_hears_of_each_step(bench: Bench) -> None:
    await bench.run(lambda ctx: opened(bench, ctx))
    assert bench.told[-1].used == 12
    assert (bench.told[-1].base, bench.told[-1].best, bench.told[-1].limit) == (0.0, 0.0, 400)


async def test_a_price_that_is_not_known_is_no_zero(house: Open) -> None:
    bench = Bench(house(lambda request: Reply(model=request.model, text=by_request(request), cost_usd=0.5)))
    board = await bench.run(lambda ctx: opened(bench, ctx))
    assert board.standing(board.base).usd == 0.5
    other = Bench(house(by_request))
    assert (await other.run(lambda ctx: opened(other, ctx))).front()[0].usd is None
