"""What a user writes, as a strict type checker sees it. Never run: ``test_typing.py`` has it checked."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar, assert_type

from kaizen import Answer, Params, Partial, Record, Signature, best_of, context, program, react, refine, signature, tool

T = TypeVar("T")


class Triage(Signature):
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    loud: bool = context.input(default=False)
    thought: str = context.intermediate("why")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)


class Extract(Signature, Generic[T]):
    text: str = context.input()
    found: T = context.output()


@signature
class Plain:
    question: str = context.input()
    yes: bool = context.output()


def metric(inputs: object, answer: Triage) -> float:
    return answer.urgency


@program
async def route(message: str, times: int = 1) -> str:
    answer = await Triage(message=message)
    return answer.team * times


@program
async def handed_on(message: str) -> Triage:
    return await Triage(message=message)


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@tool
async def fetch(name: str) -> list[str]:
    """Fetch."""
    return [name]


async def main() -> None:
    answer = await Triage(message="Someone stole my card")
    assert_type(answer, Triage)
    assert_type(answer.team, Literal["cards", "transfers", "accounts"])
    assert_type(answer.urgency, int)
    assert_type(answer.thought, str)
    assert_type(answer.message, str)
    assert_type(answer.record, Record)
    assert_type(answer.record.cost_usd, float | None)
    assert_type(Triage.execute(message="x").team, Literal["cards", "transfers", "accounts"])
    async for partial in Triage.stream(message="x"):
        assert_type(partial, Triage)
    warm = Triage.using(Params(seed=1), temperature=0)
    assert_type(warm, type[Triage])
    assert_type((await warm(message="x")).urgency, int)
    assert_type(Triage.compile().parse("{}"), Triage)
    assert_type((await Extract[int](text="x")).found, int)
    for wrapped in (
        best_of(Triage, 3, metric=metric),
        refine(Triage, 3, metric=metric, threshold=1.0),
        react(Triage, tools=[add, fetch, route, Triage]),
    ):
        assert_type(await wrapped(message="x"), Triage)
        assert_type(wrapped.execute(message="x").urgency, int)
    assert_type(await best_of(route, 2, metric=metric)(message="x"), Answer)
    assert_type(await route("x"), str)
    assert_type(await route(message="x", times=2), str)
    assert_type(route.execute("x", 2), str)
    async for item in route.stream(message="x"):
        assert_type(item, Partial | str)
    assert_type(await handed_on("x"), Triage)
    assert_type(await add(a=1, b=2), int)
    assert_type(await fetch("x"), list[str])
    assert_type(Plain(question="x").yes, bool)
    short: type[Signature] = signature("question -> answer")
    loose: Any = await short()
    print(loose)
