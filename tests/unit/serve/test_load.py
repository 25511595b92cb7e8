from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kaizen.core.errors import ConfigError, DefinitionError, NotFound
from kaizen.serve.load import load_program, place_in
from tests.unit.serve.conftest import Project

TWO = "from triage import Triage\nfrom kaizen import signature\nAsk = signature('q -> a', name='Ask')\n"
TWO += "Say = signature('q -> b', name='Say')\n_Hidden = signature('q -> c', name='_Hidden')\n"


def test_a_program_by_its_name(project: Project) -> None:
    assert load_program("triage.py:Triage").spec.name == "triage.Triage"
    assert sys.path[0] == str(project.folder)


def test_a_file_with_one_program_needs_no_name(project: Project) -> None:
    project.write("again.py", "from kaizen import signature\nA = B = signature('q -> a', name='A')\n")
    assert load_program("again.py").spec.name == "again.A"


def test_of_several_one_has_to_be_named(project: Project) -> None:
    project.write("two.py", TWO)
    with pytest.raises(ConfigError, match=r"two\.py defines several programs; choose one: two\.py:Ask, two\.py:Say$"):
        load_program("two.py")


def test_imported_programs_can_be_named_too(project: Project) -> None:
    project.write("two.py", TWO)
    assert load_program("two.py:Triage").spec.name == "triage.Triage"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("triage.py:Triag", "triage.py has no program Triag; did you mean Triage?"),
        ("triage.py:xyz", "triage.py has no program xyz; choose one: triage.py:Triage"),
        ("triage.py:Literal", "triage.py has no program Literal; choose one: triage.py:Triage"),
        ("none.py:A", "none.py has no program A; it defines none"),
        ("none.py", "none.py defines no program"),
        ("gone.py:A", "there is no file gone.py"),
    ],
)
def test_what_is_not_there(project: Project, target: str, said: str) -> None:
    project.write("none.py", "")
    with pytest.raises(NotFound) as caught:
        load_program(target)
    assert str(caught.value) == said


@pytest.mark.parametrize("name", ["json.py", "pytest.py"])
def test_a_file_must_not_hide_a_module(project: Project, name: str) -> None:
    project.write(name, "")
    with pytest.raises(ConfigError, match="rename the file"):
        load_program(name)


def test_a_name_that_is_no_python_file(project: Project) -> None:
    project.write("rows.csv", "")
    with pytest.raises(ConfigError, match=r"a program is named as FILE\.py:Name"):
        load_program("rows.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n\nx.y\n", "line 3: AttributeError: 'int' object has no attribute 'y'"),
        ("x = 1\nif x\n", "line 2: SyntaxError: expected ':'"),
        ("raise ValueError\n", "line 1: ValueError: "),
    ],
)
def test_a_file_that_fails_says_where(project: Project, text: str, said: str) -> None:
    project.write("fails.py", text)
    with pytest.raises(DefinitionError) as caught:
        load_program("fails.py")
    assert caught.value.mistakes[0].startswith(said)


def test_a_definition_error_stays_what_it_is(project: Project) -> None:
    project.write("wrong.py", "from kaizen import signature\nA = signature('-> ')\n")
    with pytest.raises(DefinitionError) as caught:
        load_program("wrong.py")
    assert caught.value.where.startswith("wrong.")


def test_an_error_from_elsewhere_has_no_place() -> None:
    assert place_in(Path("x.py"), ValueError()) == ""
