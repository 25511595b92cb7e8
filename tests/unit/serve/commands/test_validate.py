from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from kaizen.core.errors import ConfigError, NotFound
from kaizen.serve.commands.validate import check_file
from tests.unit.serve.conftest import Project

BROKEN = '''\
from __future__ import annotations

from kaizen import Signature, context, program, signature, tool


class First(Signature):
    """No output, and two wrong fields."""

    one = context.input("no type")
    two: Nowhere = context.input("unknown type")


class Second(First):
    """Only wrong because First is."""


class Third(Signature):
    """Names First, which failed, and has a mistake of its own."""

    first: First = context.input()
    execute: str = context.input("a reserved name")
    answer: str = context.output()


@program
async def act(x, y: int) -> int:
    return y


@tool
def silent(x: int) -> int:
    return x


Short = signature("question -> ")
uses = Second


class Fine(Signature):
    """All is well."""

    question: str = context.input()
    answer: str = context.output()


1 / 0
'''


def lines_of(text: str, *patterns: str) -> list[int]:
    return [n for pattern in patterns for n, line in enumerate(text.splitlines(), 1) if re.search(pattern, line)]


def test_every_mistake_is_found_with_its_line(project: Project) -> None:
    project.write("broken.py", BROKEN)
    assert project.kaizen("validate", "broken.py") == 1
    found = [re.match(r"broken\.py:(\d+): (.+)", line) for line in project.stdout.splitlines()]
    assert all(found)
    shown = [(int(m[1]), m[2]) for m in found if m]
    assert [line for line, _ in shown] == lines_of(
        BROKEN, "^class First", "one = ", "two: ", "execute: ", r"async def act", "^def silent", "^Short", "1 / 0"
    )
    assert [text.split(":")[0] for _, text in shown][:6] == ["First", "First", "First", "Third", "act", "silent"]
    assert shown[-1][1] == "ZeroDivisionError: division by zero"
    assert "Second" not in project.stdout
    assert "refers to 'First'" not in project.stdout
    assert project.stderr == "broken.py: 8 mistakes; programs: Fine\n"


def test_the_same_for_a_script(project: Project) -> None:
    project.write("broken.py", BROKEN)
    assert project.kaizen("validate", "broken.py", "--json") == 1
    assert project.json["programs"] == ["Fine"]
    assert len(project.json["findings"]) == 8
    assert project.json["findings"][1]["file"] == "broken.py"
    assert project.json["findings"][1]["line"] == 9
    assert "field 'one' has no type" in project.json["findings"][1]["message"]
    assert project.stderr == ""


def test_a_sound_file(project: Project) -> None:
    assert project.kaizen("validate", "triage.py") == 0
    assert project.stdout == ""
    assert project.stderr == "triage.py: no mistakes; programs: Triage\n"


def test_a_file_without_programs(project: Project) -> None:
    project.write("empty.py", "x = 1\n")
    assert project.kaizen("validate", "empty.py") == 0
    assert project.stderr == "empty.py: no mistakes; programs: none\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1\nclass A(:\n", 2, "syntax error: invalid syntax"),
        ("x = '\0'\n", 1, "syntax error: source code string cannot contain null bytes"),
    ],
)
def test_a_syntax_error_is_a_finding(project: Project, text: str, line: int, message: str) -> None:
    path = project.write("wrong.py", text)
    (finding,) = check_file(path).findings
    assert (finding.line, finding.message) == (line, message)


def test_text_that_is_not_utf_8_is_a_finding(project: Project) -> None:
    path = project.folder / "latin.py"
    path.write_bytes(b"x = '\xe9'\n")
    (finding,) = check_file(path).findings
    assert finding.line == 1
    assert "encoding" in finding.message


def test_what_an_import_brings_is_not_reported_again(project: Project) -> None:
    path = project.write(
        "lost.py",
        textwrap.dedent("""\
            import nowhere_at_all as other
            from nowhere_at_all import thing

            used = thing + other.x
            for left, right in used:
                pass
            print(left)
            """),
    )
    assert [(finding.line, finding.message) for finding in check_file(path).findings] == [
        (1, "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        (2, "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ]


def test_mistakes_of_another_file_stand_where_it_is_imported(project: Project) -> None:
    project.write("parts.py", "from kaizen import Signature, context\nclass Part(Signature):\n    x: int\n")
    path = project.write("whole.py", "import sys\n\nimport parts\n")
    findings = check_file(path).findings
    assert {finding.line for finding in findings} == {3}
    assert any("Part: field 'x' has no role" in finding.message for finding in findings)


def test_an_error_of_ours_that_is_no_definition(project: Project) -> None:
    path = project.write("conf.py", "import kaizen\n\nkaizen.configure(modle='x/y')\n")
    (finding,) = check_file(path).findings
    assert finding.line == 3
    assert "did you mean model?" in finding.message


def test_what_is_no_python_file(project: Project) -> None:
    with pytest.raises(NotFound, match=r"there is no file gone\.py"):
        check_file(Path("gone.py"))
    project.write("text.txt", "")
    with pytest.raises(ConfigError, match=r"is no Python file"):
        check_file(Path("text.txt"))
