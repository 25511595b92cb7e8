from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kaizen.core.errors import ConfigError, DefinitionError, NotFound
from kaizen.serve.load import load_program, place_in
from tests.unit.serve.conftest import Project, forget

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


# -- what a module is called -------------------------------------------------------------------------

ONE = "from kaizen import signature\nOne = signature('q -> a', name='One')\n"


def test_files_of_one_name_in_two_folders_are_two_programs(project: Project) -> None:
    for folder in ("a", "b"):
        (project.folder / folder).mkdir()
        project.write(f"{folder}/ask.py", ONE)
    first, second = load_program("a/ask.py:One"), load_program("b/ask.py:One")
    assert (first.spec.name, second.spec.name) == ("a.ask.One", "b.ask.One")
    # wherever one stands below the project's root, and however the file is written
    project.write("kaizen.toml", "")
    assert load_program(str(project.folder / "a" / "ask.py")).spec.name == "a.ask.One"


def test_the_name_does_not_depend_on_where_in_the_project_one_stands(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("kaizen.toml", "")
    (project.folder / "a").mkdir()
    project.write("a/ask.py", ONE)
    monkeypatch.chdir(project.folder / "a")
    assert load_program("ask.py:One").spec.name == "a.ask.One"


def test_a_leading_src_is_no_part_of_a_name_and_a_file_elsewhere_is_called_by_its_own(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (project.folder / "src" / "bank").mkdir(parents=True)
    project.write("src/bank/ask.py", ONE)
    assert load_program("src/bank/ask.py:One").spec.name == "bank.ask.One"
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "far_away.py"
    elsewhere.write_text(ONE, "utf-8")
    assert load_program(f"{elsewhere}:One").spec.name == "far_away.One"
    forget(elsewhere.parent)


def test_a_file_of_a_package_is_called_as_the_package_has_it(project: Project) -> None:
    (project.folder / "lib" / "shop" / "desk").mkdir(parents=True)
    project.write("lib/shop/__init__.py", ONE)
    project.write("lib/shop/desk/__init__.py", "")
    project.write("lib/shop/desk/words.py", "WORD = 'x'\n")
    project.write("lib/shop/desk/ask.py", f"from .words import WORD\nfrom shop.desk import words\n{ONE}")
    assert load_program("lib/shop/desk/ask.py:One").spec.name == "shop.desk.ask.One"
    assert sys.path[0] == str(project.folder / "lib")
    assert load_program("lib/shop/__init__.py:One").spec.name == "shop.One"


def test_a_neighbour_imports_the_same_module(project: Project) -> None:
    (project.folder / "a").mkdir()
    project.write("a/ask.py", f"{ONE}import nearby\nassert nearby.ask.One is One\n")
    project.write("a/nearby.py", "import ask\n")
    assert load_program("a/ask.py:One").spec.name == "a.ask.One"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["sub/ask.py"], "sub.ask.One"),
        (["-m", "sub.ask"], "sub.ask.One"),
        (["-c", ONE + "print(One.spec.name)"], "__main__.One"),
    ],
)
def test_a_script_is_called_as_a_command_calls_it(project: Project, command: list[str], name: str) -> None:
    (project.folder / "sub").mkdir()
    function = "from kaizen import program\n@program\nasync def double(n: int) -> int:\n    return 2 * n\n"
    project.write("sub/ask.py", f"{ONE}{function}print(One.spec.name)\nassert double.spec.name == 'sub.ask.double'\n")
    done = subprocess.run([sys.executable, *command], cwd=project.folder, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == (f"{name}\n", "")
