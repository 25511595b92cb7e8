"""The tool-using loop: tools are called as the model asks, failures are told to it, the answer fits the contract."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kaizen import Demo, Params, Partial, react, tool
from kaizen.core.errors import Conflict, ContentFiltered, DefinitionError, OutputInvalid, Unavailable, Unsupported
from kaizen.core.message import ToolCall, ToolResult
from kaizen.core.params import Weights
from kaizen.core.protocols import Ask, Suspended
from kaizen.core.request import Reply
from tests.unit.programs.house import Open
from tests.unit.programs.test_runner import Rule
from tests.unit.programs.test_signature import Extract, Judged, Summary, Triage

GOOD = '{"team": "cards", "urgency": 2}'


@tool
async def lookup(name: str, times: int = 1) -> str:
    """Look a customer up."""
    await asyncio.sleep(0.01 if name == "slow" else 0)
    if name == "nobody":
        raise LookupError("no such customer")
    return name * times


@tool
def total(numbers: list[int]) -> int:
    """Add numbers."""
    return sum(numbers)


def wish(*calls: tuple[str, Any], text: str = "") -> Reply:
    made = tuple(
        ToolCall(f"id{n}", name, arguments if isinstance(arguments, str) else json.dumps(arguments))
        for n, (name, arguments) in enumerate(calls)
    )
    return Reply(model="test/m", text=text, tool_calls=made, finish="tool_calls", cost_usd=0.1)


agent = react(Triage, tools=[lookup, total])


def results(here: Any, request: int) -> list[ToolResult]:
    parts = here.model.requests[request].messages[-1].parts
    assert here.model.requests[request].messages[-1].role == "tool"
    return [part for part in parts if isinstance(part, ToolResult)]


async def test_it_calls_tools_until_it_answers(house: Open) -> None:
    here = house([wish(("lookup", {"name": "ann", "times": 2}), text="hm"), GOOD])
    answer = await agent(message="x")
    assert isinstance(answer, Triage)
    assert (answer.team, answer.message) == ("cards", "x")
    assert results(here, 1) == [ToolResult("id0", "annann")]
    first, second = here.model.requests
    assert second.messages[: len(first.messages)] == first.messages
    assert second.messages[-2].text == "hm"
    assert [spec.name for spec in first.tools] == ["lookup", "total"]
    assert first.tools[0].description == "Look a customer up."
    assert first.tools[0].schema["required"] == ["name"]
    assert answer.record.model_calls == 2
    records = await here.records()
    assert sorted((record.step, record.ref) for record in records) == [
        ("0", f"{Triage.spec.name}:react"),
        ("0.0", "test/model"),
        ("0.1.0", lookup.spec.name),
        ("0.2", "test/model"),
    ]


async def test_calls_of_one_turn_run_side_by_side_in_the_models_order(house: Open) -> None:
    here = house([wish(("lookup", {"name": "slow"}), ("total", {"numbers": [1, 2]}), ("lookup", {"name": "b"})), GOOD])
    await agent(message="x")
    assert [result.content for result in results(here, 1)] == ["slow", "3", "b"]
    steps = {record.step: record.ref for record in await here.records(kind="program")}
    assert steps["0.1.0"] == steps["0.3.0"] == lookup.spec.name
    assert steps["0.2.0"] == total.spec.name


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("lookup", {"name": "nobody"}), "LookupError: no such customer"),
        (("lookup", {}), "input 'name' is missing"),
        (("lookup", {"name": 5}), "input 'name' = 5"),
        (("find", {}), "there is no tool 'find'; the tools are lookup, total"),
        (("lookup", "{name: x"), "the arguments are not JSON"),
        (("lookup", "[1]"), "the arguments have to be a JSON object"),
        (("lookup", ""), "input 'name' is missing"),
    ],
    ids=str,
)
async def test_a_failure_is_told_to_the_model(house: Open, call: Any, said: str) -> None:
    here = house([wish(call), GOOD])
    await agent(message="x")
    (result,) = results(here, 1)
    assert result.is_error
    assert said in result.content


@pytest.mark.parametrize("replies", [[GOOD], ["It is the cards team.", GOOD]])
async def test_its_answer_streams(house: Open, replies: list[str]) -> None:
    house([wish(("lookup", {"name": "ann"}), text="hm"), *replies])
    *partials, answer = [item async for item in agent.stream(message="x")]
    assert [partial.outputs for partial in partials if isinstance(partial, Partial)] == [
        {"team": "cards"},
        {"team": "cards", "urgency": 2},
    ]
    assert {partial.ref for partial in partials if isinstance(partial, Partial)} == {agent.spec.name}
    assert isinstance(answer, Triage)
    assert answer.record.model_calls == 1 + len(replies)


async def test_a_resumed_agent_goes_on_with_the_turns_it_has(house: Open) -> None:
    here = house([wish(("lookup", {"name": "ann"}), ("total", {"numbers": [1]})), Unavailable("gone"), GOOD])
    with pytest.raises(Unavailable):
        await here.app.start(agent, {"message": "x"}, run_id="run-1")
    answer = await here.app.start(agent, {"message": "x"}, run_id="run-1")
    assert not isinstance(answer, Suspended)
    assert (answer.outputs["team"], here.calls) == ("cards", 3)
    assert [result.content for result in results(here, 2)] == ["ann", "1"]
    assert len(await here.records(ref=lookup.spec.name)) == 1
    assert (answer.record.model_calls, answer.record.cache_tier) == (1, "model")


async def test_a_resumed_agent_that_calls_otherwise_is_a_conflict(house: Open) -> None:
    here = house([wish(("lookup", {"name": "ann"})), Unavailable("gone"), wish(("lookup", {"name": "bob"}))])
    with pytest.raises(Unavailable):
        await here.app.start(agent, {"message": "x"}, run_id="run-1")
    (asked,) = await here.records(kind="model", status="ok")
    await here.app.ledger.erase(here.app.scope, [str(asked.output_digest)])
    with pytest.raises(Conflict, match=r"step 0\.1\.0 of run run-1"):
        await here.app.start(agent, {"message": "x"}, run_id="run-1")


async def test_a_conflict_of_the_tools_own_is_told_to_the_model(house: Open) -> None:
    @tool
    async def reserve(name: str) -> str:
        """Reserve a name."""
        raise Conflict(f"{name} is taken")

    here = house([wish(("reserve", {"name": "ann"})), GOOD])
    await react(Triage, tools=[reserve])(message="x")
    assert [result.content for result in results(here, 1)] == ["ann is taken"]


async def test_a_failed_tool_is_on_record_without_its_words(house: Open) -> None:
    here = house([wish(("lookup", {"name": "nobody"})), GOOD])
    await agent(message="x")
    (record,) = await here.records(ref=lookup.spec.name)
    assert (record.status, record.error) == ("error", "LookupError")


async def test_prose_is_followed_by_the_question_for_the_answer(house: Open) -> None:
    here = house(["It is the cards team.", GOOD], mode="schema")
    await agent(message="x")
    last = here.model.requests[-1]
    assert (last.tool_choice, last.output is not None) == ("none", True)
    assert [message.text for message in last.messages[-2:]] == [
        "It is the cards team.",
        "Now give the answer, in the form asked for.",
    ]


async def test_steps_are_bounded_then_the_answer_is_asked_for(house: Open) -> None:
    bounded = react(Triage, tools=[lookup], max_steps=2)
    here = house([*[wish(("lookup", {"name": "a"}))] * 2, "no", GOOD])
    assert (await bounded(message="x")).team == "cards"
    assert [request.tool_choice for request in here.model.requests] == ["auto", "auto", "none", "none"]


async def test_an_answer_that_never_fits_is_an_error(house: Open) -> None:
    here = house(["?", "no", "never"])
    with pytest.raises(OutputInvalid) as caught:
        await agent(message="x")
    assert (caught.value.reply, here.calls) == ("never", 3)
    here = house([Reply(model="m", finish="content_filter")])
    with pytest.raises(ContentFiltered):
        await agent(message="x")


async def test_params_of_the_signature_are_the_agents(house: Open) -> None:
    here = house([GOOD])
    await react(Triage.using(model="a/b", temperature=0.3), tools=[lookup])(message="x")
    assert (here.model.requests[0].model, here.model.requests[0].decoding.temperature) == ("a/b", 0.3)


async def test_it_shows_the_nearest_demos_alone(house: Open) -> None:
    pytest.importorskip("wordllama")
    said = ("my card was stolen", "open an account for me", "the transfer never came")
    demos = tuple(Demo({"message": text}, {"team": "cards", "urgency": 1}) for text in said)
    here = house([GOOD])
    await react(Triage.using(demos=demos, nearest=1), tools=[lookup])(message="somebody stole my card")
    shown = "".join(message.text for message in here.model.requests[0].messages)
    assert [text in shown for text in said] == [True, False, False]
    agent, here = react(Triage.using(demos=demos, nearest=1), tools=[lookup]), house([GOOD] * 2)
    for _ in range(2):
        await agent(message="somebody stole my card")
    first, second = (request.messages[:3] for request in here.model.requests)
    assert all(one is other for one, other in zip(first, second, strict=True))  # made once
    without = house([GOOD])
    await react(Triage.using(demos=(), nearest=1), tools=[lookup])(message="somebody stole my card")
    assert len(without.model.requests[0].messages) == 2


@pytest.mark.parametrize("params", [Params(layout="plain"), Params(scored={"team": Weights()}), Params(votes=3)])
async def test_what_an_agent_has_no_place_for_is_refused(house: Open, params: Params) -> None:
    here = house([GOOD])
    with pytest.raises(Unsupported, match="converses with its tools"):
        await react(Triage.using(params), tools=[lookup])(message="x")
    assert here.calls == 0


async def test_one_vote_is_no_voting(house: Open) -> None:
    here = house([GOOD])
    await react(Triage.using(votes=1), tools=[lookup])(message="x")
    assert here.calls == 1


async def test_programs_are_tools_and_agents_too(house: Open) -> None:
    inner = react(Summary, tools=[lookup])
    here = house([wish(("Summary_react", {"text": "t"})), '{"summary": "s"}', GOOD])
    outer = react(Triage, tools=[inner, Extract[int]])
    await outer(message="x")
    assert results(here, 2) == [ToolResult("id0", "s")]
    assert [spec.name for spec in here.model.requests[0].tools] == ["Summary_react", "Extract_int_"]


async def test_intermediates_are_fed_before_the_loop(house: Open) -> None:
    here = house(['{"summary": "one"}', '{"summary": "two"}', '{"good": true}'])
    answer = await react(Judged, tools=[lookup])(text="t")
    assert answer.outputs == {"summary": "one", "gist": "two", "good": True}
    assert "summary: one" in here.model.requests[2].messages[-1].text


async def test_long_and_structured_results_are_shown_as_they_can_be(house: Open) -> None:
    @tool
    async def much() -> str:
        """Give much."""
        return "x" * 30_000

    here = house([wish(("much", {}), ("Triage", {"message": "m"})), GOOD, GOOD])
    await react(Triage, tools=[much, Triage])(message="x")
    long, structured = results(here, 2)
    assert long.content.endswith("… (30000 characters in all)")
    assert len(long.content) < 20_100
    assert structured.content == '{"team":"cards","urgency":2}'


async def test_a_tool_that_needs_a_word_suspends_the_run(house: Open) -> None:
    policy = Rule(lookup=Ask("look up?"))
    here = house([wish(("lookup", {"name": "ann"})), wish(("lookup", {"name": "ann"})), GOOD], policy=policy)
    wait = await here.app.start(agent, {"message": "x"})
    assert isinstance(wait, Suspended)
    assert (wait.question, wait.step) == ("look up?", "0.1.0")
    assert {record.status for record in await here.records(kind="program")} == {"suspended"}
    policy.by_name.clear()
    answer = await here.app.start(agent, {"message": "x"}, run_id=wait.run_id)
    assert not isinstance(answer, Suspended)
    assert answer.outputs["team"] == "cards"


def test_what_makes_no_agent_says_so() -> None:
    with pytest.raises(DefinitionError) as caught:
        react(Triage, tools=[], max_steps=0)
    assert len(caught.value.mistakes) == 2
    with pytest.raises(DefinitionError, match="two tools are called 'lookup'"):
        react(Triage, tools=[lookup, lookup])


def test_a_plain_function_with_a_docstring_is_a_tool() -> None:
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return f"sun in {city}"

    def silent(city: str) -> str:
        return city

    agent = react(Triage, [weather])
    assert [(one.name, one.description) for one in agent._offered] == [("weather", "Tell the weather of a city.")]
    with pytest.raises(DefinitionError, match="a tool needs a docstring"):
        react(Triage, [silent])


async def test_one_turn_can_not_start_thousands_of_tools(house: Open) -> None:
    here = house([wish(*[("lookup", {"name": "ann"})] * 1000), GOOD])
    await agent(message="x")
    told = results(here, 1)
    assert [result.is_error for result in told] == [False] * 64 + [True] * 936
    assert told[-1] == ToolResult("id999", "not called: a turn has 64 calls at most", is_error=True)
    assert len(await here.records(ref=lookup.spec.name)) == 64


@tool
def verbose(word: str) -> str:
    """Fail at length."""
    raise ValueError(word * 100_000)


async def test_a_failure_told_at_length_is_cut(house: Open) -> None:
    here = house([wish(("verbose", {"word": "a"})), GOOD])
    await react(Triage, tools=[verbose])(message="x")
    (told,) = results(here, 1)
    assert told.content.startswith("ValueError: aaa")
    assert len(told.content) < 21_000
