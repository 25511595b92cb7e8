from __future__ import annotations

import datetime
import enum
import io
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from kaizen import Signature, context
from kaizen.core.errors import ConfigError, InvalidInput
from kaizen.serve.inputs import TextReader, given_inputs, inputs_help
from tests.unit.serve.conftest import Project


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Address(BaseModel):
    street: str


class Every(Signature):
    """All kinds of inputs."""

    text: str = context.input("some text")
    maybe: str | None = context.input(default=None)
    choice: Literal["a", "b"] = context.input(default="a")
    single: Literal["only"] = context.input(default="only")
    number_choice: Literal[1, 2] = context.input(default=1)
    colour: Colour = context.input(default=Colour.RED)
    level: Level = context.input(default=Level.LOW)
    day: datetime.date | None = context.input(default=None)
    number: int = context.input("a count", default=0)
    flag: bool = context.input(default=False)
    tags: list[str] = context.input(default=[])
    address: Address | None = context.input(default=None)
    both: int | str = context.input(default=0)
    anything: Any = context.input(default=None)
    answer: str = context.output()


READER = TextReader(Every.spec)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "12", "12"),
        ("text", '"quoted"', '"quoted"'),
        ("text", "", ""),
        ("maybe", "null", "null"),
        ("choice", "b", "b"),
        ("single", "only", "only"),
        ("number_choice", "2", 2),
        ("colour", "red", "red"),
        ("level", "1", 1),
        ("day", "2031-05-28", "2031-05-28"),
        ("number", "-5", -5),
        ("flag", "true", True),
        ("tags", '["a", "b"]', ["a", "b"]),
        ("address", '{"street": "x"}', {"street": "x"}),
        ("address", "null", None),
        ("both", "5", 5),
        ("both", "five", "five"),
        ("anything", "[1]", [1]),
        ("anything", "plain", "plain"),
        ("unknown", "5", "5"),
    ],
)
def test_text_becomes_a_value(name: str, text: str, value: object) -> None:
    assert READER.value(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("number", "five", "input 'number' should be JSON (integer), not 'five'"),
        ("number", "\udcff", "input 'number' should be JSON (integer), not '\\udcff'"),
        ("number", "NaN", "input 'number' should be JSON (integer), not 'NaN'"),
        ("tags", "a, b", "input 'tags' should be JSON (array), not 'a, b'"),
        ("address", "x", "input 'address' should be JSON (null or object), not 'x'"),
        ("number", "x" * 200, "input 'number' should be JSON (integer), not '" + "x" * 78 + "…"),
    ],
)
def test_what_is_no_json_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        READER.value(name, text)
    assert str(caught.value) == said


def test_flags_and_settings_become_inputs(project: Project) -> None:
    project.write("long.txt", "from a file")
    flags = [("--number-choice", "2"), ("--number", "-5"), ("--tags", '["@x"]')]
    assert given_inputs(READER, flags, ["text=@long.txt", "maybe=@@home"], ()) == {
        "number_choice": 2,
        "number": -5,
        "tags": ["@x"],
        "text": "from a file",
        "maybe": "@home",
    }


def test_text_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("piped"))
    assert given_inputs(READER, [("--text", "@-")], (), ()) == {"text": "piped"}


@pytest.mark.parametrize(
    ("flags", "settings", "said"),
    [
        ([("--txet", "x")], [], "--txet is no input of test_inputs.Every and no flag; did you mean --text?"),
        ([("--recrd", "x")], [], "--recrd is no input of test_inputs.Every and no flag; did you mean --record?"),
        ([("--text", None)], [], "--text needs a value"),
        ([("--text", "x"), ("--text", "y")], [], "--text is given twice"),
        ([("--text", "x")], ["text=y"], "--set text is given twice"),
        ([], ["text"], "--set text needs a value"),
        ([], ["txt=x"], "--set txt is no input of test_inputs.Every and no flag; did you mean text?"),
    ],
)
def test_wrong_flags(flags: list[tuple[str, str | None]], settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given_inputs(READER, flags, settings, ("--record", "--model"))
    assert str(caught.value).replace(Every.__module__, "test_inputs") == said


def test_a_flag_that_is_like_nothing_lists_the_inputs() -> None:
    with pytest.raises(ConfigError, match="no flag; inputs: text, maybe, "):
        given_inputs(READER, [("--zzzzzz", "x")], (), ())


@pytest.mark.parametrize(("value", "why"), [("@gone.txt", "No such file"), ("@bad.txt", "is not UTF-8 text")])
def test_a_file_that_can_not_be_read(project: Project, value: str, why: str) -> None:
    (project.folder / "bad.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidInput, match=f"can't read {value[1:]}: {why}.* begins with @"):
        given_inputs(READER, [("--text", value)], (), ())


def test_the_help_has_a_line_for_each_input() -> None:
    lines = inputs_help(Every.spec).splitlines()
    assert lines[1:3] == ["  --text TEXT  some text", "  --maybe TEXT  (optional)"]
    assert "  --number INTEGER  a count (optional)" in lines
    assert "  --both INTEGER|TEXT  (optional)" in lines
    assert "  --number-choice INTEGER  (optional)" in lines
    assert "  --anything JSON  (optional)" in lines
    assert len(lines) == 1 + len(Every.spec.inputs)
