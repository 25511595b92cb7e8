"""``kaizen costs`` and ``kaizen costs advise`` say what was spent, saved, and could have been."""

from __future__ import annotations

import pytest

from kaizen.core.request import Reply, Stage, Usage
from kaizen.ledger.costs import Cost
from kaizen.serve.commands.costs import plot
from kaizen.serve.doors import ModelInfo
from tests.unit.serve.conftest import ANSWER, TRIAGE, Project


def spend(project: Project) -> None:
    """Three calls, two of them the same, one answered by a cache."""
    usage = Usage(tokens_in=100, tokens_out=10)
    paid = Reply(model="scripted/m", text=ANSWER, usage=usage, cost_usd=0.5)
    kept = Reply(
        model="scripted/m", text=ANSWER, usage=usage, cost_usd=0.0, tier="exact", attempts=0,
        stages=(Stage("exact", 0.1, 0.5),),
    )  # fmt: skip
    project.answers([paid, paid, kept])
    for message in ("x", "x", "y"):
        assert project.kaizen("run", "triage.py:Triage", "--message", message) == 0


def test_costs_are_shown_with_their_sum_and_a_plot(project: Project) -> None:
    spend(project)
    assert project.kaizen("costs", "--plot") == 0
    heading, model, whole, *drawn = project.stdout.splitlines()
    assert heading.split() == ["model", "calls", "from", "cache", "tokens", "in", "tokens", "out", "cost", "saved"]
    assert model.split() == ["scripted/m", "3", "1", "200", "20", "$1", "$0.5"]
    assert whole.split() == ["all", *model.split()[1:]]
    assert any("█" in line for line in drawn)


def test_costs_by_tier_for_a_script(project: Project) -> None:
    spend(project)
    assert project.kaizen("costs", "--by", "tier", "--json") == 0
    found = {cost["group"]: (cost["calls"], cost["cost_usd"], cost["saved_usd"]) for cost in project.json}
    assert found == {"model": (2, 1.0, 0.0), "exact": (1, 0.0, 0.5)}


def test_what_one_program_spent_is_the_cost_of_the_calls_it_made(project: Project) -> None:
    project.write("triage.py", f"{TRIAGE}\n\nclass Other(Triage):\n    pass\n")
    spend(project)
    project.answers([Reply(model="scripted/m", text=ANSWER, usage=Usage(tokens_in=7), cost_usd=8.0)])
    assert project.kaizen("run", "triage.py:Other", "--message", "x") == 0
    assert project.kaizen("costs", "--program", "Triage", "--json") == 0
    assert [(cost["calls"], cost["cost_usd"]) for cost in project.json] == [(3, 1.0)]
    assert project.kaizen("costs", "--program", "triage.Other", "--json") == 0
    assert [(cost["calls"], cost["cost_usd"]) for cost in project.json] == [(1, 8.0)]
    assert project.kaizen("costs", "advise", "--program", "triage.Other", "--json") == 0
    assert project.json == []


def test_another_tenant_has_spent_nothing(project: Project) -> None:
    spend(project)
    assert project.kaizen("costs", "--tenant", "other") == 0
    assert (project.stdout, project.stderr) == ("", "no such calls\n")


def test_advice_names_what_repeats_would_have_saved(project: Project) -> None:
    spend(project)
    assert project.kaizen("costs", "advise") == 0
    (row,) = project.stdout.splitlines()[1:]
    assert row.strip().startswith("$0.5  keep answers to identical calls: inference.exact.enabled = true  ")
    assert "1.000 (0.207 .. 1.000)" in row


def test_advice_reprices_batches_by_the_models_known(project: Project) -> None:
    spend(project)
    project.models = [ModelInfo(ref="scripted/m", kind="openai", default=True, ready=True, note="")]
    assert project.kaizen("costs", "advise", "--json") == 0
    assert [(one["calls"], one["saved_usd"]) for one in project.json] == [(1, 0.5), (2, 0.5)]


def test_nothing_to_advise_is_said(project: Project) -> None:
    assert project.kaizen("costs", "advise") == 0
    assert project.stderr.startswith("nothing to advise")


def test_a_wrong_group_is_named(project: Project) -> None:
    assert project.kaizen("costs", "--by", "colour") == 2
    assert "invalid choice: 'colour'" in project.stderr


def test_the_bars_are_cost_and_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    drawn = plot([Cost("a-model-with-a-very-long-name", 1, 0, 0, 0, 2.0, 1.0)], colour=False)
    assert "dollars: left cost, right saved" in drawn
    assert "…" in drawn.splitlines()[-1]
