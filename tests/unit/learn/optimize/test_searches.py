"""Each search finds what there is to find, makes what it says it makes, and stays within what it is given."""

from __future__ import annotations

import builtins
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from kaizen import context
from kaizen.core.errors import ConfigError
from kaizen.core.params import Demo, Params
from kaizen.core.request import Reply, Request, Usage
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.genetic import Genetic
from kaizen.learn.optimize.instructions import Instructions, balanced, described, usable
from kaizen.learn.optimize.models import Models
from kaizen.learn.optimize.reflective import Reflective, _merged
from kaizen.learn.optimize.task import Part, Task
from kaizen.programs.function import program
from kaizen.programs.signature import Signature
from tests.desk import TEAMS, Desk, by_request, front, rows
from tests.unit.learn.optimize.conftest import Bench
from tests.unit.programs.house import Open

NAME = Desk.spec.name
SEARCHES = (Instructions, Reflective, Genetic)


def best(board: Board) -> float:
    return board.standing(board.best).score


@pytest.mark.parametrize("search", SEARCHES)
async def test_it_finds_instructions_that_answer_every_row(bench: Bench, search: Any) -> None:
    board = await bench.search(search(), bench.board())
    assert best(board) == 1.0
    assert board.used <= 400
    assert bench.house.calls <= 400
    assert all(one.parents for one in board.candidates[1:])


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("calls", [13, 30, 60])
async def test_it_stays_within_a_small_budget(bench: Bench, search: Any, calls: int) -> None:
    board = await bench.search(search(), bench.board(calls=calls))
    assert bench.house.calls <= calls
    assert board.used <= calls


@pytest.mark.parametrize("search", SEARCHES)
async def test_the_same_seed_finds_the_same_and_another_another(house: Open, search: Any) -> None:
    async def tried(seed: int) -> list[str]:
        bench = Bench(house(by_request))
        return [
            one.id for one in (await bench.search(search(), bench.board(bench.task(seed=seed), calls=90))).candidates
        ]

    assert await tried(1) == await tried(1)
    assert await tried(1) != await tried(2)


@pytest.mark.parametrize("search", SEARCHES)
async def test_it_tunes_programs_below(bench: Bench, search: Any) -> None:
    task = bench.task(program=front, train=rows(18, 0, "result"), val=rows(12, 100, "result"))
    board = await bench.search(search(), bench.board(task))
    assert best(board) == 1.0
    assert set(board.best.params) == {NAME}


@pytest.mark.parametrize("search", SEARCHES)
async def test_a_resumed_search_comes_to_the_same_end_without_asking(bench: Bench, search: Any, run_id: str) -> None:
    first = await bench.search(search(), bench.board(), run_id)
    asked = bench.house.calls
    second = await bench.search(search(), bench.board(), run_id)
    assert bench.house.calls == asked
    assert [one.id for one in second.candidates] == [one.id for one in first.candidates]
    assert second.used == first.used


@pytest.mark.parametrize("search", SEARCHES)
def test_it_says_beforehand_what_it_would_take(search: Any) -> None:
    small = Task(program=Desk, train=rows(6), val=rows(6, 100), metric=Desk)
    large = Task(program=Desk, train=rows(6), val=rows(60, 100), metric=Desk)
    assert 0 < search().estimate(small, 1.0) < search().estimate(large, 1.0) < search().estimate(large, 2.0)


def proposals(requests: Sequence[Request]) -> list[Request]:
    return [one for one in requests if one.messages[0].text.startswith(("Write a better", "Revise the"))]


@pytest.mark.parametrize("search", SEARCHES)
async def test_a_teacher_writes_the_proposals_and_answers_no_row(bench: Bench, search: Any) -> None:
    await bench.search(search(), bench.board(bench.task(teacher="test/teacher")))
    requests = bench.house.model.requests
    asked = proposals(requests)
    assert {one.model for one in asked} == {"test/teacher"}
    assert {one.model for one in requests if one not in asked} == {"test/model"}


@pytest.mark.parametrize(
    "search",
    [lambda: Instructions(grounded=False), lambda: Reflective(informed=False)],
    ids=["instructions", "reflective"],
)
async def test_without_its_grounds_a_proposer_sees_no_rows(bench: Bench, search: Any) -> None:
    await bench.search(search(), bench.board())
    asked = proposals(bench.house.model.requests)
    assert asked
    assert all("right outputs" not in one.messages[-1].text for one in asked)


# -- instructions ---------------------------------------------------------------------------------


async def test_proposals_see_failures_and_what_was_tried_with_its_scores(bench: Bench) -> None:
    await bench.search(Instructions(demo_sets=1), bench.board())
    texts = [one.messages[-1].text for one in proposals(bench.house.model.requests)]
    assert "what is wrong: team: expected" in texts[0]
    assert "score 1.00: Name it." in texts[-1]


async def test_instructions_can_be_drawn_at_random(bench: Bench) -> None:
    board = await bench.search(Instructions(bayesian=False), bench.board())
    assert best(board) == 1.0


async def test_without_optuna_it_says_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *more: Any, **how: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *more, **how)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"kaizen-engine\[learn\]"):
        await bench.search(Instructions(), bench.board())


async def test_rows_whose_outputs_are_not_the_program_s_own_make_demos_of_calls_that_went_well(house: Open) -> None:
    """Of a program below only calls that led to a right answer are shown."""

    def reply(request: Request) -> str:
        if request.messages[0].text.startswith("Write a better"):
            return "no JSON"
        topic = next(topic for topic in TEAMS if topic in request.messages[-1].text)
        return json.dumps({"team": TEAMS[topic] if topic in ("refund", "parcel") else "none"})

    bench = Bench(house(reply))
    task = bench.task(program=front, train=rows(18, 0, "result"), val=rows(12, 100, "result"))
    board = await bench.search(Instructions(), bench.board(task))
    demos = [demo for one in board.candidates for params in one.params.values() for demo in params.demos]
    assert demos
    assert {demo.outputs["team"] for demo in demos} == {"red", "blue"}


def test_demos_are_balanced_by_output() -> None:
    many = [Demo({"n": number}, {"team": "red" if number else "blue"}) for number in range(9)]
    for seed in range(5):
        drawn = balanced(many, 3, random.Random(seed))
        assert sum(demo.outputs["team"] == "blue" for demo in drawn) == 1
    assert balanced([], 3, random.Random(0)) == ()


def test_a_proposal_has_to_say_something_new() -> None:
    part = Part("p", Desk.spec, Params())
    assert usable(" Name it. ", part) == "Name it."
    assert usable("Name the team.", part) is usable("", part) is usable(None, part) is usable("x" * 9000, part) is None


def test_a_program_is_described_by_its_fields_and_values() -> None:
    said = described(Part(NAME, Desk.spec, Params()))
    assert "- message: what the customer wrote" in said
    assert "- team (one of red, green, blue, none): the team" in said


# -- reflective -----------------------------------------------------------------------------------


class Where(Signature):
    """Name the team."""

    message: str = context.input()
    team: str = context.output()


class Whose(Signature):
    """Name the owner."""

    message: str = context.input()
    team: str = context.output()


@program
async def both(message: str) -> str:
    """Either of two, by the message's number."""
    even = int(message.split("no. ")[1].split(":")[0]) % 2 == 0
    return (await (Where if even else Whose)(message=message)).team


async def test_candidates_that_improved_different_programs_are_merged(bench: Bench) -> None:
    task = bench.task(program=both, train=rows(36, 0, "result"), val=rows(24, 100, "result"), seed=3)
    board = await bench.search(Reflective(), bench.board(task, calls=2000))
    assert best(board) == 1.0
    first, second = (board.start.over(name, RULES[NAME], name) for name in board.parts)
    merged = _merged(board, [board.start, first, second])
    assert merged is not None
    assert merged.params == {**first.params, **second.params}
    assert set(merged.parents) == {first.id, second.id}
    assert _merged(board, [board.start, first]) is None


async def test_the_best_can_always_be_the_parent(bench: Bench) -> None:
    board = await bench.search(Reflective(by_instance=False), bench.board())
    assert best(board) == 1.0


async def test_a_search_that_finds_nothing_for_a_while_stops(house: Open) -> None:
    bench = Bench(
        house(lambda request: '{"revised": "Be kind."}' if "Revise" in request.messages[0].text else '{"team": "none"}')
    )
    board = await bench.search(Reflective(), bench.board(calls=5000))
    assert len(board.candidates) == 2
    assert bench.house.calls < 100


async def test_there_is_nothing_to_revise_where_all_is_right(house: Open) -> None:
    bench = Bench(
        house(lambda request: json.dumps({"team": TEAMS[next(t for t in TEAMS if t in request.messages[-1].text)]}))
    )
    await bench.search(Reflective(), bench.board())
    assert not proposals(bench.house.model.requests)


# -- genetic --------------------------------------------------------------------------------------


async def test_without_fitness_parents_are_drawn(bench: Bench) -> None:
    board = await bench.search(Genetic(fit=False, population=2), bench.board())
    assert len(board.candidates) > 5


async def test_what_is_worse_on_the_first_rows_is_scored_on_no_more(bench: Bench) -> None:
    board = await bench.search(Genetic(), bench.board())
    assert any(board.standing(one).rows == 8 for one in board.candidates if board.standing(one) is not None)


# -- models ---------------------------------------------------------------------------------------

PRICES = {"test/model": 0.01, "test/small": 0.001, "test/tiny": 0.0001, "test/dear": 0.1}


def priced(request: Request) -> Reply:
    text = '{"team": "none"}' if request.model == "test/tiny" else by_request(request)
    cost = PRICES.get(request.model)
    return Reply(model=request.model, text=text, cost_usd=cost, usage=Usage(10, 5))


RULES = {NAME: Params(instructions=" ".join(f"{topic} means {team}." for topic, team in TEAMS.items()))}


async def test_the_cheapest_model_that_holds_the_quality_is_chosen(house: Open) -> None:
    bench = Bench(house(priced))
    models = ("test/dear", "test/small", "test/tiny", "test/free", "test/model")
    task = bench.task(start=RULES, models=models, train=rows(36))
    board = await bench.search(Models(), bench.board(task))
    assert board.chosen is not None
    assert board.chosen.params[NAME].model == "test/small"
    asked = [one.model for one in bench.house.model.requests]
    # what is dearer or has no price answers two rows and no more; what is worse beyond doubt, some
    assert (asked.count("test/dear"), asked.count("test/tiny"), asked.count("test/free")) == (2, 8, 2)
    assert asked.count("test/small") == 48  # those to learn from as well


async def test_without_the_race_every_model_answers_every_row(house: Open) -> None:
    bench = Bench(house(priced))
    board = await bench.search(
        Models(race=False), bench.board(bench.task(start=RULES, models=("test/dear", "test/tiny")))
    )
    asked = [one.model for one in bench.house.model.requests]
    assert (asked.count("test/dear"), asked.count("test/tiny")) == (30, 30)
    assert board.chosen is None  # the one is dearer, the other knows nothing


async def test_rows_that_are_too_few_to_tell_by_choose_no_model(house: Open) -> None:
    bench = Bench(house(priced))
    board = await bench.search(Models(), bench.board(bench.task(start=RULES, models=("test/small",), train=())))
    assert board.chosen is None  # as good on all twelve, and may be twenty points worse
    assert [one.model for one in bench.house.model.requests].count("test/small") == 12


async def test_models_stops_where_the_budget_ends(house: Open) -> None:
    bench = Bench(house(priced))
    board = await bench.search(
        Models(), bench.board(bench.task(start=RULES, models=("test/small", "test/tiny")), calls=22)
    )
    assert board.chosen is None
    assert bench.house.calls <= 22
    assert Models().estimate(board.task, 1.0) == 64


async def test_without_a_limit_of_calls_every_row_decides(house: Open) -> None:
    bench = Bench(house(priced))
    task = bench.task(start=RULES, models=("test/small",), train=rows(36))
    board = await bench.search(Models(), bench.board(task, calls=None))
    assert board.chosen is not None
    assert [one.model for one in bench.house.model.requests].count("test/small") == 48


async def test_models_have_to_be_named_and_priced(house: Open) -> None:
    bench = Bench(house(priced))
    with pytest.raises(ConfigError, match="--models"):
        await bench.search(Models(), bench.board())
    other = Bench(house(by_request))
    with pytest.raises(ConfigError, match="price"):
        await other.search(Models(), other.board(other.task(models=("test/small",))))
