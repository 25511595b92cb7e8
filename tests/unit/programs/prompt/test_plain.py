"""A text of fields and values, and what is read from what a model adds to it."""

from __future__ import annotations

from typing import Literal

import pytest

from kaizen import Signature, context
from kaizen.core.params import Demo, Params
from kaizen.programs.prompt import plain
from kaizen.programs.prompt.parse import Misfit


class Booking(Signature):
    """Read a booking."""

    text: str = context.input("what the guest wrote")
    day: str | None = context.output("the day")
    guest_count: int = context.output("how many")
    vip: bool = context.output("whether they matter")
    kind: Literal["a", "b"] = context.output("kind")


SPEC = Booking.spec


def test_the_instructions_come_first_and_may_be_others() -> None:
    assert plain.opening(SPEC, Params()) == "Read a booking.\n\n"
    assert plain.opening(SPEC, Params(instructions="Do it.\n\nNow.")) == "Do it.\nNow.\n\n"


def test_an_example_is_a_line_for_each_field() -> None:
    demo = Demo({"text": "two on\n\nMonday"}, {"day": "Monday", "guest_count": 2})
    made = plain.example(SPEC, Params(headings={"day": "the day"}), demo, ["day", "guest_count", "vip"])
    assert made == "text: two on\nMonday\nthe day: Monday\nguest count: 2\nvip: none\n\n"


def test_it_ends_where_the_model_goes_on() -> None:
    assert plain.asked(SPEC, Params(advice="Mind it."), {"text": "hi"}, "day") == "text: hi\nMind it.\nday:"


def test_values_are_read_line_by_line_and_end_with_an_empty_one() -> None:
    said = " Monday\nor Tuesday\nguest count: 2\nvip: yes\nkind: a\n\ntext: more"
    assert plain.read(SPEC, Params(), said, ["day", "guest_count", "vip", "kind"]) == {
        "day": "Monday\nor Tuesday",
        "guest_count": 2,
        "vip": True,
        "kind": "a",
    }


def test_none_is_null_where_the_field_may_be_null() -> None:
    assert plain.read(SPEC, Params(), " None", ["day"]) == {"day": None}
    assert plain.read(SPEC, Params(), " none", ["kind"]) == {"kind": "none"}


def test_a_missing_heading_is_a_misfit() -> None:
    with pytest.raises(Misfit, match="guest count:"):
        plain.read(SPEC, Params(), " Monday", ["day", "guest_count"])
