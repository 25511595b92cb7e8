"""Params as files and artifacts."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen import Signature, context
from kaizen.core.artifact import Artifact
from kaizen.core.errors import Conflict, InvalidInput
from kaizen.core.params import NOTHING, Demo, Params
from kaizen.core.request import Options
from kaizen.registry.params import (
    EMPTY,
    load,
    params_artifact,
    params_of,
    read_file,
    readable,
    save,
    shadowed,
    stated,
    to_json_text,
    to_toml,
)
from kaizen.registry.toml import NotWritable

FULL = Params(
    instructions='Name the "team".\n\n"""Only""" that\\ \x7f\t—\r\nand end"',
    demos=(Demo({"message": "a\nb", "tags": ["x", {"y é": 1.5}]}, {"team": "cards", "sure": True}), Demo({}, {})),
    model="mine/large",
    temperature=0.0,
    max_tokens=7,
    stop=("\n\n", "END"),
    output_mode="json",
    options=Options(exact=True, tags=("a", "b"), cost_budget_usd=0.25),
    contract="c" * 32,
)


class Triage(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: str = context.output("the team")


@pytest.mark.parametrize("params", [NOTHING, FULL])
def test_params_come_back_from_each_form(params: Params) -> None:
    for text in (save(params), save(params).decode(), to_toml(params), to_json_text(params)):
        assert load(text) == params
    assert save(load(save(params))) == save(params)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@given(words, st.lists(st.tuples(st.dictionaries(words, values, max_size=3), words), max_size=3), st.lists(words))
def test_whatever_a_demo_holds_comes_back(text: str, demos: list[tuple[dict[str, Any], str]], stop: list[str]) -> None:
    params = Params(
        instructions=text, demos=tuple(Demo(inputs, {"out": out}) for inputs, out in demos), stop=tuple(stop)
    )
    assert load(save(params)) == params
    shown, suffix = readable(params, program="a.B", comment=["by hand"])
    assert read_file(shown).params == params
    assert read_file(shown).program == "a.B"
    assert suffix == (".json" if "null" in json.dumps(stated(params), default=str) and shown[0] == "{" else ".toml")


def test_what_is_open_is_left_out_so_that_a_new_field_changes_no_address() -> None:
    assert EMPTY == b"{}"
    assert save(Params(temperature=0.0)) == b'{"temperature":0.0}'
    assert list(json.loads(save(FULL))) == sorted(json.loads(save(FULL)))
    assert json.loads(save(Params(options=Options(exact=False)))) == {"options": {"exact": False}}


def test_a_readable_file_reads_as_people_write() -> None:
    text = to_toml(FULL, program="bank.Triage", comment=["params/bank.Triage version 3", "by ada"])
    lines = text.splitlines()
    assert lines[:3] == ["# params/bank.Triage version 3", "# by ada", 'program = "bank.Triage"']
    assert lines.count("[[demos]]") == 2
    assert 'Name the "team".' in lines  # not escaped, on a line of its own
    assert tomllib.loads(text)["stop"] == ["\n\n", "END"]
    assert 'stop = [\n    "' in to_toml(Params(stop=("x" * 60, "y" * 60)))


def test_a_comment_stays_one() -> None:
    text = to_toml(FULL, comment=["why\ntemperature = 9", "\x1b[2J\x9b"])
    assert load(text) == FULL
    assert text.splitlines()[:2] == ["# why\\ntemperature = 9", "# \\x1b[2J\\x9b"]


def test_toml_has_no_null_and_json_no_comment() -> None:
    params = Params(demos=(Demo({"a": None}, {}),))
    with pytest.raises(NotWritable):
        to_toml(params)
    assert readable(params, comment=["gone"])[1] == ".json"
    assert load(readable(params, comment=["gone"])[0]) == params


class Team(Enum):
    CARDS = "cards"


@pytest.mark.parametrize("wrong", [{"votes": 65}, {"votes": 0}, {"repairs": 17}, {"nearest": -1}, {"shown": -1}])
def test_a_version_cannot_make_an_answer_cost_thousands_of_calls(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=f"the params: {next(iter(wrong))} = -?[0-9]+ should be from"):
        load(json.dumps(wrong).encode())


def test_a_demo_is_kept_as_the_json_that_models_see() -> None:
    kept = load(save(Params(demos=(Demo({"pair": (1, 2)}, {"team": Team.CARDS}),))))
    assert kept.demos == (Demo({"pair": [1, 2]}, {"team": "cards"}),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temprature = 1", "'temprature' is none of them; did you mean 'temperature'?"),
        ("qqq = 1", "'qqq' is none of them; there are instructions, demos"),
        ('temperature = "warm"', "temperature = 'warm': Input should be a valid number"),
        ("temperature = inf", "temperature = inf: Input should be a finite number"),
        ("[options]\nexat = true", "options.exat = True: Unexpected keyword argument"),
        ("[[demos]]\ninputs = {}\noutputs = {}\nx = 1", "demos.0.x = 1"),
        ('output_mode = "xml"', "output_mode = 'xml'"),
        ("program = 1", "'program' should be the name of a program"),
        ("a", "the params are no TOML"),
        ('{"a":', "the params are no JSON"),
        (b"\xff", "the params are no text in UTF-8: byte 0"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(text: str | bytes, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "params",
    [
        Params(temperature=float("inf")),
        Params(temperature="x"),  # type: ignore[arg-type]  # a caller's mistake
        Params(demos=(Demo({"a": object()}, {}),)),
        Params(instructions="\ud800"),
    ],
)
def test_what_no_file_can_hold_is_refused(params: Params) -> None:
    with pytest.raises(InvalidInput):
        save(params)


def test_an_artifact_carries_the_contract_and_refuses_another() -> None:
    one = params_artifact(Triage.spec, Params(temperature=0.5), ["dataset/mail@1"])
    assert (one.kind, one.name, one.parents) == ("params", Triage.spec.name, ("dataset/mail@1",))
    assert params_of(one) == Params(temperature=0.5, contract=Triage.spec.contract)
    assert params_artifact(Triage.spec, params_of(one)).version == one.version
    with pytest.raises(Conflict, match=r"another contract .*: change them to fit its fields"):
        params_artifact(Triage.spec, Params(contract="x" * 32))
    with pytest.raises(InvalidInput, match="holds no params"):
        params_of(Artifact("dataset", "x", b"{}"))


def test_what_a_program_states_itself_no_release_changes() -> None:
    own = Params(temperature=0.0, instructions="mine", model="p/m")
    learned = replace(own, instructions="learned", max_tokens=5, contract="x")
    assert shadowed(own, learned) == ("instructions",)
    assert shadowed(NOTHING, learned) == ()
