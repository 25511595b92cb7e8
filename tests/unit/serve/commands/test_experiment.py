"""``kaizen experiment`` and ``kaizen loop``: what they begin, show and end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kaizen.app import App
from kaizen.core.answer import Answer
from kaizen.core.request import Request
from kaizen.ledger.scores import keep_feedback
from kaizen.serve.load import load_program
from tests.unit.serve.conftest import Project

TARGET = "triage.py:Triage"
ROW = {"message": "hi", "team": "cards", "urgency": 4}


def work(project: Project, act: Callable[[App], Any]) -> Any:
    """Something with the project's App."""

    async def done() -> Any:
        app = project.app()
        try:
            return await act(app)
        finally:
            await app.close()

    return asyncio.run(done())


def visits(project: Project, count: int, first: int = 0) -> None:
    """Subjects ask, and score what they get: 1 for cards."""

    async def act(app: App) -> None:
        program = load_program(str(project.folder / TARGET))
        for number in range(first, first + count):
            run = replace(await app.new_run(), subject=f"customer {number}")
            answer = await app.start_run(run, program, {"message": f"no. {number}"})
            assert isinstance(answer, Answer)
            await keep_feedback(app.ledger, answer.record, float(answer.outputs["team"] == "cards"))

    work(project, act)


def by_prompt(request: Request) -> str:
    """Right with care."""
    text = "".join(message.text for message in request.messages)
    return json.dumps({"team": "cards" if "care" in text else "transfers", "urgency": 4})


@pytest.fixture
def versions(project: Project) -> Project:
    """A project whose program has one version, which is better than the code."""
    project.answers(by_prompt)
    project.write("careful.toml", 'instructions = "Read with care."\n')
    assert project.kaizen("registry", "put", "careful.toml", TARGET) == 0
    return project


def start(project: Project, *flags: str) -> int:
    arms = ("--arms", "prod=0.5,latest=0.5", "--per-subject", "1", "--window", "0")
    return project.kaizen("experiment", "start", TARGET, *arms, *flags)


def test_an_experiment_is_started_judged_and_ended(versions: Project) -> None:
    assert start(versions, "--reason", "careful?") == 0
    assert "running" in versions.stdout
    visits(versions, 230)
    assert versions.kaizen("experiment", "status", "Triage", "--json") == 0
    assert versions.json["state"] == "won"
    assert "difference" in versions.json["reason"]
    assert versions.kaizen("experiment", "status", TARGET) == 0
    assert "experiment 1 on triage.Triage@prod: won" in versions.stdout
    assert versions.kaizen("registry", "history", TARGET) == 0
    assert "experiment 1 won" in versions.stdout


def test_scores_of_another_name_decide_nothing_and_it_says_so(versions: Project) -> None:
    assert start(versions, "--metric", "resolved", "--guard", "none") == 0
    visits(versions, 3)
    assert versions.kaizen("experiment", "status", TARGET) == 0
    assert "no scores named resolved have come; there are 3 named feedback" in versions.stderr


def test_an_experiment_is_stopped_by_hand(versions: Project) -> None:
    assert start(versions, "--guard", "errors=0.1", "--guard", "cost=2") == 0
    assert versions.kaizen("experiment", "stop", TARGET, "--reason", "enough", "--json") == 0
    assert versions.json["state"] == "stopped"
    assert [guard["quantity"] for guard in versions.json["rule"]["guards"]] == ["errors", "cost"]
    assert versions.kaizen("experiment", "stop", TARGET) != 0
    assert "no experiment is running" in versions.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--guard", "error=1"), "did you mean errors?"),
        (("--guard", "errors=x"), "should read errors=MARGIN"),
        (("--least", "5"), "100 subjects"),
    ],
)
def test_a_rule_that_can_be_none_is_refused(versions: Project, flags: tuple[str, ...], said: str) -> None:
    assert start(versions, *flags) != 0
    assert said in versions.stderr


def test_a_version_of_another_contract_is_no_arm(versions: Project) -> None:
    text = (versions.folder / "triage.py").read_text("utf-8")
    versions.write("triage.py", text.replace('Literal["cards", "transfers"]', 'Literal["cards", "loans"]'))
    assert start(versions) != 0
    assert "version 1 was made for another contract" in versions.stderr
    assert versions.kaizen("experiment", "status", TARGET) != 0
    assert "there was no experiment" in versions.stderr


def test_a_program_without_experiments_has_no_status(project: Project) -> None:
    assert project.kaizen("experiment", "status", TARGET) != 0
    assert "there was no experiment" in project.stderr


# -- the loop -------------------------------------------------------------------------------------


def begin(project: Project, *flags: str) -> int:
    project.write("rows.jsonl", "".join(json.dumps({**ROW, "message": f"row {n}"}) + "\n" for n in range(12)))
    return project.kaizen("loop", "start", TARGET, "--train", "rows.jsonl", *flags)


def test_a_loop_is_started_shown_paused_and_stopped(project: Project) -> None:
    assert begin(project, "--floor", "0.8", "--per-day", "1") == 0
    assert "the loop watches triage.Triage" in project.stderr
    visits(project, 3)
    assert project.kaizen("loop", "status", "Triage") == 0
    assert "is on; prod shows base" in project.stdout
    assert "1.000 over the last 3 scores" in project.stdout
    assert project.kaizen("loop", "status", TARGET, "--json") == 0
    assert (project.json["state"], project.json["plan"]["watch"]["floor"]) == ("on", 0.8)
    for word, state in (("pause", "paused"), ("resume", "on"), ("stop", "stopped")):
        assert project.kaizen("loop", word, "Triage", "--json") == 0
        assert project.json["state"] == state
    assert project.kaizen("loop", "pause", "Triage") == 0
    assert "is paused" in project.stdout
    assert project.kaizen("loop", "run", "--once") == 0


def test_a_change_that_waits_is_approved_or_declined_by_name(versions: Project) -> None:
    assert begin(versions, "--floor", "0.8", "--ask", "always", "--optimizer", "demonstrations", "--json") == 0
    assert versions.json["asks"] == "always"
    for word in ("approve", "decline"):
        assert versions.kaizen("loop", word, "Triage") != 0
        assert "waits for an answer" in versions.stderr
    visits(versions, 60)
    assert versions.kaizen("loop", "run", TARGET, "--once") == 0
    assert "propose: floor: 0.000 over the last" in versions.stdout
    assert versions.kaizen("loop", "history", "Triage") == 0
    assert "propose" in versions.stdout
    assert versions.kaizen("loop", "history", "Triage", "--json") == 0
    assert json.loads(versions.stdout.splitlines()[0])["trigger"] == "floor"
    assert versions.kaizen("loop", "status", "Triage") == 0
    assert "1 of 2 proposals" in versions.stdout


def test_a_mark_above_the_program_says_what_the_flags_would(project: Project) -> None:
    text = (project.folder / "triage.py").read_text("utf-8")
    mark = '@signature.optimized(metric="f1", floor=0.7, train="rows.jsonl")\nclass Triage'
    project.write(
        "triage.py", text.replace("class Triage", mark).replace("import Signature", "import Signature, signature")
    )
    project.write("rows.jsonl", json.dumps(ROW) + "\n")
    assert project.kaizen("loop", "start", TARGET, "--json") == 0
    assert (project.json["metric"], project.json["watch"]["floor"]) == ("f1", 0.7)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--guard", "errors=5"), "margin makes no sense"),
        (("--least", "20"), "100 subjects"),
        (("--metric", "acuracy"), "there is no metric 'acuracy'; did you mean accuracy?"),
        (("--optimizer", "magic"), "invalid choice: 'magic'"),
        (("--metric", "judge:scripted/judge"), "was never measured"),
        (("--tune", "temperature=0:1", "--optimizer", "reflective"), "leave out --optimizer"),
        (("--tune", "temperature=warm:hot"), "should read temperature=LOW:HIGH"),
        (("--tune", "warmth=0:1"), "is no field of Params"),
        (("--tune", "temperature"), "needs either bounds or choices"),
    ],
)
def test_what_no_proposal_could_be_made_with_is_refused_at_once(
    project: Project, flags: tuple[str, ...], said: str
) -> None:
    assert begin(project, *flags) != 0
    assert said in project.stderr
    assert project.kaizen("loop", "status", TARGET) != 0, "and nothing is watched"


def test_rows_that_are_kept_for_a_test_are_no_rows_of_a_loop(project: Project) -> None:
    project.write("kept.jsonl", "".join(json.dumps({**ROW, "message": f"row {n}"}) + "\n" for n in range(6)))
    argv = ("dataset", "import", "kept.jsonl", "--program", TARGET, "--split", "0.5,0.5", "--name", "triage")
    assert project.kaizen(*argv) == 0, project.stderr
    assert begin(project) != 0
    assert "kept for testing in dataset triage/test: take them out" in project.stderr


def test_the_parameters_that_a_loop_may_move_are_named_with_their_bounds(project: Project) -> None:
    flags = ("--tune", "temperature=0:0.7", "--tune", "repairs=0:3", "--tune", "model=up/small,up/large:2b")
    assert begin(project, *flags, "--tune", "options.semantic=true,false", "--json") == 0, project.stderr
    assert project.json["optimizer"] == "tuning"
    moved = [(one["name"], one["low"], one["high"], one["choices"]) for one in project.json["tunables"]]
    assert moved == [
        ("temperature", 0, 0.7, []),
        ("repairs", 0, 3, []),
        ("model", None, None, ["up/small", "up/large:2b"]),
        ("options.semantic", None, None, [True, False]),
    ]


def test_a_loop_without_rows_is_refused(project: Project) -> None:
    assert project.kaizen("loop", "start", TARGET) != 0
    assert "needs rows" in project.stderr
    assert project.kaizen("loop", "status", TARGET) != 0
    assert "there is no loop over triage.Triage" in project.stderr
