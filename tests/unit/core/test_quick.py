"""The quicker makings of values: another way to the very same."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from kaizen.core.context import Run
from kaizen.core.identity import Taken
from kaizen.core.known import repeats
from kaizen.core.known.plain import plain_messages, reply_json
from kaizen.core.known.repeats import facts_of, remember
from kaizen.core.message import Media, Message, Text, ToolCall
from kaizen.core.quick.values import changed, quick
from kaizen.core.record import Record
from kaizen.core.request import Decoding, Options, Reply, Request, Stage, TokenLogprob, Usage
from kaizen.core.scope import LOCAL


@quick
@dataclass(frozen=True, slots=True)
class Pair:
    left: int
    right: str = "r"
    more: list[int] = field(default_factory=list[int])
    last: int = field(default=3, kw_only=True)


@dataclass(frozen=True, slots=True)
class Slow:
    left: int
    right: str = "r"
    more: list[int] = field(default_factory=list[int])
    last: int = field(default=3, kw_only=True)


def test_a_quick_value_is_made_as_any_other() -> None:
    assert str(inspect.signature(Pair)).replace("Pair", "") == str(inspect.signature(Slow)).replace("Slow", "").replace(
        "<factory>", str(inspect.signature(Pair).parameters["more"].default)
    )
    one = Pair(1, last=4)
    assert (type(one), one.left, one.right, one.more, one.last) == (Pair, 1, "r", [], 4)
    assert one == Pair(left=1, right="r", more=[], last=4)
    assert one.more is not Pair(1).more
    assert (repr(one), one != Pair(2)) == ("Pair(left=1, right='r', more=[], last=4)", True)
    for wrong in ({}, {"left": 1, "none": 2}):
        with pytest.raises(TypeError):
            Pair(**wrong)


def test_a_quick_value_is_frozen_once_it_is_made() -> None:
    one: Any = Pair(1)
    with pytest.raises(FrozenInstanceError):
        one.left = 2
    with pytest.raises(FrozenInstanceError):
        del one.left
    assert not hasattr(one, "__dict__")


def test_a_quick_value_can_be_copied_and_pickled() -> None:
    one = Reply(model="m/x", text="t", usage=Usage(1, 2), stages=(Stage("exact", 1.0, 0.5, {"a": 1}),))
    assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - our own


@pytest.mark.parametrize("kind", [Reply, Request, Usage, Decoding, Options, Stage, Record, Run, Taken])
def test_what_is_quick_has_all_its_fields(kind: Any) -> None:
    values = {one.name: object() for one in fields(kind)}
    made = kind(**values)
    assert {name: getattr(made, name) for name in values} == values
    other = object()
    for name in values:
        once = changed(made, **{name: other})
        assert {**values, name: other} == {at: getattr(once, at) for at in values}
        assert getattr(made, name) is values[name]


def test_a_change_of_what_is_no_field_is_an_error() -> None:
    with pytest.raises(AttributeError):
        changed(Usage(), tokens=3)


def test_only_plain_frozen_dataclasses_can_be_made_quick() -> None:
    class Later:
        def __post_init__(self) -> None: ...

    for kind in (
        dataclass(frozen=True)(type("Open", (), {"__annotations__": {"a": int}})),
        dataclass(frozen=True, slots=True)(type("Below", (Slow,), {"__annotations__": {"a": int}, "a": 1})),
        dataclass(frozen=True, slots=True)(type("Late", (), {**vars(Later), "__annotations__": {"a": int}})),
        dataclass(frozen=True, slots=True)(type("Not", (), {"__annotations__": {"a": int}, "a": field(init=False)})),
    ):
        with pytest.raises(TypeError, match="no plain frozen dataclass"):
            quick(kind)


@pytest.mark.parametrize("kind", [Reply, Pair])
def test_a_quick_value_has_no_subclass_that_would_silently_be_it(kind: type[Any]) -> None:
    with pytest.raises(TypeError, match=f"a subclass of {kind.__name__}"):
        type("Below", (kind,), {"__slots__": ()})


def test_only_what_is_quick_is_changed_quickly() -> None:
    with pytest.raises(TypeError, match="Slow is not quick"):
        changed(Slow(1), left=2)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
usages = st.builds(Usage, *[st.integers(0, 99)] * 5, st.booleans())
replies = st.builds(
    Reply,
    model=texts,
    text=texts,
    tool_calls=st.just(()) | st.tuples(st.builds(ToolCall, texts, texts, texts)),
    usage=usages,
    logprobs=st.just(()) | st.tuples(st.builds(TokenLogprob, texts, st.floats(-9, 0), st.just((("a", -1.0),)))),
    cost_usd=st.none() | st.floats(0, 9),
    first_token_ms=st.none() | st.floats(0, 9),
    stages=st.just(())
    | st.tuples(st.builds(Stage, texts, st.floats(0, 9), st.none() | st.just(0.5), st.just({"a": [1]}))),
    record_id=st.none() | texts,
)


@given(replies)
def test_a_replys_json_is_that_of_the_dataclass(reply: Reply) -> None:
    assert reply_json(reply) == to_json(reply)


def test_messages_json_is_that_of_the_dataclasses() -> None:
    messages = (
        Message("system", (Text("a", "5m"), Text("b"))),
        Message("user", (Media("image", "image/png", data="x"),)),
        Message("assistant", ()),
    )
    assert to_json(plain_messages(messages)) == to_json(messages)


def test_facts_are_kept_of_what_was_named_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_known", {})
    monkeypatch.setattr(repeats, "_named", set())
    monkeypatch.setattr(repeats, "KEPT", 2)
    one = Request(scope=LOCAL, model="m/x", messages=())
    same = replace(one)
    remember(one)
    facts = facts_of(one)
    assert facts is not None
    facts["key"] = 7
    assert (facts_of(one), facts_of(same)) == ({"key": 7}, None)
    remember(same)
    remember(replace(one))  # one too many: all are forgotten
    assert facts_of(one) is None
    assert len(repeats._known) == 1


def test_what_is_made_of_a_request_takes_no_place_and_is_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_known", {})
    monkeypatch.setattr(repeats, "_named", set())
    monkeypatch.setattr(repeats, "KEPT", 2)
    many = [Request(scope=LOCAL, model=f"m/{at}", messages=()) for at in range(3)]
    made = [replace(one, user="u") for one in many]
    for one, other in zip(many[:2], made[:2], strict=True):
        remember(one)
        remember(other, made_of=one)
    assert [facts_of(one) for one in (*many[:2], *made[:2])] == [{}] * 4
    remember(many[2])  # one too many
    assert [facts_of(one) for one in (*many[:2], *made[:2])] == [None] * 4
    remember(made[0], made_of=many[0])  # of one that is not kept
    assert facts_of(made[0]) is None
