from __future__ import annotations

from pathlib import Path

import pytest

from kaizen.serve.commands.init import FILES
from kaizen.settings import load_settings
from tests.unit.serve.conftest import ANSWER, Project


def test_what_it_makes_runs_at_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.kaizen("init", "my-project") == 0
    assert "cd my-project" in project.stdout
    monkeypatch.chdir("my-project")
    assert project.kaizen("validate", "triage.py") == 0
    assert project.kaizen("run", "triage.py:Triage", "--message", "Someone stole my card") == 0
    assert project.stdout.strip() == ANSWER.replace(" ", "")
    assert project.kaizen("run", "triage.py:Triage", "--input", "rows.csv", "--output", "out.jsonl") == 0
    assert len(project.lines("my-project/out.jsonl")) == 5
    assert "# my-project" in Path("README.md").read_text()


def test_its_settings_are_valid_with_every_line_in_use(project: Project) -> None:
    assert project.kaizen("init", "p") == 0
    file = project.folder / "p" / "kaizen.toml"
    assert load_settings(file.parent, {}, {}).model == "embedded/smollm2-135m"
    head, mark, rest = file.read_text().partition("# home")
    file.write_text(head + "\n".join(line.removeprefix("# ") for line in (mark + rest).splitlines()))
    settings = load_settings(file.parent, {}, {})
    assert settings.providers["mine"].kind == "openai"
    assert settings.defaults.max_tokens == 500


def test_this_folder_can_become_the_project(project: Project) -> None:
    (project.folder / "triage.py").unlink()
    assert project.kaizen("init", ".") == 0
    assert all((project.folder / name).is_file() for name in FILES)
    assert "cd " not in project.stdout


def test_nothing_is_overwritten(project: Project) -> None:
    assert project.kaizen("init", ".") == 7
    assert project.stderr == "error: triage.py is there already, and nothing is overwritten\n"
    assert not (project.folder / "kaizen.toml").exists()
    project.write("file", "")
    assert project.kaizen("init", "file") == 7


def test_a_folder_that_can_not_be_made(project: Project) -> None:
    project.write("file", "")
    assert project.kaizen("init", "file/below") == 10
    assert project.stderr == "error: can't write to file/below: Not a directory\n"
