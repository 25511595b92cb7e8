"""Partial outputs are typed, only grow, and end at what the whole answer says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from kaizen import Signature, context
from kaizen.core.params import OutputMode
from kaizen.programs.prompt.parse import parse
from kaizen.programs.prompt.partial import partial_outputs
from kaizen.programs.prompt.render import written
from tests.unit.programs.test_signature import FULL, TYPED, Everything, Item, Point, Triage


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]
    born: datetime | None = None
    place: Annotated[str, Field(alias="where")] = ""


@dataclass(frozen=True, slots=True)
class Pair:
    left: str
    right: int


class Shape(TypedDict):
    sides: int
    label: str


class Grown(Signature):
    thought: str = context.intermediate()
    note: str | None = context.output(max_length=30)
    people: list[Person] = context.output()
    pair: Pair = context.output()
    shape: Shape = context.output()
    counts: dict[str, int] = context.output()
    anything: dict = context.output()  # type: ignore[type-arg]
    loose: list = context.output()  # type: ignore[type-arg]
    points: tuple[int, int] = context.output()
    rank: int = context.output(ge=1, le=50)


VALUES: dict[str, Any] = {
    "thought": 'a "quoted"\nline with ünïcode 😀 and </tho',
    "note": "short",
    "people": [
        {"name": "Ann", "age": 41, "tags": ["x", "yy"], "born": "2000-01-02T00:00:00", "where": "here"},
        {"name": "Bob", "age": 7, "tags": [], "born": None},
    ],
    "pair": {"left": "l", "right": 12},
    "shape": {"sides": 34, "label": "four"},
    "counts": {"a": 12, "b": 3},
    "anything": {"k": [1, {"z": "w"}]},
    "loose": [1, "x"],
    "points": [10, 20],
    "rank": 45,
}


def steps(spec: Any, text: str, mode: OutputMode) -> list[dict[str, Any]]:
    return [partial_outputs(spec, text[:end], mode) for end in range(len(text) + 1)]


def grows(before: Any, after: Any) -> bool:
    """Whether ``after`` is ``before`` or more of it."""
    match before:
        case None:
            return True  # a nested field not begun
        case str() if isinstance(after, str):
            return after.startswith(before)
        case list() if isinstance(after, list):
            return len(before) <= len(after) and all(map(grows, before, after))
        case dict() if isinstance(after, dict):
            return all(key in after and grows(value, after[key]) for key, value in before.items())
        case BaseModel():
            return type(after) is type(before) and grows(before.__dict__, after.__dict__)
        case Pair() | Point():
            names = type(before).__dataclass_fields__
            return type(after) is type(before) and all(
                grows(getattr(before, name), getattr(after, name)) for name in names
            )
        case _:
            return type(after) is type(before) and before == after


@pytest.mark.parametrize("mode", ["schema", "json", "text"])
def test_partials_only_grow_to_the_whole(mode: OutputMode) -> None:
    text = written(Grown.spec, VALUES, mode)
    seen = steps(Grown.spec, text, mode)
    assert all(grows(before, after) for before, after in pairwise(seen))
    assert seen[0] == {}
    assert seen[-1] == parse(Grown.spec, text, mode)
    assert len({repr(one) for one in seen}) > 60


@pytest.mark.parametrize("mode", ["json", "text"])
def test_lists_and_objects_grow_from_inside(mode: OutputMode) -> None:
    seen = steps(Grown.spec, written(Grown.spec, VALUES, mode), mode)
    first = [one["people"][0] for one in seen if one.get("people")]
    assert {person.name for person in first} == {None, "", "A", "An", "Ann"}
    assert {person.age for person in first} == {None, 41}
    assert {len(one.get("people", [])) for one in seen} == {0, 1, 2}
    assert {one["pair"].right for one in seen if "pair" in one} == {None, 12}
    assert {one["shape"].get("sides") for one in seen if "shape" in one} == {None, 34}
    assert {one["counts"].get("a") for one in seen if "counts" in one} == {None, 12}
    assert {one.get("points") for one in seen} == {None, (10, 20)}


def test_numbers_and_choices_appear_once_they_are_whole() -> None:
    seen = steps(Triage.spec, '{"team": "cards", "urgency": 4}', "json")
    assert {one.get("team") for one in seen} == {None, "cards"}
    assert {one.get("urgency") for one in seen} == {None, 4}


def test_what_breaks_its_rule_is_not_shown() -> None:
    seen = steps(Triage.spec, '{"team": "loans", "urgency": 9}', "json")
    assert {repr(one) for one in seen} == {"{}"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", {}),
        ("Sure: ", {}),
        ("[1, 2", {}),
        ("{", {}),
        ('{"flag": true', {}),
        ('{"a": "b", "urgency": null', {}),
        ('```json\n{"team": "cards", "urgency": ', {"team": "cards"}),
        ('A {set}: {"team": "cards", "urgency": 1', {"team": "cards"}),
        ('{"team": "cards", "urgency": 2} and', {"team": "cards", "urgency": 2}),
        ('{"team": cards', {}),
        ('{"other": 1, "team": "cards", "urgency": 1', {"team": "cards"}),
    ],
)
def test_what_stands_round_the_object_is_passed_over(text: str, shown: dict[str, Any]) -> None:
    assert partial_outputs(Triage.spec, text, "json") == shown


def test_a_tag_inside_another_is_part_of_it() -> None:
    text = "<thought>so <note>x</note> or</thought><note>y</note><note>z</note><people>[{"
    shown = partial_outputs(Grown.spec, text, "text")
    assert shown == {
        "thought": "so <note>x</note> or",
        "note": "y",
        "people": [Person.model_construct(name=None, age=None, tags=None, born=None, place=None)],
    }
    assert partial_outputs(Grown.spec, "<people>?", "text") == {}


def test_every_type_ends_typed() -> None:
    seen = steps(Everything.spec, json.dumps(FULL), "json")
    assert seen[-1] == TYPED
    assert [one["items"] for one in seen if "items" in one][-1] == [Item(name="m", price=2.0)]


def test_types_that_cannot_be_hashed_are_typed_too() -> None:
    class Bounded(Signature):
        scores: list[Annotated[int, Field(ge=1)]] = context.output()

    class Either(Signature):
        one: int | str = context.output()

    assert partial_outputs(Either.spec, '{"one": {"a": 1', "json") == {}
    assert partial_outputs(Either.spec, '{"one": "a"', "json") == {"one": "a"}
    assert partial_outputs(Bounded.spec, '{"scores": [3, 0, 5, 6', "json") == {"scores": [3, 5]}


class Words(Signature):
    first: str = context.output()
    second: list[str] = context.output()
    third: dict[str, str] = context.output()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12), st.lists(st.text(max_size=6), max_size=3), st.dictionaries(st.text(max_size=3), st.text()))
def test_partials_are_prefixes_whatever_is_written(first: str, second: list[str], third: dict[str, str]) -> None:
    values = {"first": first, "second": second, "third": third}
    for text in (json.dumps(values), json.dumps(values, ensure_ascii=False)):
        try:
            text.encode()
        except UnicodeEncodeError:
            continue
        seen = steps(Words.spec, text, "json")
        assert all(grows(before, after) for before, after in pairwise(seen))
        assert seen[-1] == values
