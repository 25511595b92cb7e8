"""Plain functions as programs and tools: what they take, what they give, and calls from inside them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from kaizen import Context, Partial, context, program, tool
from kaizen.core.errors import InvalidInput, OutputInvalid
from kaizen.programs.runnable import Runnable
from tests.unit.programs.house import Open
from tests.unit.programs.test_signature import Item, Summary, Triage

GOOD = '{"team": "cards", "urgency": 2}'


@program
async def route(message: str, loud: bool = False) -> str:
    """Route a message."""
    team = (await Triage(message=message)).team
    return team.upper() if loud else team


@program
async def handed_on(message: str) -> Triage:
    return await Triage(message=message)


async def test_a_program_takes_its_parameters_and_gives_what_it_returns(house: Open) -> None:
    here = house([GOOD] * 4)
    assert await route(message="x") == "cards"
    assert await route("x", loud=True) == "CARDS"
    assert (await route(message="x", loud="yes")) == "CARDS"  # type: ignore[arg-type]
    records = await here.records(ref=route.spec.name)
    assert len(records) == 3
    assert await here.kept(records[0].output_digest) == b'{"result":"cards"}'
    assert repr(route) == "<program tests.unit.programs.test_function.route>"
    assert (route.__name__, route.__doc__, route.spec.doc) == ("route", "Route a message.", "Route a message.")
    answer = await handed_on(message="x")
    assert isinstance(answer, Triage)
    assert answer.record.ref == handed_on.spec.name
    assert handed_on.spec.outputs.keys() == Triage.spec.outputs.keys()


def test_a_program_blocks_in_plain_code(house: Open) -> None:
    house([GOOD] * 2)
    assert route.execute(message="x") == "cards"
    assert handed_on.execute("x").team == "cards"


async def test_a_program_streams_the_partials_below_it_then_its_result(house: Open) -> None:
    house([GOOD], piece=3)
    seen = [item async for item in route.stream(message="x")]
    assert seen[-1] == "cards"
    assert {(item.ref, item.step) for item in seen[:-1] if isinstance(item, Partial)} == {(Triage.spec.name, "0.0")}


async def test_inputs_of_a_program_are_checked(house: Open) -> None:
    here = house()
    for wrong in ({}, {"message": "x", "other": 1}, {"message": 5}):
        with pytest.raises(InvalidInput):
            await route(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes 2 inputs, 3 were given"):
        await route("x", True, 3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="was given message twice"):
        await route("x", message="y")  # type: ignore[misc]
    assert here.calls == 0


async def test_a_program_can_take_its_context(house: Open) -> None:
    house()

    @program
    async def where(ctx: Context, x: int = 3) -> str:
        return f"{ctx.step}:{x}"

    @program
    async def outer() -> str:
        return await where() + " " + await where(x=4)

    assert list(where.spec.inputs) == ["x"]
    assert await outer() == "0.0:3 0.1:4"


async def test_what_a_program_returns_has_to_be_what_it_declares(house: Open) -> None:
    house([GOOD] * 3)

    @program
    async def wrong(x: str) -> int:
        return x  # type: ignore[return-value]

    @program
    async def other() -> Summary:
        return await Triage(message="x")  # type: ignore[return-value]

    @program
    async def nothing() -> Summary:
        return None  # type: ignore[return-value]

    @program
    async def silent():  # type: ignore[no-untyped-def]
        return await Triage(message="x")

    for call, said in (
        (wrong(x="secret"), "returned a str"),
        (other(), "returned a Triage"),
        (nothing(), "returned a NoneType"),
        (silent(), "returned a Triage"),
    ):
        with pytest.raises(OutputInvalid, match=said) as caught:
            await call
        assert "secret" not in str(caught.value) + caught.value.problem


async def test_values_of_all_kinds_come_back_as_they_are(house: Open) -> None:
    house()

    @program
    async def items(n: int) -> list[Item]:
        return [Item(name=str(i), price=i) for i in range(n)]

    @program
    async def untyped(x: int):  # type: ignore[no-untyped-def]
        return {"x": x}

    @program
    async def silent() -> None:
        return None

    assert await items(2) == [Item(name="0", price=0), Item(name="1", price=1)]
    assert await untyped(x=1) == {"x": 1}
    assert await silent() is None  # type: ignore[func-returns-value]


async def test_a_field_called_result_does_not_confuse(house: Open) -> None:
    from kaizen import Signature

    class Resulting(Signature):
        q: str = context.input()
        result: int = context.output()

    @program
    async def ask(q: str) -> Resulting:
        return await Resulting(q=q)

    house(['{"result": 3}'])
    answer = await ask(q="x")
    assert isinstance(answer, Resulting)
    assert answer.result == 3


@tool
def shout(text: str) -> str:
    """Make a text loud; asks a program on the way."""
    return Triage.execute(message=text).team.upper() + threading.current_thread().name[:0]


@tool
async def whisper(text: str) -> str:
    """Make a text quiet."""
    return text.lower()


def test_a_plain_tool_runs_in_a_thread_and_may_execute(house: Open) -> None:
    here = house([GOOD] * 2)
    assert shout.execute(text="x") == "CARDS"

    @program
    async def outer(text: str) -> str:
        return await shout(text=text) + await whisper(text="A")

    assert outer.execute(text="x") == "CARDSa"
    records = asyncio.run(here.records(kind="program"))
    last = [record for record in records if record.run_id == records[-1].run_id]
    by_id = {record.id: record for record in last}
    chain = {record.ref.rsplit(".", 1)[-1]: by_id.get(record.parent_id or "") for record in last}
    assert chain["Triage"] is not None
    assert chain["Triage"].ref == shout.spec.name
    assert {record.step for record in last} == {"0", "0.0", "0.0.0", "0.1"}
    assert sorted(record.model_calls for record in last) == [0, 1, 1, 1]


def test_a_plain_tool_may_run_a_loop_of_its_own(house: Open) -> None:
    here = house([GOOD])

    async def awaited(call: Triage) -> Triage:
        return await call

    @tool
    def own_loop(text: str) -> str:
        """Run a loop."""
        return asyncio.run(awaited(Triage(message=text))).team

    assert own_loop.execute(text="x") == "cards"
    assert {record.step for record in asyncio.run(here.records(kind="program"))} == {"0", "0.0"}


async def test_a_plain_tool_does_not_hold_up_the_loop(house: Open) -> None:
    house()
    gate = threading.Event()

    @tool
    def wait(n: int) -> int:
        """Wait."""
        assert gate.wait(10)
        return n

    async def release() -> None:
        await asyncio.sleep(0.01)
        gate.set()

    results: Any = await asyncio.gather(wait(n=1), release())
    assert results[0] == 1


def test_a_runnable_without_its_work_can_not_be_made() -> None:
    abstract: Any = Runnable
    with pytest.raises(TypeError, match="abstract method run"):
        abstract()
