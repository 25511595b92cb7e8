"""``kaizen route train`` writes a router that loads, and says what it found in the file."""

from __future__ import annotations

import json
import random
from pathlib import Path

from kaizen.inference.route.router import Router
from tests.unit.serve.conftest import Project


def rows(project: Project) -> Path:
    draw = random.Random(7)
    lines: list[str] = []
    for number in range(160):
        hard = number % 2 == 0
        text = "Work out how much is left: " * (6 if hard else 1) + f"{draw.randrange(90)} + {number}?"
        lines.append(json.dumps({"prompt": text, "up/small": not hard or draw.random() < 0.1, "up/large": True}))
    return project.write("answers.jsonl", "\n".join(lines))


def test_a_router_is_trained_and_written_once(project: Project) -> None:
    out = project.folder / "router.json"
    assert project.kaizen("route", "train", str(rows(project)), "--output", str(out), "--json") == 0
    told = project.json
    assert (told["rows"], told["left_out"], told["text"]) == (160, 0, "prompt")
    assert told["models"] == ["up/small", "up/large"]
    cheapest, best = told["curve"][0], told["curve"][-1]
    assert cheapest[1] < best[1]  # the cost
    assert cheapest[2] < best[2]  # the share of right answers
    assert set(Router.load(out).models) == {"up/small", "up/large"}
    assert project.kaizen("route", "train", str(rows(project)), "--output", str(out)) == 7
    assert "nothing is overwritten" in project.stderr


def test_people_are_told_how_to_use_it(project: Project) -> None:
    out = project.folder / "router.json"
    assert project.kaizen("route", "train", str(rows(project)), "--output", str(out)) == 0
    assert "under [inference.route]" in project.stderr
    assert project.stdout.splitlines()[0].split() == ["dial", "cost", "right"]


def test_a_file_without_models_is_named(project: Project) -> None:
    file = project.write("answers.jsonl", '{"prompt": "x"}')
    assert project.kaizen("route", "train", str(file), "--output", str(project.folder / "r.json")) == 3
    assert "answers.jsonl: a column of prompts and two of right or wrong are needed" in project.stderr
