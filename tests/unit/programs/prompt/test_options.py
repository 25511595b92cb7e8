"""The values a field can have, and how likely a reply's tokens say each is."""

from __future__ import annotations

import math
from datetime import date
from enum import Enum
from typing import Any, Literal

import pytest

from kaizen import Signature, context
from kaizen.core.params import Demo, Weights
from kaizen.core.request import TokenLogprob
from kaizen.programs.prompt.options import (
    Option,
    chances,
    closed,
    likelihoods,
    log_shares,
    open_text,
    places,
    value_text,
    votes,
)


class Colour(Enum):
    RED = "dark_red"
    BLUE = "blue"


class Ticket(Signature):
    """Read a ticket."""

    text: str = context.input("what it says")
    label: Literal["lost_card", "Refund"] = context.output("what it is about")
    colour: Colour | None = context.output("its colour")
    urgent: bool = context.output("whether it can't wait")
    name: str | None = context.output("who wrote it")
    count: int = context.output("how many")
    single: Literal["only"] = context.output("one value is no choice")
    alike: Literal["a_b", "a b"] = context.output("which read the same")


def test_a_field_with_few_values_has_options_in_plain_words() -> None:
    def texts(name: str) -> list[str]:
        return [option.text for option in closed(Ticket.spec, name) or ()]

    assert closed(Ticket.spec, "label") == (Option("lost card", "lost_card"), Option("Refund", "Refund"))
    assert texts("colour") == ["dark red", "blue", "none"]
    assert texts("urgent") == ["yes", "no"]
    assert texts("alike") == ['"a_b"', '"a b"']


@pytest.mark.parametrize("name", ["name", "count", "single"])
def test_any_other_field_has_none(name: str) -> None:
    assert closed(Ticket.spec, name) is None


def test_only_text_can_be_copied() -> None:
    assert [name for name in Ticket.spec.written if open_text(Ticket.spec, name)] == ["name"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), ("", "none"), (True, "yes"), (3, "3"), (["a"], '["a"]'), (Colour.RED, "dark_red")],
)
def test_a_value_is_written_as_people_would(value: Any, text: str) -> None:
    assert value_text(value) == text
    assert value_text(date(2024, 5, 1)) == "2024-05-01"


def tokens(*written: tuple[str, dict[str, float]]) -> list[TokenLogprob]:
    made: list[TokenLogprob] = []
    for text, chance in written:
        top = tuple((other, math.log(one)) for other, one in chance.items())
        made.append(TokenLogprob(text, math.log(chance[text]), top))
    return made


def probabilities(found: list[float]) -> list[float]:
    return [round(math.exp(one), 6) for one in found]


def test_options_that_part_at_the_first_token_have_its_alternatives() -> None:
    said = tokens((" pos", {" pos": 0.6, " negative": 0.3, " other": 0.1}), ("itive", {"itive": 0.5, "e": 0.5}))
    assert probabilities(likelihoods(said, [" positive\n", " negative\n"])) == [0.3, 0.3]


def test_options_that_begin_alike_part_where_they_differ() -> None:
    said = tokens(
        (" card", {" card": 0.8, " top": 0.2}), (" lost", {" lost": 0.75, " arrival": 0.25}), ("\n", {"\n": 1.0})
    )
    found = likelihoods(said, [" card lost\n", " card arrival\n", " top up\n"])
    assert probabilities(found) == [0.6, 0.2, 0.2]


def test_an_alternative_that_several_options_begin_with_is_shared() -> None:
    said = tokens((" x", {" x": 0.5, " card": 0.4, " c": 0.1}))
    assert probabilities(likelihoods(said, [" x\n", " card lost\n", " card arrival\n"])) == [0.5, 0.2, 0.2]


def test_an_option_nobody_reported_gets_what_the_least_likely_has() -> None:
    said = tokens((" a", {" a": 0.9, " b": 0.05}))
    assert probabilities(likelihoods(said, [" a", " c"])) == [0.9, 0.05]


def test_a_word_counts_however_its_tokens_are_cut() -> None:
    said = tokens((" ", {" ": 0.6, " none": 0.3, " n": 0.1}), ("1", {"1": 0.9, "none": 0.1}), ("\n", {"\n": 1.0}))
    assert probabilities(likelihoods(said, [" none\n", " 1\n"])) == [0.36, 0.54]


def test_options_that_begin_inside_a_token_are_read_from_there() -> None:
    said = tokens(('{"l":', {'{"l":': 1.0}), (' "po', {' "po': 0.7, ' "ne': 0.3}), ('s"}', {'s"}': 1.0}))
    assert probabilities(likelihoods(said, ['"pos"', '"neg"'], start=6)) == [0.7, 0.3]


def test_tokens_without_alternatives_count_for_what_was_written() -> None:
    assert likelihoods([TokenLogprob("a", -0.5)], ["a", "b"]) == [-0.5, -0.5]


def test_near_demos_have_more_say_than_far_ones() -> None:
    near = [math.exp(one) for one in votes([0, 1, 1], [0.9, 0.5, 0.4], 2)]
    assert near[0] > 0.95
    assert sum(near) == pytest.approx(1.0)
    assert votes([], [], 2) == pytest.approx([math.log(0.01)] * 2)


def test_values_that_are_no_option_count_for_the_last() -> None:
    options = (Option("none", None), Option("Ann", "Ann"))
    assert places([Demo({}, {"f": "Bob"}), Demo({}, {})], "f", options) == [1, 0]


def test_weights_say_how_much_each_thing_counts() -> None:
    texts, likely, near = ["a", "b"], [math.log(0.8), math.log(0.2)], [math.log(0.1), math.log(0.9)]
    assert chances(Weights(), texts, likely, near) == pytest.approx([0.8, 0.2])
    assert chances(Weights(model=0.0, near=1.0), texts, likely, near) == pytest.approx([0.1, 0.9])
    assert chances(Weights(lead={"a": math.log(4)}), texts, likely, None) == pytest.approx([0.5, 0.5])


def test_scores_become_shares() -> None:
    assert [math.exp(one) for one in log_shares([0.0, 0.0, math.log(2.0)])] == pytest.approx([0.25, 0.25, 0.5])
