"""``kaizen eval``: what it prints and writes, what it refuses, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.request import Reply, Request
from kaizen.programs.calls import Suspension
from kaizen.serve.batch.progress import LineDisplay
from kaizen.serve.commands.learn import eval as command
from kaizen.serve.commands.learn import judging
from tests.unit.serve.conftest import Project

EXACT = '''\
from kaizen import tool


@tool
def strict(inputs: dict, expected: dict, prediction: dict | None) -> float:
    """All or nothing."""
    return float(prediction == expected)
'''


def rows_of(project: Project, n: int = 6, name: str = "test.jsonl") -> list[dict[str, Any]]:
    rows = [
        {"message": f"row {place}.", "team": ("cards", "transfers")[place % 2], "urgency": 4, "lang": "ed"[place % 2]}
        for place in range(n)
    ]
    project.write(name, "".join(f"{json.dumps(row)}\n" for row in rows))
    return rows


@pytest.fixture
def ready(project: Project) -> Project:
    rows_of(project)
    return project


def test_a_score_has_an_interval_and_says_what_it_took(ready: Project) -> None:
    assert ready.kaizen("eval", "triage.py:Triage", "--data", "test.jsonl") == 0
    first, second, *_ = ready.stdout.splitlines()
    assert first.startswith("accuracy: 0.5  (0.18")
    assert second.startswith("6 rows, 6 calls, price unknown, p50 ")
    assert "team: expected 'transfers', got 'cards'" in ready.stdout
    assert ready.provider.count == 6


def test_as_json(ready: Project) -> None:
    assert ready.kaizen("eval", "triage.py", "--data", "test.jsonl", "--json", "--slice", "lang", "--limit", "5") == 0
    found = ready.json
    assert (found["score"], found["n"], found["calls"], found["cost_usd"]) == (0.6, 5, 5, None)
    assert found["low"] < 0.6 < found["high"]
    assert [(one["value"], one["n"], one["score"]) for one in found["slices"]] == [("e", 3, 1.0), ("d", 2, 0.0)]
    assert [one["name"] for one in found["fields"]] == ["team", "urgency", "all"]
    assert found["confusion"] is None


def test_predictions_have_a_line_for_each_row(ready: Project) -> None:
    assert ready.kaizen("eval", "triage.py:Triage", "--data", "test.jsonl", "--predictions", "out.jsonl") == 0
    lines = ready.lines("out.jsonl")
    assert len(lines) == 6
    assert lines[1]["input"] == {"message": "row 1."}
    assert lines[1]["expected"] == {"team": "transfers", "urgency": 4}
    assert lines[1]["prediction"] == {"team": "cards", "urgency": 4}
    assert lines[1]["score"] == 0.0
    assert ready.kaizen("runs", "show", lines[1]["record"]) == 0
    assert "row 1." in ready.stdout


def test_a_row_without_an_answer_is_counted_and_says_why(ready: Project) -> None:
    good = '{"team": "cards", "urgency": 4}'
    ready.answers(lambda request: "?" if any("row 2." in one.text for one in request.messages) else good)
    argv = ("eval", "triage.py:Triage", "--data", "test.jsonl", "--predictions", "out.jsonl")
    assert ready.kaizen(*argv) == 0
    assert "1 not answered" in ready.stdout
    line = ready.lines("out.jsonl")[2]
    assert (line["prediction"], line["score"]) == (None, 0.0)
    assert line["error"].startswith("not answered: ")


def test_a_report_for_a_browser(ready: Project) -> None:
    argv = ("eval", "triage.py:Triage", "--data", "test.jsonl", "--html", "report.html", "--slice", "lang")
    assert ready.kaizen(*argv) == 0
    text = (ready.folder / "report.html").read_text()
    assert "<svg" in text
    assert "By lang" in text
    assert "written: report.html" in ready.stderr
    assert "lang  rows" in ready.stdout


def test_two_versions_are_compared_on_the_same_rows(ready: Project) -> None:
    ready.write("better.toml", 'instructions = "Look at the number."\n')
    assert ready.kaizen("registry", "put", "better.toml", "triage.py:Triage", "--reason", "a try") == 0

    def answer(request: Request) -> str:
        knows = "Look at the number." in request.messages[0].text
        odd = any(f"row {place}." in request.messages[-1].text for place in (1, 3, 5))
        return json.dumps({"team": "transfers" if knows and odd else "cards", "urgency": 4})

    ready.answers(answer)
    argv = ("eval", "triage.py:Triage", "--data", "test.jsonl", "--version", "latest", "--compare", "base")
    assert ready.kaizen(*argv, "--json", "--html", "report.html") == 0
    found = ready.json
    assert (found["score"], found["compared"]["score"]) == (1.0, 0.5)
    assert found["compared"]["gain"]["better"] == 3
    assert found["params"] != found["compared"]["params"]
    assert ready.provider.count == 12
    assert "Against base" in (ready.folder / "report.html").read_text()
    assert ready.kaizen(*argv) == 0
    assert "against base: 0.5 then, 1 now, +0.5" in ready.stdout
    assert ready.kaizen("registry", "list", "--json") == 0
    assert "evaluation" in ready.stdout
    assert ready.kaizen("eval", "triage.py:Triage", "--data", "test.jsonl", "--version", "9") == 6


def test_ctrl_c_says_how_to_go_on(ready: Project) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> str:
        seen.append(request)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return '{"team": "cards", "urgency": 4}'

    ready.answers(answer)
    assert ready.kaizen("eval", "triage.py:Triage", "--data", "test.jsonl", "--concurrency", "1") == 130
    assert "stopped: 2 of 6 rows are done" in ready.stderr
    again = ready.stderr.splitlines()[-1]
    assert again.startswith("go on with: kaizen eval triage.py:Triage --data test.jsonl --concurrency 1 --resume ")
    run = again.rpartition(" ")[2]
    argv = again.split()[4:]
    assert ready.kaizen(*argv, "--json") == 0
    paid = len(seen)
    assert paid in (6, 7)  # the third answer may have been kept before the interrupt came through
    assert (ready.json["n"], ready.json["run_id"], ready.json["score"]) == (6, run, 0.5)
    assert ready.kaizen(*argv, "--json") == 0  # finished already: shown again, nothing asked
    assert len(seen) == paid
    assert ready.json["score"] == 0.5
    assert ready.kaizen(*argv, "--limit", "3") == 7
    assert "was begun with other data" in ready.stderr
    assert ready.kaizen(*argv[:-1], "01a1f91f-b183-79dd-8c68-57dda5293b1c") == 6
    assert "nothing on record to go on with" in ready.stderr


def test_the_arm_without_a_model(project: Project) -> None:
    rows_of(project, 6)
    rows_of(project, 20, "train.jsonl")
    argv = ("eval", "triage.py:Triage", "--data", "test.jsonl", "--without-model")
    assert project.kaizen(*argv, "--train", "train.jsonl", "--json") == 0
    assert project.provider.count == 0
    assert (project.json["calls"], project.json["cost_usd"], project.json["n"]) == (0, 0.0, 6)
    assert "warning: 6 of the 6 rows are among those of --train" in project.stderr
    assert project.kaizen(*argv) == 2
    assert project.kaizen(*argv, "--train", "train.jsonl", "--version", "base") == 2


def test_metrics_of_the_users_own_and_several(ready: Project) -> None:
    ready.write("strict.py", EXACT)
    argv = ("eval", "triage.py:Triage", "--data", "test.jsonl", "--metric")
    assert ready.kaizen(*argv, "strict.py:strict", "--json") == 0
    assert (ready.json["score"], ready.json["metric"]) == (0.5, "strict.strict")
    assert ready.kaizen(*argv, "0.5*accuracy, 0.5*f1:urgency, score > 0.9", "--json") == 1
    assert ready.json["score"] == 0.75
    assert "does not hold: score > 0.9: it is 0.75" in ready.stderr
    assert ready.kaizen(*argv, "accurate") == 2
    assert "did you mean accuracy?" in ready.stderr


def test_a_gate_lets_pass_or_does_not(ready: Project) -> None:
    argv = ("eval", "triage.py:Triage", "--data", "test.jsonl", "--at-least")
    assert ready.kaizen(*argv, "0.5") == 0
    assert ready.kaizen(*argv, "0.6") == 1
    assert "the score is 0.5, less than 0.6" in ready.stderr


def test_a_judge_decides_nothing_before_people_have_checked_it(ready: Project) -> None:
    def answer(request: Request) -> str | Reply:
        shown = "".join(message.text for message in request.messages)
        if request.model == "scripted/judge":
            good = '"team":"cards"' in shown.rpartition("Answer")[2].rpartition("answer")[2]
            return json.dumps({"why": "so", "verdict": "right" if good else "wrong"})
        return '{"team": "cards", "urgency": 4}'

    ready.answers(answer)
    argv = ("eval", "triage.py:Triage", "--metric", "judge:scripted/judge")
    assert ready.kaizen(*argv, "--data", "test.jsonl", "--at-least", "0.5") == 8
    assert "was never measured" in ready.stderr
    assert ready.provider.count == 0
    lines = [
        {
            "input": {"message": f"m{place}"},
            "expected": {},
            "prediction": {"team": ("cards", "transfers")[place % 2]},
            "human": 1.0 - place % 2,
        }
        for place in range(40)
    ]
    ready.write("judged.jsonl", "".join(f"{json.dumps(line)}\n" for line in [*lines, {"input": {}}]))
    assert ready.kaizen(*argv, "--data", "judged.jsonl", "--judge-check", "--json") == 0
    assert (ready.json["n"], ready.json["kappa"], ready.json["rate"]) == (40, 1.0, 1.0)
    assert ready.kaizen(*argv, "--data", "test.jsonl", "--at-least", "0.5") == 0
    assert ready.kaizen(*argv, "--data", "judged.jsonl", "--judge-check", "--limit", "10") == 1
    assert "it may not decide anything" in ready.stdout


def test_a_check_that_waits_for_approval_measures_nothing(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    async def waits(self: object, ctx: Context, /, **inputs: Any) -> Answer:
        raise Suspension(ctx.step, "may the judge be asked?")

    monkeypatch.setattr(judging._Checking, "__call__", waits)  # pyright: ignore[reportPrivateUsage] - a policy that asks
    ready.write("judged.jsonl", json.dumps({"input": {}, "human": 1}) + "\n")
    argv = ("eval", "triage.py:Triage", "--data", "judged.jsonl", "--judge-check", "--metric", "judge:scripted/judge")
    assert ready.kaizen(*argv) == 8
    assert "waits for approval: may the judge be asked?" in ready.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"input": {}, "human": 2}, "'human' should be a number from 0 to 1"),
        ({"input": {}, "human": True}, "'human' should be a number from 0 to 1"),
        ({"input": "x", "human": 1}, "'input' should be an object"),
        ({"input": {}}, "no line has 'human'"),
    ],
)
def test_people_s_scores_are_checked(ready: Project, line: dict[str, Any], said: str) -> None:
    ready.write("judged.jsonl", f"{json.dumps(line)}\n")
    argv = ("eval", "triage.py:Triage", "--data", "judged.jsonl", "--judge-check", "--metric")
    assert ready.kaizen(*argv, "judge:scripted/judge") == 3
    assert said in ready.stderr
    assert ready.kaizen(*argv, "accuracy") == 2


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("--data", "none.jsonl"), 6, "there is no file none.jsonl"),
        (("--data", "test.jsonl", "--model", "large"), 2, "should read provider/model"),
        (("--data", "test.jsonl", "--rename", "x"), 2, "should read OLD=NEW"),
        (("--data", "test.jsonl", "--html", "no/where.html"), 2, "there is no folder no"),
        (("--data", "test.jsonl", "--slice", "language"), 2, "no row has such a column"),
        (("--data", "bad.jsonl"), 3, "bad.jsonl:2 (row 2): output 'team' = 'mortgages'"),
        (("--data", "test.jsonl", "--predictions", "folder"), 2, "can't write folder"),
    ],
)
def test_what_is_refused(ready: Project, argv: tuple[str, ...], code: int, said: str) -> None:
    good = '{"message": "a", "team": "cards", "urgency": 1}'
    ready.write("bad.jsonl", f'{good}\n{{"message": "b", "team": "mortgages"}}\n')
    (ready.folder / "folder").mkdir()
    assert ready.kaizen("eval", "triage.py:Triage", *argv) == code
    assert said in ready.stderr
    assert len(ready.stderr.splitlines()) <= 2


def test_another_model_may_be_asked(ready: Project) -> None:
    argv = ("eval", "triage.py:Triage", "--data", "test.jsonl", "--model", "scripted/other")
    assert ready.kaizen(*argv, "--rename", "lang=language", "--json") == 0
    assert {request.model for request in ready.provider.requests} == {"scripted/other"}


def test_a_lone_label_shows_its_confusion(project: Project) -> None:
    project.write(
        "label.py",
        "from typing import Literal\n\nfrom kaizen import Signature, context\n\n\nclass Label(Signature):\n"
        '    """Label."""\n\n    text: str = context.input("t")\n'
        '    label: Literal["up", "down"] = context.output("l")\n',
    )
    project.write("rows.csv", "text,label\na,up\nb,down\n")
    project.answers(lambda _: Reply(model="scripted/m", text='{"label": "up"}', cost_usd=0.5))
    assert project.kaizen("eval", "label.py", "--data", "rows.csv") == 0
    table = [line.split() for line in project.stdout.splitlines()[-2:]]
    assert table == [["up", "1", "0"], ["down", "1", "0"]]
    assert "2 calls, $1," in project.stdout


def test_progress_is_shown(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "display", lambda stream: LineDisplay(stream, every=0.0))
    assert ready.kaizen("eval", "triage.py:Triage", "--data", "test.jsonl") == 0
    assert "6 of 6 rows" in ready.stderr
    assert Path("test.jsonl").is_file()
