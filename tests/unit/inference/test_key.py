"""The canonical key: all that can change an answer changes it, and nothing else does."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.core.message import Media, Message, Part, Text, ToolCall, ToolResult
from kaizen.core.request import Decoding, Options, OutputSchema, Request, ToolSpec
from kaizen.core.scope import LOCAL, Scope
from kaizen.inference import key as keys
from kaizen.inference.key import last_user, request_key, space_key

SYSTEM, USER = Message.of("system", "Be brief."), Message.of("user", "hello")
IMAGE = Media("image", "image/png", data="abc")
CALL, RESULT = ToolCall("c1", "look_up", '{"q": 1}'), ToolResult("c1", "42")
FULL = Request(
    scope=LOCAL,
    model="mine/large",
    messages=(
        SYSTEM,
        Message("user", (Text("look"), IMAGE)),
        Message("assistant", (Text("hm"), CALL)),
        Message("tool", (RESULT,)),
        USER,
    ),
    output=OutputSchema("answer", {"type": "object"}),
    tools=(ToolSpec("look_up", "finds", {"type": "object"}),),
    decoding=Decoding(temperature=0.5, stop=("x",)),
)
# What a field's value can be changed to, by its type; the rest is changed by name below.
OTHER: dict[str, Any] = {
    "scope": Scope("other", "dev"),
    "model": "mine/small",
    "messages": (SYSTEM,),
    "output": None,
    "tools": (),
    "tool_choice": "required",
    "tool": "look_up",
    "parallel_tools": False,
    "json_object": True,
    "decoding": Decoding(temperature=0.5, stop=("y",)),
    "top_logprobs": 3,
    "stop": ("y",),
    "logit_bias": (("5", 1.0),),
    "effort": "low",
    "routing": "guided",
    "quality": "max",
    "pace": "fast",
    "task": "triage",
    "models": ("mine/*",),
    "fallback": True,
    "compress": False,
    "kind": "audio",
    "is_error": True,
    "strict": True,
    "schema": {"type": "string"},
    "detail": "high",
}
FREE = {
    Request: {"stable", "deadline", "user", "options", "step", "allowance"},
    Options: {"exact", "refresh", "semantic", "batch", "hedge", "ttl", "tags"},
    Text: {"mark"},
    Media: {"mark"},
    ToolResult: {"mark"},
    ToolSpec: {"mark"},
}


def put(value: Any) -> Request:
    """``FULL`` with a value in the place of the one of its type."""
    match value:
        case Request():
            return value
        case Options():
            return replace(FULL, options=value)
        case Decoding():
            return replace(FULL, decoding=value)
        case ToolSpec():
            return replace(FULL, tools=(value,))
        case OutputSchema():
            return replace(FULL, output=value)
        case Scope():
            return replace(FULL, scope=value)
        case _:
            parts: tuple[Part, ...] = (value,)
            return replace(FULL, messages=(SYSTEM, Message("assistant", parts), USER))


def changed(kind: Any, name: str) -> Any:
    """Another value for a field."""
    hint = str(get_type_hints(kind)[name])
    if name in OTHER:
        return OTHER[name]
    return 7 if "int" in hint else 0.25 if "float" in hint else "other"


PLAIN: list[Any] = [
    FULL,
    FULL.scope,
    Options(),
    FULL.decoding,
    FULL.output,
    FULL.tools[0],
    Text("a"),
    IMAGE,
    CALL,
    RESULT,
]
CASES = [(value, field.name) for value in PLAIN for field in fields(value)]


@pytest.mark.parametrize(("value", "name"), CASES, ids=[f"{type(v).__name__}.{n}" for v, n in CASES])
def test_every_field_is_in_the_key_but_those_that_can_not_change_the_answer(value: Any, name: str) -> None:
    assert is_dataclass(value)
    free = name in FREE.get(type(value), set())
    if type(value) is Request and free:
        free_values = {"stable": 2, "deadline": 9.0, "user": "u", "options": Options(ttl=1.0), "step": "0.1"}
        other: Any = {**free_values, "allowance": object()}[name]
    elif free:
        other = {"mark": "5m", "tags": ("t",), "ttl": 3.0}.get(name, True)
    else:
        other = changed(type(value), name)
    assert getattr(value, name) != other
    before, after = put(value), put(replace(value, **{name: other}))
    assert (request_key(before) == request_key(after)) is free
    assert (space_key(before) == space_key(after)) is free


def test_requests_that_are_equal_but_for_how_they_were_built_have_one_key() -> None:
    for stable in range(len(FULL.messages) + 1):
        same = replace(
            FULL, stable=stable, decoding=replace(FULL.decoding), messages=tuple(map(replace, FULL.messages))
        )
        assert request_key(same) == request_key(replace(FULL, stable=stable)) == request_key(FULL)
        assert space_key(same) == space_key(FULL)
    zero = [replace(FULL, decoding=Decoding(temperature=t)) for t in (0, 0.0)]
    assert request_key(zero[0]) == request_key(zero[1])


def test_the_memo_of_heads_is_bounded_and_tells_heads_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_heads", {})
    monkeypatch.setattr(keys, "_KEPT", 3)
    made = [Message.of("system", f"{number}") for number in range(8)]
    asked = [Request(scope=LOCAL, model="m/x", messages=(head, USER), stable=1) for head in made]
    assert len({request_key(one) for one in (*asked, *asked)}) == 8
    assert len(keys._heads) <= 3
    assert [request_key(one) for one in asked] == [request_key(replace(one, stable=0)) for one in asked]


def test_a_space_is_all_but_the_question() -> None:
    asked = replace(FULL, messages=(*FULL.messages[:-1], Message.of("user", "good bye")))
    assert space_key(asked) == space_key(FULL)
    assert request_key(asked) != request_key(FULL)
    split = replace(FULL, messages=(*FULL.messages[:-1], Message("user", (Text("good"), Text(" bye")))))
    assert space_key(split) == space_key(FULL)
    shown = replace(FULL, messages=(*FULL.messages[:-1], Message("user", (Text("hello"), IMAGE))))
    assert space_key(shown) != space_key(FULL)
    earlier = replace(FULL, messages=(Message.of("system", "Be long."), *FULL.messages[1:]))
    assert space_key(earlier) != space_key(FULL)
    after = replace(FULL, messages=(*FULL.messages, Message.of("assistant", "well")))
    assert space_key(after) not in (space_key(FULL), request_key(after))
    assert last_user(after) == 4
    silent = replace(FULL, messages=(SYSTEM,))
    assert last_user(silent) is None
    assert space_key(silent) != request_key(silent)
    empty = replace(FULL, messages=(SYSTEM, Message("user", ())))
    assert space_key(empty) != request_key(empty)


TEXTS = st.text(max_size=6)
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, TEXTS),
    st.builds(ToolCall, TEXTS, TEXTS, TEXTS),
    st.builds(ToolResult, TEXTS, TEXTS, st.booleans()),
    st.builds(Media, st.just("image"), TEXTS, st.none() | TEXTS, st.none() | TEXTS, st.none() | TEXTS),
)
MESSAGES = st.lists(
    st.builds(
        Message, st.sampled_from(["system", "user", "assistant", "tool"]), st.lists(PARTS, max_size=3).map(tuple)
    ),
    max_size=4,
).map(tuple)
REQUESTS = st.builds(
    Request,
    scope=st.builds(Scope, TEXTS, TEXTS),
    model=TEXTS,
    messages=MESSAGES,
    stable=st.just(0),
    tools=st.lists(st.builds(ToolSpec, TEXTS, TEXTS, st.just({"a": 1})), max_size=2).map(tuple),
    decoding=st.builds(
        Decoding, st.none() | st.sampled_from([0, 0.0, 0.5]), stop=st.lists(TEXTS, max_size=2).map(tuple)
    ),
)


@given(REQUESTS, REQUESTS)
def test_two_requests_have_one_key_only_if_they_are_equal(one: Request, other: Request) -> None:
    assert (request_key(one) == request_key(other)) == (one == other)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_boundary_between_texts_is_lost(a: str, b: str, c: str, d: str) -> None:
    def asking(*texts: str) -> str:
        parts = tuple(Text(text) for text in texts)
        return request_key(Request(scope=Scope(a, b), model="m/x", messages=(Message("user", parts),)))

    assert (asking(a, b) == asking(c, d)) == ((a, b) == (c, d))
    assert asking(a + b) != asking(a, b)
