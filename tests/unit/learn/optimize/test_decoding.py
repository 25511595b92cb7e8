"""Searches for how to show examples and how to take the answer, against a small model that likes one label."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from kaizen import Demo, Params, Signature, context, program, react, tool
from kaizen.core.context import Context
from kaizen.core.errors import ConfigError, Unsupported
from kaizen.core.message import Message
from kaizen.core.request import Reply, Request, TokenLogprob, Usage
from kaizen.inference.exact import ExactCache
from kaizen.inference.prices import PriceTable
from kaizen.learn.data.rows import Row
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.compose import Compose
from kaizen.learn.optimize.decoding import Decoding, within
from kaizen.learn.optimize.demonstrations import Demonstrations
from kaizen.learn.optimize.weighing import fields_of
from kaizen.programs.prompt.nearest import Likeness
from kaizen.stores.cache.memory import MemoryCache
from kaizen.testing.scripted import ScriptedProvider
from tests.desk import TEAMS, Desk, by_request, front, rows
from tests.unit.learn.optimize.conftest import Bench
from tests.unit.programs.house import Open

NAME = Desk.spec.name
_TOPIC = re.compile("|".join(TEAMS))


@tool
def look(name: str) -> str:
    """Look a customer up."""
    return name


def leaning(request: Request) -> Reply | Exception:
    """A model that writes "none" whatever it reads, and finds the right team a little likelier than usual.

    It does so where the answer is called a ``topic`` alone.
    """
    usage = Usage(tokens_in=10, tokens_out=1)
    if not request.plain:
        return Reply(model=request.model, text=json.dumps({"team": "none"}), usage=usage)
    asked = request.messages[-1].text
    topic = _TOPIC.search(asked)
    right = TEAMS[topic[0]] if topic and asked.endswith("topic:") else None
    mass = {
        f" {team}": {"none": 10.0}.get(team, 1.0) * (4.0 if team == right else 1.0)
        for team in (*TEAMS.values(), "none")
    }
    whole = sum(mass.values())
    top = tuple((token, math.log(one / whole)) for token, one in sorted(mass.items(), key=lambda one: -one[1]))
    logprobs = (TokenLogprob(*top[0], top),) if request.top_logprobs else ()
    return Reply(model=request.model, text=top[0][0], logprobs=logprobs, usage=usage)


@pytest.fixture
def small(house: Open) -> Bench:
    return Bench(house(leaning))


def best(board: Board) -> float:
    standing = board.standing(board.best)
    assert standing is not None
    return standing.score


async def test_a_label_the_model_leans_to_is_weighed_off(small: Bench) -> None:
    board = await small.search(Decoding(near=False), small.board())
    assert best(board) == 1.0
    (params,) = board.best.params.values()
    assert params.layout == "plain"
    assert params.headings == {"team": "topic"}
    assert params.scored is not None
    assert params.scored["team"].lead["none"] > 1.0
    assert (params.nearest, params.shown, len(params.demos)) == (None, 15, 30)
    assert "weighed on 15 rows" in board.best.how  # those that are not shown
    assert len(board.known(board.best, board.task.train)) == len(board.known(board.base, board.task.train)) == 3


async def test_what_is_asked_while_weighing_is_the_prompt_that_will_be_in_use(small: Bench) -> None:
    board = await small.search(Decoding(near=False, headings=False), small.board())
    asked = [request.messages[0].text for request in small.house.model.requests if request.plain]
    assert len(asked) >= 15
    assert len(set(asked)) == 1
    (params,) = board.candidates[-1].params.values()
    assert params.demos[14].inputs["message"] in asked[0]
    assert params.demos[15].inputs["message"] not in asked[0]


async def test_without_other_headings_there_is_nothing_to_find(small: Bench) -> None:
    board = await small.search(Decoding(near=False, headings=False), small.board())
    assert best(board) < 0.6


async def test_near_rows_have_a_say(small: Bench) -> None:
    pytest.importorskip("wordllama")
    board = await small.search(Decoding(headings=False), small.board())
    assert best(board) == 1.0
    (params,) = board.best.params.values()
    assert params.scored is not None
    assert params.scored["team"].near > 0.3


@pytest.mark.parametrize("search", [Decoding, Demonstrations, Compose])
@pytest.mark.parametrize("calls", [13, 30, 90])
@pytest.mark.parametrize("cached", [True, False])
async def test_they_stay_within_a_small_budget(house: Open, search: Any, calls: int, cached: bool) -> None:
    model = ScriptedProvider(leaning)
    provider = ExactCache(model, MemoryCache(1 << 20), PriceTable({}, {})) if cached else model
    bench = Bench(house(provider=provider))
    board = await bench.search(search(), bench.board(bench.task(strong=False, cached=cached), calls=calls))
    assert board.used == model.count <= calls


def talking(request: Request) -> Reply | Exception:
    """A model that only converses, tells what it found likely, and leans to none."""
    if request.plain:
        return Unsupported("no text", rules="no text")
    topic = _TOPIC.search(request.messages[-1].text)
    chance = {f'"{team}"': 0.3 if topic and team == TEAMS[topic[0]] else 0.1 for team in ("red", "blue", "green")}
    top = tuple((text, math.log(one)) for text, one in ({'"none"': 0.5} | chance).items())
    logprobs = (TokenLogprob('{"team": ', 0.0), TokenLogprob('"none"', math.log(0.5), top), TokenLogprob("}", 0.0))
    text = '{"team": "none"}'
    return Reply(model=request.model, text=text, logprobs=logprobs if request.top_logprobs else ())


@pytest.mark.parametrize("cached", [True, False])
async def test_weights_are_fitted_to_the_answer_there_is_and_not_to_one_draw(house: Open, cached: bool) -> None:
    model = ScriptedProvider(talking)
    provider = ExactCache(model, MemoryCache(1 << 20), PriceTable({}, {})) if cached else model
    bench = Bench(house(provider=provider))
    board = await bench.search(Decoding(near=False), bench.board(bench.task(cached=cached)))
    weighed = [request for request in model.requests if request.top_logprobs]
    assert {request.decoding.temperature for request in weighed} == {0.0}
    assert board.best.params[NAME].temperature == 0.0
    assert best(board) == 1.0
    # compared on 12 rows, fitted on 18 more, scored on all of them again: which a cache has
    assert sum(not request.plain for request in weighed) == (30 if cached else 60)
    assert board.used == model.count


async def test_what_is_asked_of_a_model_that_can_not_tell_is_counted_and_asked_once(house: Open, run_id: str) -> None:
    def chats(request: Request) -> Any:
        return Unsupported("no text", rules="no text") if request.plain else by_request(request)

    bench = Bench(house(chats, repairs=0))

    async def both(board: Board) -> Board:
        return await bench.search(Decoding(near=False), board, run_id)

    board = await both(bench.board(bench.task(cached=False)))
    assert sum(bool(request.top_logprobs) for request in bench.house.model.requests) == 2  # a text, a conversation
    asked = bench.house.calls
    assert board.used == asked == 12 + 2 + 2 * 12 + 5 * 12
    assert (await both(bench.board(bench.task(cached=False)))).used == bench.house.calls == asked


@program
async def thrice(message: str) -> str:
    """Name the team, asked three times."""
    teams = [(await Desk(message=f"{message}, {number}")).team for number in range(3)]
    return max(teams, key=teams.count)


async def test_a_program_of_several_calls_a_row_is_shown_examples_within_its_share(bench: Bench) -> None:
    knows = {NAME: Params(instructions="refund means red. parcel means blue. password means green.")}
    task = bench.task(program=thrice, train=rows(18, 0, "result"), val=rows(12, 100, "result"), start=knows)
    board = bench.board(task)

    async def work(ctx: Context) -> int:
        await board.open(ctx.fork())
        await board.score(ctx.fork(), board.base, task.train)
        before = bench.house.calls
        with board.share(62):
            await Demonstrations().search(ctx.fork(), task, board)
        return bench.house.calls - before

    assert await bench.run(work) == 36  # one candidate on all rows: a second would take as much again


@pytest.mark.parametrize("search", [Decoding, Demonstrations])
async def test_a_resumed_search_asks_nothing_again(small: Bench, search: Any, run_id: str) -> None:
    first = await small.search(search(), small.board(), run_id)
    asked = small.house.calls
    second = await small.search(search(), small.board(), run_id)
    assert small.house.calls == asked
    assert [one.id for one in second.candidates] == [one.id for one in first.candidates]


@pytest.mark.parametrize("search", [Decoding, Demonstrations, Compose])
async def test_an_agent_is_shown_examples_but_is_only_conversed_with(small: Bench, search: Any) -> None:
    agent = react(Desk, tools=[look])
    board = await small.search(search(), small.board(small.task(program=agent, strong=False)))
    assert set(board.parts) == {f"{NAME}:react"}
    assert not any(request.plain or request.top_logprobs for request in small.house.model.requests)
    assert all(request.tools for request in small.house.model.requests)
    assert not any(params.scored for one in board.candidates for params in one.params.values())


async def test_a_model_that_only_converses_is_tried_in_other_forms(house: Open) -> None:
    def chats(request: Request) -> Any:
        return Unsupported("no text", rules="no text") if request.plain else by_request(request)

    bench = Bench(house(chats))
    board = await bench.search(Decoding(), bench.board())
    assert [one.how for one in board.candidates[1:]] == [
        "answer as schema",
        "answer as text",
        "what most of 5 answers say",
    ]


@pytest.mark.parametrize("greedy", [False, True])
async def test_a_model_that_is_often_wrong_and_never_the_same_way_is_asked_more_than_once(
    house: Open, greedy: bool
) -> None:
    def wavers(request: Request) -> Any:
        if request.plain or request.top_logprobs:
            return Unsupported("no text", rules="no text")
        seed = request.decoding.seed or 0
        if request.decoding.temperature != 0 and seed % 5 in (1, 3):
            return json.dumps({"team": ("red", "blue")[seed % 2]})
        return json.dumps({"team": "none"}) if request.decoding.seed is None else by_topic(request)

    def by_topic(request: Request) -> str:
        topic = _TOPIC.search(request.messages[-1].text)
        return json.dumps({"team": TEAMS[topic[0]] if topic else "none"})

    bench = Bench(house(wavers))
    desk = Desk.using(temperature=0.0) if greedy else Desk
    board = await bench.search(Decoding(), bench.board(bench.task(program=desk)))
    assert board.best.params[NAME].votes == 5
    drawn = [request for request in bench.house.model.requests if request.decoding.seed is not None]
    assert {request.decoding.temperature for request in drawn} == {0.7}  # at 0 all would say the same
    assert best(board) == 1.0


async def test_a_program_that_calls_others_is_left_as_it_is(bench: Bench) -> None:
    task = bench.task(program=front, train=rows(18, 0, "result"), val=rows(12, 100, "result"))
    board = await bench.search(Decoding(), bench.board(task))
    assert len(board.candidates) == 1


async def test_examples_are_found_that_answer_every_row(bench: Bench) -> None:
    board = await bench.search(Demonstrations(nearest=False), bench.board())
    assert best(board) == 1.0
    assert len({json.dumps(demo.outputs) for demo in board.best.params[NAME].demos}) > 1


def _no_embedder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: Any) -> Any:
        raise ConfigError("no embedder")

    monkeypatch.setattr(type(bench.house.app._runner), "embed", none)
    monkeypatch.setattr(Likeness, "__call__", none)


def unsure(request: Request) -> Reply:
    """A model that writes the right team after examples in a plain text, though it finds all teams equally likely."""
    topic = _TOPIC.search(request.messages[-1].text.rpartition("message: ")[2] or request.messages[-1].text)
    right = TEAMS[topic[0]] if topic and request.plain else "none"
    top = tuple((f" {team}", math.log(0.2)) for team in (*dict.fromkeys(TEAMS.values()), "none"))
    logprobs = (TokenLogprob(*top[0], top),) if request.top_logprobs else ()
    text = f" {right}\n" if request.plain else json.dumps({"team": right})
    return Reply(model=request.model, text=text, logprobs=logprobs, usage=Usage(tokens_in=10, tokens_out=1))


async def test_written_answers_are_tried_beside_weighed_ones(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(house(unsure))
    _no_embedder(bench, monkeypatch)
    board = await bench.search(Compose(), bench.board(bench.task(strong=False)))
    assert any(params.scored for one in board.candidates for params in one.params.values())
    (params,) = board.best.params.values()
    assert (best(board), params.scored, params.layout) == (1.0, None, "plain")
    assert board.best.parents == (board.base.id,)


async def test_the_nearest_examples_are_tried(bench: Bench) -> None:
    pytest.importorskip("wordllama")
    board = await bench.search(Demonstrations(draws=0), bench.board())
    assert best(board) == 1.0
    assert board.best.params[NAME].nearest == 4


async def test_programs_below_are_shown_their_own_right_answers(bench: Bench) -> None:
    knows = {"start": {NAME: Params(instructions="refund means red. parcel means blue. password means green.")}}
    task = bench.task(program=front, train=rows(18, 0, "result"), val=rows(12, 100, "result"), **knows)
    board = await bench.search(Demonstrations(), bench.board(task))
    demos = [demo for one in board.candidates for demo in one.params[NAME].demos]
    assert demos
    assert all(demo.outputs["team"] == TEAMS[_TOPIC.search(demo.inputs["message"])[0]] for demo in demos)  # type: ignore[index]  # each has a topic


async def test_without_an_embedder_nothing_is_nearest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_embedder(bench, monkeypatch)
    board = await bench.search(Demonstrations(), bench.board(bench.task(strong=False)))
    assert all(params.nearest is None for one in board.candidates for params in one.params.values())


async def test_where_plain_text_can_not_be_gone_on_with_it_is_given_up_at_once(house: Open) -> None:
    def chats(request: Request) -> Any:
        return Unsupported("no text", rules="no text") if request.plain else by_request(request)

    bench = Bench(house(chats))
    board = await bench.search(Demonstrations(nearest=False, draws=1), bench.board(bench.task(strong=False)))
    plain = [one for one in board.candidates if any(params.layout == "plain" for params in one.params.values())]
    assert [len(board.known(one)) for one in plain] == [2]
    assert best(board) > 0.0


def test_estimates_grow_with_the_rows(bench: Bench) -> None:
    task, more = bench.task(), bench.task(val=rows(24, 100))
    for search in (Decoding(), Demonstrations()):
        assert 0 < search.estimate(task, 1.0) < search.estimate(more, 1.0)


async def test_the_nearest_examples_are_weighed_on_all_rows(house: Open) -> None:
    pytest.importorskip("wordllama")

    def shown_alone(request: Request) -> Reply | Exception:
        few = len(request.messages[0].text) < 400
        asked = Request(
            scope=request.scope,
            model=request.model,
            messages=(*request.messages[:-1], Message.of("user", request.messages[-1].text.replace("team:", "topic:"))),
            plain=request.plain,
            top_logprobs=request.top_logprobs,
        )
        return leaning(asked if few else request)

    bench = Bench(house(shown_alone))
    board = await bench.search(Decoding(headings=False), bench.board())
    assert best(board) == 1.0
    assert board.best.how == "the 8 nearest examples, weighed on 30 rows"


class Booking(Signature):
    """Read a booking."""

    text: str = context.input("what was written")
    day: str | None = context.output("the day")
    guest: str = context.output("the guest")
    mood: str = context.output("the mood")
    count: int = context.output("how many")


class Day(Signature):
    """Find the day."""

    message: str = context.input("what was written")
    day: str | None = context.output("the day")


def shy(request: Request) -> Reply | Exception:
    """A model that finds the day where it stands, and leans to having found none."""
    usage = Usage(tokens_in=10, tokens_out=1)
    if not request.plain:
        return Reply(model=request.model, text='{"day": null}', usage=usage)
    if request.output is None:
        return Reply(model=request.model, text=" none", usage=usage)
    texts = request.output.schema["enum"]
    day = next((text for text in texts if text.strip().endswith("day") and " " not in text.strip()), None)
    mass = {text: 0.2 if text == day else 0.01 for text in texts} | {" none\n": 0.5 if day else 0.9}
    top = tuple((text, math.log(one)) for text, one in mass.items())
    chosen = day or texts[0]
    return Reply(
        model=request.model,
        text=chosen,
        logprobs=(TokenLogprob(chosen, math.log(mass[chosen]), top),),
        usage=usage,
    )


async def test_phrases_are_copied_where_the_model_would_write_none(house: Open) -> None:
    days = ("Monday", "Tuesday", "Friday", "Sunday")

    def made(count: int, start: int) -> tuple[Row, ...]:
        texts = [
            f"no. {at}: it is {days[at % 4]} that I mean" if at % 2 else f"no. {at}: hello"
            for at in range(start, start + count)
        ]
        return tuple(
            Row({"message": text}, {"day": days[at % 4] if at % 2 else None}) for at, text in enumerate(texts, start)
        )

    bench = Bench(house(shy))
    board = await bench.search(Decoding(), bench.board(bench.task(program=Day, train=made(18, 0), val=made(12, 100))))
    assert best(board) == 1.0
    (params,) = board.best.params.values()
    assert params.scored is not None
    assert params.scored["day"].lead["none"] > 0.3


def test_fields_whose_values_stand_in_the_inputs_can_be_copied() -> None:
    some = [
        Row({"text": "Ann on Monday"}, {"day": "Monday", "guest": "Ann", "mood": "calm", "count": 2}),
        Row({"text": "Tuesday"}, {"day": "Tuesday", "guest": "none", "mood": "angry", "count": 2}),
        Row({"text": "hi"}, {"day": None, "guest": "", "mood": "none", "count": 2}),
        Row({"text": "hi"}, {"day": None, "guest": "none", "mood": "calm", "count": 2}),
    ]
    found = fields_of(Booking.spec, some)
    assert found.copied == {"day": None, "guest": "none"}
    assert (found.few, found.others) == ((), ("mood", "count"))
    assert found.names == ("day", "guest")


async def test_a_program_whose_values_can_not_be_weighed_gets_other_forms(house: Open) -> None:
    class Free(Signature):
        """Say anything."""

        message: str = context.input("what was asked")
        said: str = context.output("anything")

    bench = Bench(house(lambda request: json.dumps({"said": "x"})))
    some = tuple(Row({"message": f"m{at}"}, {"said": "y"}) for at in range(8))
    task = bench.task(program=Free, train=some[:4], val=some[4:])
    assert Decoding().estimate(task, 1.0) == 32
    board = await bench.search(Decoding(), bench.board(task))
    assert [one.how for one in board.candidates[1:]] == [
        "answer as schema",
        "answer as text",
        "what most of 5 answers say",
    ]


def test_a_prompt_has_room_for_so_many_examples() -> None:
    demos = [Demo({"message": f"message {at}"}, {"team": "red"}) for at in range(9)]
    assert 0 < len(within(demos, 120)) < 9
    assert within(demos, 1) == ()
