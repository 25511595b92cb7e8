from __future__ import annotations

import sys

import pytest

from kaizen.core.errors import Unavailable
from kaizen.core.request import Reply, Usage
from kaizen.serve.doors import ModelInfo
from tests.unit.serve.conftest import Project, Terminal

MODELS = (
    ModelInfo(
        ref="mine/large",
        kind="openai",
        default=True,
        ready=False,
        note="no key: the variable MINE_API_KEY is not set",
        output_mode="schema",
        input_usd_per_mtok=2.5,
        output_usd_per_mtok=10.0,
    ),
    ModelInfo(ref="ollama/...", kind="openai", default=False, ready=True, note="without a key"),
)


def test_the_list_says_what_is_missing(project: Project) -> None:
    project.models = MODELS
    assert project.kaizen("models", "list") == 0
    head, mine, ollama = project.stdout.splitlines()
    assert head.split() == ["model", "kind", "default", "ready", "output", "$/M", "in", "$/M", "out", "note"]
    assert mine.split()[:7] == ["mine/large", "openai", "yes", "no", "schema", "2.5", "10"]
    assert mine.endswith("no key: the variable MINE_API_KEY is not set")
    assert ollama.split()[:6] == ["ollama/...", "openai", "yes", "-", "?", "?"]


def test_the_list_for_a_script(project: Project) -> None:
    project.models = MODELS
    assert project.kaizen("models", "list", "--json") == 0
    assert [model["ref"] for model in project.json] == ["mine/large", "ollama/..."]
    assert project.json[0]["input_usd_per_mtok"] == 2.5


def test_pulling_tells_its_steps_and_prints_the_path(project: Project) -> None:
    for ref in ("embedded/small", "small"):
        assert project.kaizen("models", "pull", ref) == 0
        assert project.stdout == f"{project.folder / 'small.gguf'}\n"
        assert project.stderr == "getting small\n"


def test_pulling_on_a_terminal_shows_a_bar(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    assert project.kaizen("models", "pull", "small") == 0
    assert "getting small" in err.getvalue()
    assert "━" in err.getvalue()


def test_only_embedded_models_are_pulled(project: Project) -> None:
    assert project.kaizen("models", "pull", "openai/gpt-4o") == 6
    assert project.stderr.startswith("error: openai/gpt-4o is no embedded model")


def test_a_model_is_tried_and_the_call_is_on_record(project: Project) -> None:
    project.answers(
        [Reply(model="scripted/m", text='{"answer": "yes"}', cost_usd=0.5, usage=Usage(7, 2)), Unavailable("away")]
    )
    assert project.kaizen("models", "test", "scripted/m") == 0
    assert project.stdout.splitlines()[1].split()[:2] == ["scripted/m", "yes"]
    assert project.stdout.splitlines()[1].split()[-3:] == ["7+2", "$0.5", "'yes'"]
    assert project.provider.requests[0].model == "scripted/m"
    assert project.kaizen("models", "test", "scripted/m", "--json") == 1
    (tried,) = project.json
    assert (tried["answered"], tried["said"], tried["record"]["error_code"]) == (False, "away", "unavailable")
    assert project.kaizen("costs", "--json") == 0
    assert [(cost["calls"], cost["cost_usd"]) for cost in project.json] == [(2, 0.5)]


def test_without_a_name_the_default_model_is_tried(project: Project) -> None:
    project.models = [ModelInfo(ref="scripted/m", kind="custom", default=True, ready=True, note="")]
    project.answers(["no json"] * 2)
    assert project.kaizen("models", "test", "--json") == 0
    (tried,) = project.json
    assert (tried["model"], tried["answered"]) == ("scripted/m", True)
    assert "does not fit" in tried["said"]
