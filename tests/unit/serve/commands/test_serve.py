"""What the words after ``kaizen serve`` mean; tests/e2e/gateway starts it."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from kaizen.serve import command_line
from kaizen.serve.commands import serve
from kaizen.serve.doors import Doors, Serving


def run(*words: str) -> tuple[int, list[Serving]]:
    asked: list[Serving] = []

    def door(serving: Serving) -> int:
        asked.append(serving)
        return 0

    def none() -> list[object]:
        raise AssertionError("not asked for")

    doors = Doors(none, none, none, serve=door)  # type: ignore[arg-type] - none of them is called
    return command_line.main(["serve", *words], doors), asked


def test_nothing_said_is_as_the_settings_have_it() -> None:
    assert run() == (0, [Serving()])


def test_every_word_is_passed_on() -> None:
    words = ("--config", "a.toml", "--host", "0.0.0.0", "--port", "0", "--workers", "3")  # noqa: S104 - what is tested
    assert run(*words) == (0, [Serving(Path("a.toml"), "0.0.0.0", 0, 3)])  # noqa: S104 - what is tested


def test_programs_are_named_one_by_one() -> None:
    words = ("--program", "triage.py:Triage", "--program", "b.py")
    assert run(*words) == (0, [Serving(programs=("triage.py:Triage", "b.py"))])


@pytest.mark.parametrize("words", [("--port", "x"), ("--port", "70000"), ("--workers", "0"), ("--prot", "1")])
def test_a_wrong_word_is_told(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == (2, [])
    assert capsys.readouterr().err.startswith("error: ")


def test_a_port_is_a_number() -> None:
    with pytest.raises(ArgumentTypeError, match="0 to 65535"):
        serve._port("-1")
