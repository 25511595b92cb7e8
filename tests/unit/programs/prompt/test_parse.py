"""A reply is read as it stands: fences and prose round the answer are passed over, nothing is made up."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kaizen import Signature, context
from kaizen.core.params import OutputMode
from kaizen.core.request import Reply
from kaizen.programs.prompt.parse import Misfit, parse, parse_reply
from kaizen.programs.prompt.render import written
from tests.unit.programs.test_signature import FULL, TYPED, Everything, Triage

SPEC = Triage.spec
GOOD = '{"team": "cards", "urgency": 2}'
VALUES = {"team": "cards", "urgency": 2}
MODES: list[OutputMode] = ["schema", "json", "text"]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  \n{GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```",
        f"Sure! Here is the {{answer}}:\n\n{GOOD}\n\nAnything else?",
        f"[{GOOD}]",
        '{"team": "cards", "team": "cards", "urgency": 2}',
        f"{GOOD} and once more {GOOD}",
        f'{{"example": 1}} {GOOD}',
        f"braces {{ here }} {{}} {GOOD}",
        '{"team": "cards", "urgency": "2"}',
        '{"urgency": 2.0, "team": "cards"}',
    ],
)
def test_fences_and_prose_are_passed_over(text: str) -> None:
    assert parse(SPEC, text, "json") == VALUES


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON object"),
        (GOOD + chr(0xD83D), "half a character"),
        ("cards, 2", "no JSON object"),
        ('"cards"', "no JSON object"),
        ("[]", "no JSON object"),
        ('{"team": "cards"}', "'urgency' is missing"),
        ('{"team": "cards", "urgency": null}', "'urgency' = None"),
        ('{"team": "loans", "urgency": 2}', "'team' = 'loans'"),
        ('{"team": "cards", "urgency": 9}', "'urgency' = 9: Input should be less than or equal to 5"),
        ('{"team": "cards", "urgency": 2, "extra": 1}', "'extra' was not asked for"),
        ('{"team": "cards", "urgency": true}', "'urgency' = True: a number is wanted, not true or false"),
        (f'{GOOD} or {{"team": "accounts", "urgency": 2}}', "2 different JSON objects"),
        (f'{{"wrapped": {GOOD}}}', "'team' is missing; 'urgency' is missing; 'wrapped' was not asked for"),
        (f'{{"broken": {GOOD}', "no JSON object"),
        (f'{{"team": "transfers", "note": {GOOD}, "urg', "no JSON object"),
        ('{"team": "cards", "team": "accounts", "urgency": 2}', "'team' stands more than once with different values"),
        ('So: {"team": "cards", "team": "accounts", "urgency": 2}', "'team' stands more than once"),
        (GOOD[:-1], "no JSON object"),
        ("{'team': 'cards', 'urgency': 2}", "no JSON object"),
        ('{"a":' * 100_000, "no JSON object"),
    ],
)
def test_a_misfit_is_told_and_never_mended(text: str, problem: str) -> None:
    with pytest.raises(Misfit) as caught:
        parse(SPEC, text, "json")
    assert problem in caught.value.problem


def test_a_misfit_is_told_briefly() -> None:
    values = dict.fromkeys(FULL, "s3cret" * 1000)
    with pytest.raises(Misfit) as caught:
        parse(Everything.spec, json.dumps(values), "json")
    assert caught.value.problem.count(";") == 7
    assert len(caught.value.problem) < 2500


def test_an_answer_that_was_cut_off_is_a_misfit() -> None:
    assert parse_reply(SPEC, Reply(model="m", text=GOOD), "json") == VALUES
    with pytest.raises(Misfit, match="cut off"):
        parse_reply(SPEC, Reply(model="m", text=GOOD, finish="length"), "json")


class Typed(Signature):
    when: datetime = context.output()
    shares: list[float] = context.output()
    nested: dict[str, int] = context.output()


@pytest.mark.parametrize(
    "change",
    [
        {"when": 5},
        {"when": 1.5},
        {"shares": [0.5, True]},
        {"shares": [float("nan")]},
        {"shares": [0.5, "inf"]},
        {"nested": {"a": 1, "b": False}},
    ],
    ids=str,
)
def test_one_kind_of_value_is_not_taken_for_another(change: dict[str, Any]) -> None:
    fits = {"when": "2026-01-01T00:00:00", "shares": [1], "nested": {"a": 1}}
    parse(Typed.spec, json.dumps(fits), "json")
    with pytest.raises(Misfit):
        parse(Typed.spec, json.dumps(fits | change), "json")


def test_neither_inside_objects() -> None:
    values = FULL | {"item": {"name": "n", "price": True}}
    with pytest.raises(Misfit, match="'item'"):
        parse(Everything.spec, json.dumps(values), "json")


# -- marked fields ----------------------------------------------------------------------------------


class Noted(Signature):
    thought: str = context.intermediate()
    team: Literal["cards", "accounts"] = context.output()
    note: str | None = context.output()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("<thought>a</thought><team>cards</team><note>b</note>", ("a", "cards", "b")),
        ("Well:\n<thought>\n a \nb\n</thought>\n<team> cards </team>\n<note></note>!", (" a \nb", "cards", "")),
        ("<thought><team>accounts</team>?</thought><team>cards</team><note>5</note>", (None, "cards", "5")),
        ("<team>cards</team><team>cards</team><thought>a</thought><note>b</note>", ("a", "cards", "b")),
    ],
)
def test_tags_hold_the_fields(text: str, values: tuple[Any, ...]) -> None:
    thought, team, note = values
    parsed = parse(Noted.spec, text, "text")
    assert (parsed["team"], parsed["note"]) == (team, note)
    assert thought is None or parsed["thought"] == thought


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<thought><team>accounts</team></thought><note>x</note>", "'team' is missing"),
        ("<thought>a</thought><team>cards</team><team>accounts</team><note>x</note>", "<team> stands there more than"),
        ("<thought>a</thought><note>x</note><team>cards", "'team' is missing"),
        ("cards", "'thought' is missing; 'team' is missing; 'note' is missing"),
    ],
)
def test_tags_that_do_not_hold_them_are_a_misfit(text: str, problem: str) -> None:
    with pytest.raises(Misfit) as caught:
        parse(Noted.spec, text, "text")
    assert problem in caught.value.problem


@pytest.mark.parametrize("mode", MODES)
def test_what_is_written_for_demos_is_read_back(mode: OutputMode) -> None:
    text = written(Everything.spec, FULL, mode)
    values = parse(Everything.spec, text, mode)
    if mode == "text":  # a tag can't tell null from the text of that name
        values["note"] = None
    assert values == TYPED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
near = st.dictionaries(st.sampled_from(["team", "urgency", "other"]), json_values | st.sampled_from(["cards", 2, "2"]))


@given(st.text(max_size=40), near, st.text(max_size=40))
@example("", VALUES, "")
@example("{", VALUES, "}")
def test_parse_never_invents(before: str, answer: dict[str, Any], after: str) -> None:
    text = before + json.dumps(answer) + after
    try:
        values = parse(SPEC, text, "json")
    except Misfit:
        return
    # every value was written, in an object that holds all of them and nothing else
    assert values["team"] == answer["team"]
    assert str(values["urgency"]) == str(answer["urgency"]).removesuffix(".0")
    assert answer.keys() == {"team", "urgency"}


@given(st.text())
@example("<team>cards</team>")
@example('{"team": "cards"}')
def test_any_text_is_a_misfit_or_an_answer(text: str) -> None:
    for mode in MODES:
        try:
            values = parse(SPEC, text, mode)
        except Misfit as misfit:
            assert misfit.problem  # noqa: PT017 - either is right
        else:
            assert values["team"] in text


@pytest.mark.parametrize("brace", ["{x", "{}", "{\n", '{"', "{{"])
@pytest.mark.parametrize("mode", MODES)
def test_a_reply_of_braces_costs_time_by_its_length_only(brace: str, mode: OutputMode) -> None:
    began = time.process_time()
    with pytest.raises(Misfit):
        parse(SPEC, brace * 300_000, mode)
    assert time.process_time() - began < 2  # more than half a minute where each brace was tried


def test_an_answer_among_too_many_objects_is_not_looked_for() -> None:
    assert parse(SPEC, "so: " + "{} " * 255 + GOOD, "json") == VALUES
    with pytest.raises(Misfit, match="more than 256 JSON objects"):
        parse(SPEC, "so: " + "{} " * 256 + GOOD, "json")
