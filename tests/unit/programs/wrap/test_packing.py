"""What goes into a pack and what does not, and what is read out of its answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from kaizen import Signature, context, errors
from kaizen.core.context import Budget, Context
from kaizen.core.message import Media
from kaizen.core.params import Demo
from kaizen.core.protocols import Allow, Deny, Need
from kaizen.core.request import Reply, Request, Usage
from kaizen.programs.declare import History
from kaizen.programs.wrap.packing import packed
from tests.unit.programs.house import House, open_house


class Item(BaseModel):
    """A model that is called as the pack's own definition is."""

    name: str


class Triage(Signature):
    """Name the team."""

    message: str = context.input()
    team: Literal["cards", "loans"] = context.output()


class Listed(Signature):
    """Name the thing."""

    message: str = context.input()
    item: Item = context.output()


class Talk(Signature):
    """Answer."""

    history: History = context.input()
    text: str = context.output()


class Look(Signature):
    """Say what it shows."""

    picture: Media = context.input()
    text: str = context.output()


class Summary(Signature):
    """Sum up."""

    message: str = context.input()
    team: str = context.intermediate(signature=Triage)
    text: str = context.output()


def items(request: Request) -> int:
    return request.messages[-1].text.count("</item_")


def triaged(request: Request) -> str:
    count = items(request)
    one = {"team": "cards"}
    return json.dumps({f"item_{number + 1}": one for number in range(count)} if count else one)


async def both(house: House, program: Any, field: str = "message", values: Any = ("a", "b")) -> list[Any]:
    calls = (house.app.start(program, {field: value}) for value in values)
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    ("program", "how", "said"),
    [
        (Triage, {"size": 1}, "size = 1"),
        (Triage, {"wait_ms": -1.0}, "wait_ms = -1"),
        (Triage, {"wait_ms": float("inf")}, "wait_ms = inf"),
        (Summary, {}, "filled by other programs"),
    ],
)
def test_what_can_not_be_packed_is_said_at_once(program: Any, how: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.DefinitionError, match=said):
        packed(program, **how)


@pytest.mark.parametrize(
    ("program", "field", "values", "mode"),
    [
        (Talk, "history", ([{"role": "user", "content": "hi"}],) * 2, "json"),
        (Look, "picture", (Media("image", "image/png", data="aGk="),) * 2, "json"),
        (Triage, "message", ("a", "b"), "text"),
    ],
    ids=["conversation", "attachment", "text"],
)
async def test_what_is_not_plain_goes_alone(tmp_path: Path, program: Any, field: str, values: Any, mode: str) -> None:
    reply = "<team>cards</team>" if mode == "text" else '{"text": "hi", "team": "cards"}'
    house = open_house(tmp_path, lambda request: reply if program is Triage else '{"text": "hi"}', mode=mode)
    await both(house, packed(program), field, values)
    assert [items(request) for request in house.model.requests] == [0, 0]


@pytest.mark.parametrize("how", [{"layout": "plain"}, {"nearest": 1}], ids=["plain", "nearest"])
async def test_what_shows_each_call_something_else_goes_alone(tmp_path: Path, how: Any) -> None:
    alone = " cards" if "layout" in how else '{"team": "cards"}'
    here = open_house(tmp_path, lambda request: "a pack" if items(request) else alone)
    program = packed(Triage.using(**how), size=2, wait_ms=0)
    answers = await asyncio.gather(*(here.app.start(program, {"message": f"m{at}"}) for at in range(2)))
    assert [answer.outputs["team"] for answer in answers] == ["cards", "cards"]
    assert here.calls == 2


@pytest.mark.parametrize(("votes", "calls"), [(None, [2]), (1, [2]), (2, [0] * 4)])
async def test_what_is_voted_on_goes_alone_and_one_vote_is_none(
    tmp_path: Path, votes: int | None, calls: list[int]
) -> None:
    house = open_house(tmp_path, triaged)
    answers = await both(house, packed(Triage.using(votes=votes), size=2))
    assert [answer.outputs["team"] for answer in answers] == ["cards", "cards"]
    assert [items(request) for request in house.model.requests] == calls


async def test_a_stream_goes_alone(tmp_path: Path) -> None:
    house = open_house(tmp_path, triaged)
    seen = [item async for item in house.app.stream(packed(Triage), {"message": "a"})]
    assert seen[-1].outputs == {"team": "cards"}  # type: ignore[union-attr] - the last is an answer
    assert [items(request) for request in house.model.requests] == [0]


async def test_the_request_is_one_schema_with_a_key_for_each(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        assert request.output is not None
        schema = dict(request.output.schema)
        assert schema["required"] == ["item_1", "item_2"] == list(schema["properties"])
        assert {"$ref": "#/$defs/Item_"} in schema["properties"].values()
        assert set(schema["$defs"]) == {"Item", "Item_"}
        return json.dumps({key: {"item": {"name": key}} for key in schema["required"]})

    house = open_house(tmp_path, answer, mode="schema")
    answers = await both(house, packed(Listed))
    assert [one.outputs["item"].name for one in answers] == ["item_1", "item_2"]
    assert answers[0].outputs["item"] == Item(name="item_1")
    assert house.calls == 1


async def test_demos_are_shown_packed_and_the_head_is_the_same_for_all_sizes(tmp_path: Path) -> None:
    house = open_house(tmp_path, triaged)
    demos = (Demo({"message": "my card"}, {"team": "cards"}), Demo({"message": "my loan"}, {"team": "loans"}))
    program = packed(Triage.using(demos=demos, max_tokens=50))
    await both(house, program)
    await both(house, program, values=("a", "b", "c"))
    first, second = house.model.requests
    _, asked, answered, _ = first.messages
    assert asked.text == "<item_1>\nmessage: my card\n</item_1>\n<item_2>\nmessage: my loan\n</item_2>"
    assert json.loads(answered.text) == {"item_1": {"team": "cards"}, "item_2": {"team": "loans"}}
    assert first.messages[: first.stable] == second.messages[: second.stable]
    assert (first.stable, first.decoding.max_tokens, second.decoding.max_tokens) == (3, 100, 150)


class Allowing:
    """Lets whoever is called "b" do nothing; every call is bounded at 40 tokens written."""

    def __init__(self) -> None:
        self.settled: list[Need] = []

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Allow | Deny:
        if action == "infer" and ctx.run.run_id == "b":
            return Deny("not b")
        return Allow(self if action == "infer" else None)

    async def settle(self, used: Need, /) -> None:
        self.settled.append(used)


async def test_policy_decides_about_each_call_and_each_lease_is_settled_with_its_share(tmp_path: Path) -> None:
    policy = Allowing()

    def answer(request: Request) -> Reply:
        return Reply(model=request.model, text=triaged(request), usage=Usage(tokens_in=100, tokens_out=20))

    house = open_house(tmp_path, answer, policy=policy)
    program = packed(Triage)
    calls = (house.app.start(program, {"message": name}, run_id=name) for name in "abc")
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one).__name__ for one in answers] == ["Triage", "Denied", "Triage"]
    assert [items(request) for request in house.model.requests] == [2]
    assert sum(need.tokens for need in policy.settled) == 120
    # the bound that policy sets is for one call, and the pack has no more
    assert house.model.requests[0].decoding.max_tokens == 4096


async def test_a_budget_counts_each_calls_share(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        return Reply(model=request.model, text=triaged(request), usage=Usage(tokens_in=100, tokens_out=20))

    house = open_house(tmp_path, answer)
    program, budgets = packed(Triage), [Budget(tokens=1000), Budget(tokens=1000)]
    await asyncio.gather(*(house.app.start(program, {"message": "a"}, budget=budget) for budget in budgets))
    assert [budget.tokens for budget in budgets] == [60, 60]


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ('{"item_1": {"team": "cards"}, "item_2": {"team": "cards"}}', 0),
        ('Here: {"item_1": {"team": "cards"}, "item_2": {"team": "cards"}} as you wished', 0),
        ('{"item_2": {"team": "cards"}, "item_1": {"team": "cards"}, "item_9": 5}', 0),
        ('{"item_1": {"team": "cards"}, "item_1": {"team": "loans"}, "item_2": {"team": "cards"}}', 1),
        ('{"item_1": {"team": "cards", "team": "loans"}, "item_2": {"team": "cards"}}', 1),
        ('{"item_1": {"team": "cards"}, "item_2": "cards"}', 1),
        ('{"item_1": {"team": "cards"}, "item_2": {"team":', 1),
        ("{" * 100_000, 2),
    ],
    ids=["whole", "prose", "other order", "twice", "twice inside", "no object", "cut", "deep"],
)
async def test_each_answer_counts_by_itself(tmp_path: Path, text: str, alone: int) -> None:
    house = open_house(tmp_path, lambda request: text if items(request) else '{"team": "loans"}')
    answers = await both(house, packed(Triage))
    assert [one.outputs["team"] for one in answers].count("loans") == alone
    assert house.calls == 1 + alone


async def test_an_answer_cut_at_the_limit_keeps_what_came_before_its_last(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        return Reply(model=request.model, text=triaged(request), finish="length" if items(request) else "stop")

    house = open_house(tmp_path, answer)
    await both(house, packed(Triage))
    assert house.calls == 2  # the last looks whole, and need not be


async def test_a_pack_withheld_for_one_is_asked_one_by_one(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        finish: Any = "content_filter" if items(request) else "stop"
        return Reply(model=request.model, text=triaged(request), finish=finish)

    house = open_house(tmp_path, answer)
    assert [one.outputs["team"] for one in await both(house, packed(Triage))] == ["cards", "cards"]
    assert house.calls == 3


class Slow:
    """Takes its time with packs, and raises what it is told to."""

    def __init__(self, wait: float, error: BaseException | None = None) -> None:
        self.wait, self.error = wait, error
        self.asked: list[int] = []
        self.cancelled = 0

    async def complete(self, request: Request, /) -> Reply:
        self.asked.append(items(request))
        if items(request):
            try:
                await asyncio.sleep(self.wait)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if self.error is not None:
                raise self.error
        return Reply(model=request.model, text=triaged(request), cost_usd=0.0)


async def test_who_leaves_is_not_asked_for_and_who_stays_pays(tmp_path: Path) -> None:
    model = Slow(0.1)
    house = open_house(tmp_path, provider=model)
    program = packed(Triage, wait_ms=30.0)
    left, hurried, patient = (
        asyncio.ensure_future(house.app.start(program, {"message": "a"}, seconds=seconds))
        for seconds in (None, 0.16, None)
    )
    await asyncio.sleep(0.01)
    left.cancel()
    await asyncio.gather(hurried, patient)
    assert model.asked == [2, 0]
    rows = await house.records(kind="model")
    notes = [row.stages[0].note for row in rows if row.stages]
    assert [(note["items"], note["item"]) for note in notes] == [(2, 2)]
    assert sorted((row.status, row.attempts) for row in rows) == [
        ("cancelled", 0),
        ("error", 0),
        ("ok", 1),
        ("ok", 1),
    ]


async def test_a_pack_nobody_waits_for_is_cancelled(tmp_path: Path) -> None:
    model = Slow(30.0)
    house = open_house(tmp_path, provider=model)
    program = packed(Triage, size=2)
    calls = [asyncio.ensure_future(house.app.start(program, {"message": name})) for name in "ab"]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    assert (model.asked, model.cancelled) == ([2], 1)


@pytest.mark.parametrize("error", [TimeoutError(), ValueError("x"), errors.AuthFailed("x")], ids=lambda one: repr(one))
async def test_what_goes_wrong_goes_wrong_for_all(tmp_path: Path, error: Exception) -> None:
    model = Slow(0.0, error)
    house = open_house(tmp_path, provider=model)
    answers = await asyncio.gather(
        *(house.app.start(packed_, {"message": "a"}, seconds=5.0) for packed_ in [packed(Triage)] * 2),
        return_exceptions=True,
    )
    assert [type(one) for one in answers] == [type(error)] * 2
    assert model.asked == [2]
