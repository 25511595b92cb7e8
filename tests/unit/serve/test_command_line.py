from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from kaizen.serve.command_line import COMMANDS
from tests.unit.serve.conftest import Project


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"], ["--debug", "--help"]])
def test_the_overview_names_every_command(project: Project, argv: list[str]) -> None:
    assert project.kaizen(*argv) == 0
    assert all(re.search(rf"^  {name} ", project.stdout, re.MULTILINE) for name in COMMANDS)


def test_no_command_is_wrong_usage_and_shows_the_overview(project: Project) -> None:
    assert project.kaizen() == 2
    assert project.stdout == ""
    assert "commands:" in project.stderr


def test_the_version(project: Project) -> None:
    assert project.kaizen("--version") == 0
    assert project.stdout == f"kaizen {version('kaizen-engine')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(project: Project, name: str) -> None:
    assert project.kaizen(*name.split(), "--help") == 0
    usage, _, examples = project.stdout.partition("examples:\n")
    assert usage.startswith(f"usage: kaizen {name} ")
    assert f"  kaizen {name}" in examples
    assert project.stderr == ""


def test_the_help_of_a_group(project: Project) -> None:
    assert project.kaizen("runs", "--help") == 0
    assert "runs stats" in project.stdout
    assert "validate" not in project.stdout
    assert project.kaizen("runs") == 2
    assert "runs stats" in project.stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["runz"], "error: 'runz' is no command of kaizen; did you mean run?; see kaizen --help"),
        (["valdate", "x.py"], "error: 'valdate' is no command of kaizen; did you mean validate?; see kaizen --help"),
        (["runs", "lst"], "error: 'runs lst' is no command of kaizen; did you mean runs list?; see kaizen --help"),
        (["--versoin"], "error: '--versoin' is no flag of kaizen; did you mean --version?; see kaizen --help"),
        (["xyzzy"], "error: 'xyzzy' is no command of kaizen; see kaizen --help"),
        (
            ["runs", "list", "--limt", "3"],
            "error: --limt is no flag of kaizen runs list; did you mean --limit?; see kaizen runs list --help",
        ),
        (
            ["runs", "list", "--limit", "0"],
            "error: argument --limit: should be a whole number above 0, not '0'; see kaizen runs list --help",
        ),
        (
            ["runs", "list", "--limit", "many"],
            "error: argument --limit: should be a whole number above 0, not 'many'; see kaizen runs list --help",
        ),
        (["validate"], "error: the following arguments are required: FILE; see kaizen validate --help"),
        (
            ["runs", "list", "--since", "3x"],
            "error: argument --since: '3x' is no time: write 30m, 2h, 7d or 2031-05-28T14:30; "
            "see kaizen runs list --help",
        ),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_nearest(project: Project, argv: list[str], said: str) -> None:
    assert project.kaizen(*argv) == 2
    assert project.stderr == f"{said}\n"
    assert project.stdout == ""


def test_a_foreign_exception_is_one_line_and_its_traceback_shows_with_debug(project: Project) -> None:
    project.write(
        "odd.py", "from kaizen import tool\n@tool\ndef odd(x: int) -> int:\n    'Fails.'\n    return 1 // x\n"
    )
    assert project.kaizen("run", "odd.py:odd", "--x", "0") == 70
    assert project.stderr == (
        "error: ZeroDivisionError: integer division or modulo by zero (--debug shows the traceback)\n"
    )
    assert project.kaizen("run", "odd.py:odd", "--x", "0", "--debug") == 70
    assert "return 1 // x" in project.stderr
    assert project.stderr.endswith("error: ZeroDivisionError: integer division or modulo by zero\n")


def test_ctrl_c_is_no_traceback(project: Project) -> None:
    project.write("stop.py", "raise KeyboardInterrupt")
    assert project.kaizen("run", "stop.py") == 130
    assert project.stderr == "interrupted\n"


@pytest.mark.parametrize(("code", "expected"), [("0", 0), ("3", 3), ("'bye'", 70)])
def test_a_file_that_exits_decides_the_code(project: Project, code: str, expected: int) -> None:
    project.write("leave.py", f"import sys\nsys.exit({code})")
    assert project.kaizen("run", "leave.py") == expected
