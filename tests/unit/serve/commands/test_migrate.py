"""``kaizen import litellm`` prints settings, or writes them where nothing is yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.serve.conftest import Project

CONFIG = "model_list:\n- model_name: gpt\n  litellm_params: {model: openai/gpt-4o, rpm: 3}\n"
TEXT = '# Made from a LiteLLM configuration by `kaizen import litellm`.\n\n[aliases]\ngpt = "openai/gpt-4o"\n'


def test_settings_are_printed_and_notes_are_told(project: Project) -> None:
    file = str(project.write("config.yaml", CONFIG))
    assert project.kaizen("import", "litellm", file) == 0
    assert project.stdout == TEXT
    assert project.stderr.startswith("note: gpt: rpm: limits stand with keys")
    assert project.kaizen("import", "litellm", file, "--json") == 0
    assert project.json["settings"] == TEXT
    assert len(project.json["notes"]) == 1


def test_a_file_is_written_once(project: Project) -> None:
    file, out = str(project.write("config.yaml", CONFIG)), project.folder / "kaizen.toml"
    assert project.kaizen("import", "litellm", file, "--output", str(out)) == 0
    assert (project.stdout, out.read_text()) == ("", TEXT)
    assert project.kaizen("import", "litellm", file, "--output", str(out)) == 7
    assert "nothing is overwritten" in project.stderr
    assert project.kaizen("import", "litellm", file, "--output", str(project.folder / "no" / "x")) == 10


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("a: [", 3, "config.yaml:1: is no YAML that can be read"),
        ("a: sk-secret: b", 3, "is no YAML"),
        ("- a", 3, "the file should be a mapping"),
        ("!!python/object:os.system x", 3, "is no YAML"),
        ("x" * (4 * 1024 * 1024 + 1), 3, "has more than 4194304 bytes"),
    ],
)
def test_a_wrong_file_is_an_error_of_one_line_without_its_contents(
    project: Project, text: str, code: int, says: str
) -> None:
    assert project.kaizen("import", "litellm", str(project.write("config.yaml", text))) == code
    assert says in project.stderr
    assert project.stderr.count("\n") == 1
    assert "sk-secret" not in project.stderr


def test_a_missing_file(project: Project) -> None:
    assert project.kaizen("import", "litellm", str(Path("nowhere.yaml"))) == 6
