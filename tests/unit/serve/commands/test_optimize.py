"""``kaizen optimize``: what it asks for, what it shows, and what it changes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from kaizen.core.request import Request
from kaizen.learn.data.rows import Row
from kaizen.learn.optimize.board import Event
from kaizen.serve.commands.learn.searching import Chart, Lines, bar, chart, summary, watching
from tests.desk import by_request, rows
from tests.unit.serve.conftest import Project, Terminal

DESK = '''\
from typing import Literal

from kaizen import Signature, context


class Desk(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["red", "green", "blue", "none"] = context.output("the team")


def exactly(inputs: dict, expected: dict, prediction: dict | None) -> float: ...
'''
METRIC = """
from kaizen import tool

@tool
def own(inputs: dict, expected: dict, prediction: dict | None) -> float:
    "Whether it is the same."
    return float(prediction == expected)
"""


def lines(some: Sequence[Row]) -> str:
    return "".join(json.dumps({**row.inputs, **row.outputs}) + "\n" for row in some)


@pytest.fixture
def desk(project: Project) -> Project:
    project.write("desk.py", DESK.split("\n\ndef exactly")[0] + "\n")
    for name, some in (("train", rows(18)), ("val", rows(12, 100)), ("test", rows(20, 1000))):
        project.write(f"{name}.jsonl", lines(some))
    project.answers(by_request)
    return project


FILES = ("--train", "train.jsonl", "--val", "val.jsonl", "--optimizer", "reflective")


def optimize(desk: Project, *more: str, target: Sequence[str] = ("desk.py:Desk",)) -> int:
    return desk.kaizen("optimize", *target, *FILES, *more)


def test_a_gain_is_shown_with_its_interval_cost_and_diff_and_kept_as_a_version(desk: Project) -> None:
    assert optimize(desk, "--test", "test.jsonl", "--budget", "300") == 0
    assert "improved by reflective" in desk.stdout
    assert "before 0.000, after 1.000, gain +1.000 (95 % +0.678 to +1.000) on 20 held-out rows" in desk.stdout
    assert '-instructions = "Name the team."' in desk.stdout
    assert '+instructions = "Name it. crash means red.' in desk.stdout
    assert "saved as params/desk.Desk@1; release it: kaizen registry label desk.Desk@1 prod" in desk.stdout
    assert "at most 300" in desk.stderr
    # what is saved is not what runs
    assert desk.kaizen("run", "desk.py:Desk", "--message", "my parcel") == 0
    assert desk.json == {"team": "none"}


def test_released_it_runs_at_once(desk: Project) -> None:
    assert optimize(desk, "--release") == 0
    assert "released: prod shows it" in desk.stdout
    assert desk.kaizen("run", "desk.py:Desk", "--message", "my parcel") == 0
    assert desk.json == {"team": "blue"}
    # the next search starts from the code again, unless it is told otherwise
    assert optimize(desk, "--json") == 0
    assert desk.json["before"] == 0.0
    assert optimize(desk, "--json", "--from", "prod") == 0
    assert desk.json["improved"] is False


def test_json_has_all_of_it(desk: Project) -> None:
    assert optimize(desk, "--test", "test.jsonl", "--json", "--seed", "3") == 0
    said = desk.json
    assert (said["improved"], said["before"], said["after"], said["n"], said["on"]) == (True, 0.0, 1.0, 20, "test")
    assert (said["low"], said["high"], said["gain"]) == (pytest.approx(0.678, abs=1e-3), 1.0, 1.0)
    assert (said["budget"], said["seed"], said["metric"], said["optimizer"]) == (500, 3, "accuracy", "reflective")
    assert (said["versions"], said["released"]) == ({"desk.Desk": 1}, False)
    assert said["params"]["desk.Desk"]["instructions"].startswith("Name it.")
    assert said["candidates"] >= 1
    assert said["front"][-1]["score"] == 1.0
    assert said["cost_usd"] is None


def test_without_a_test_the_figures_are_said_to_flatter(desk: Project) -> None:
    assert optimize(desk) == 0
    assert "rows it was chosen by, which flatter it" in desk.stdout


def test_no_improvement_changes_nothing(desk: Project) -> None:
    desk.answers(
        lambda request: '{"revised": "Be kind."}' if "Revise" in request.messages[0].text else '{"team": "none"}'
    )
    assert optimize(desk, "--release", "--test", "test.jsonl") == 0
    assert "no improvement: no candidate did better" in desk.stdout
    assert "nothing was changed" in desk.stdout
    assert "the 20 held-out rows were not tested: there was nothing to test, and they stay shut" in desk.stdout
    assert "before 0.000, after 0.000" in desk.stdout
    assert "rows to choose by" in desk.stdout
    assert desk.kaizen("registry", "list", "--json") == 0
    assert "params" not in desk.stdout


def test_candidates_are_kept(desk: Project) -> None:
    assert optimize(desk) == 0
    assert desk.kaizen("registry", "list", "--json") == 0
    assert "candidate" in desk.stdout


def test_without_rows_to_choose_by_a_third_is_taken(desk: Project) -> None:
    assert (
        desk.kaizen("optimize", "--signature=desk.py:Desk", "--train", "train.jsonl", "--optimizer", "reflective") == 0
    )
    assert "on 12 rows to learn from and 6 to choose by" in desk.stderr


def test_a_metric_of_one_s_own_judges(desk: Project) -> None:
    desk.write("own.py", METRIC)
    assert optimize(desk, "--metric", "own.py:own", "--json") == 0
    assert desk.json["after"] == 1.0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "name the program once"),
        (("desk.py:Desk", "--signature", "desk.py:Desk", "--train", "train.jsonl"), "name the program once"),
        (("desk.py:Desk",), "--train ROWS is needed"),
        (("desk.py:Desk", "--train", "one.jsonl"), "too few"),
        (("desk.py:Desk", "--train", "train.jsonl", "--teacher", "big"), "--teacher 'big' should read provider/model"),
        (("desk.py:Desk", "--train", "train.jsonl", "--models", "a/b,big"), "--models 'big' should read"),
        (("desk.py:Desk", "--train", "train.jsonl", "--budget-usd", "0"), "should be a number above 0"),
        (("desk.py:Desk", "--train", "train.jsonl", "--budget-usd", "x"), "should be a number above 0"),
        (("desk.py:Desk", "--train", "train.jsonl", "--optimizer", "magic"), "invalid choice"),
    ],
)
def test_what_is_missing_or_wrong_is_said(desk: Project, argv: Sequence[str], said: str) -> None:
    desk.write("one.jsonl", lines(rows(1)))
    assert desk.kaizen("optimize", *argv) == 2
    assert said in desk.stderr
    assert desk.provider.count == 0


def test_a_run_that_was_stopped_goes_on_by_the_same_command(desk: Project) -> None:
    stopped = [False]

    def reply(request: Request) -> Any:
        if desk.provider.count == 30 and not stopped[0]:
            stopped[0] = True
            os.kill(os.getpid(), signal.SIGINT)
        return by_request(request)

    desk.answers(reply)
    assert optimize(desk, "--concurrency", "1", "--seed", "5") == 130
    command = desk.stderr.split("Go on with: kaizen ")[1].split("\n")[0].split()
    assert command[:2] == ["optimize", "desk.py:Desk"]
    asked = desk.provider.count
    assert desk.kaizen(*command, "--json") == 0
    resumed = desk.json
    assert desk.provider.count > asked
    before = desk.provider.count
    assert desk.kaizen(*command, "--json") == 0  # over: the same again, and nothing is asked
    assert desk.provider.count == before
    assert desk.json["after"] == resumed["after"] == 1.0
    assert desk.json["versions"] == resumed["versions"]
    assert "Conflict" not in desk.stderr
    # the run's beginning is enough, and another plan is refused
    run = command[-1]
    assert desk.kaizen(*command[:-1], run[:13], "--json") == 0
    assert desk.kaizen("optimize", *command[1:-2], "--seed", "6", "--resume", run) == 7
    assert "begun with other data" in desk.stderr


def test_a_judge_decides_nothing_before_it_was_checked(desk: Project) -> None:
    assert optimize(desk, "--metric", "judge:scripted/m") == 8
    assert "may not decide anything" in desk.stderr
    assert desk.provider.count == 0


def test_a_run_that_never_was_is_not_found(desk: Project) -> None:
    assert optimize(desk, "--resume", "0193a1f0-0000-7000-8000-000000000000") == 6
    assert "there is no optimizer's run" in desk.stderr


def test_a_version_that_is_not_there_is_no_start(desk: Project) -> None:
    assert optimize(desk, "--from", "7") == 6
    assert optimize(desk, "--from", "latest", "--json") == 0  # none yet: the code


# -- while it runs --------------------------------------------------------------------------------


def event(used: int = 50, best: float | None = 0.5, limit: int | None = 100, base: float | None = 0.25) -> Event:
    return Event("scored", used, limit, 3, base, best, "told")


def test_a_search_is_summed_up_in_a_line() -> None:
    assert summary(event()) == "50 of 100 calls, 2 candidates, base 0.250, best 0.500 (told); scored"
    assert summary(event(limit=None, best=None, base=None)) == "50 calls, 2 candidates; scored"


def test_the_bar_and_the_chart_show_how_far_it_is() -> None:
    assert bar(event()).count("━") == 30
    assert bar(event(limit=None)) == ""
    drawn = chart([(0, 0.25), (25, 0.5), (50, 0.75)], event(best=0.75))
    assert drawn[0].startswith(" 0.75")
    assert drawn[-1].startswith(" 0.31")
    assert len(drawn[-1]) == 6 + 31  # half of the width, and the column it stands in
    assert chart([], event()) == []
    assert len(chart([(0, 1.0)], event(best=1.0, limit=None))) == 8


def test_a_log_gets_a_line_when_the_best_changes(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Lines(sys.stderr, every=60)
    for best in (0.5, 0.5, 0.75):
        shown.show(event(best=best))
    assert capsys.readouterr().err.count("\n") == 2


def test_a_terminal_gets_a_live_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    with watching(stream) as watch:
        assert isinstance(watch, Chart)
        watch.say("run r")
        watch.show(event(best=None))
        watch.show(event())
        monkeypatch.setattr("kaizen.serve.commands.learn.searching._REDRAW", 0.0)
        watch.show(event(best=0.75))
    assert "run r" in stream.getvalue()
    assert "best 0.750" in stream.getvalue()
