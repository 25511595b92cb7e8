from __future__ import annotations

import io
import sys

import pytest

from kaizen.core.errors import RateLimited
from tests.unit.serve.conftest import ANSWER, Project, Terminal

TAKEN = """\
from kaizen import Signature, context

class Ask(Signature):
    "Answer."
    model: str = context.input()
    set: list[int] = context.input(default=[])
    answer: str = context.output()
    why: str = context.intermediate("the reasons")
"""


def test_the_outputs_are_one_json_object(project: Project) -> None:
    assert project.kaizen("run", "triage.py:Triage", "--message", "my card") == 0
    assert project.stdout == f"{ANSWER.replace(' ', '')}\n"
    assert project.stderr == ""


def test_the_record_can_be_added(project: Project) -> None:
    assert project.kaizen("run", "triage.py", "--message", "my card", "--record") == 0
    assert list(project.json) == ["team", "urgency", "_record"]
    record = project.json["_record"]
    assert (record["ref"], record["status"], record["model_calls"]) == ("triage.Triage", "ok", 1)
    assert project.kaizen("runs", "list", "--json") == 0
    assert [one["id"] for one in project.json] == [record["id"]]


def test_inputs_named_like_flags_and_intermediates(project: Project) -> None:
    project.write("ask.py", TAKEN)
    project.answers(lambda _: '{"why": "because", "answer": "42"}')
    assert project.kaizen("run", "ask.py", "--set", "model=some car", "--set", "set=[1, 2]") == 0
    assert project.json == {"answer": "42"}  # what it thought lies behind its record
    assert project.provider.requests[0].model == "scripted/m"
    assert "some car" in project.provider.requests[0].messages[-1].text


@pytest.mark.parametrize("argv", [["--message=-5", "--model=other/x"], ["--model", "other/x", "--message", "-5"]])
def test_another_model_for_this_run(project: Project, argv: list[str]) -> None:
    assert project.kaizen("run", *argv, "triage.py") == 0
    (request,) = project.provider.requests
    assert request.model == "other/x"
    assert "-5" in request.messages[-1].text


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ([], 3, "error: triage.Triage: input 'message' is missing\n"),
        (["--message"], 2, "error: --message needs a value\n"),
        (["--message", "--record"], 2, "error: --message needs a value\n"),
        (["--mesage", "x"], 2, "error: --mesage is no input of triage.Triage and no flag; did you mean --message?\n"),
        (["--message", "x", "--model", "gpt"], 2, "error: --model 'gpt' should read provider/model, such as embedded"),
        (["--message", "x", "--model"], 2, "error: argument --model: expected one argument; see kaizen run --help\n"),
        (["--message", "@gone.txt"], 3, "error: can't read gone.txt: No such file or directory (write @@ for"),
    ],
)
def test_wrong_inputs_are_found_before_any_call(project: Project, argv: list[str], code: int, said: str) -> None:
    assert project.kaizen("run", "triage.py", *argv) == code
    assert project.stderr.startswith(said)
    assert project.provider.count == 0
    assert not (project.folder / "ledger.db").exists()


def test_a_provider_error_has_its_exit_code(project: Project) -> None:
    project.answers([RateLimited("too fast", provider="scripted", model="scripted/m")])
    assert project.kaizen("run", "triage.py", "--message", "x") == 4
    assert project.stderr == "error: too fast\n"


def test_the_help_shows_the_programs_inputs(project: Project) -> None:
    assert project.kaizen("run", "triage.py:Triage", "--help") == 0
    assert project.stdout.endswith("inputs of triage.Triage:\n  --message TEXT  what the customer wrote\n")
    assert project.kaizen("run", "--help") == 0
    assert "Every other --NAME VALUE is an input of the program" in project.stdout


def test_a_terminal_gets_it_in_lines(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    assert project.kaizen("run", "triage.py", "--message", "x") == 0
    assert out.getvalue() == '{\n  "team": "cards",\n  "urgency": 4\n}\n'


def test_partial_outputs_of_programs_below_do_not_show(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    project.write(
        "both.py",
        "from kaizen import program\nfrom triage import Triage\n"
        "@program\nasync def both(message: str) -> str:\n    return (await Triage(message=message)).team\n",
    )
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    assert project.kaizen("run", "both.py:both", "--message", "x", "--stream") == 0
    assert project.json == {"result": "cards"}
    assert "urgency" not in err.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_partial_outputs_show_on_a_terminal_only(
    project: Project, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    assert project.kaizen("run", "triage.py", "--message", "x", "--stream") == 0
    assert project.stdout == f"{ANSWER.replace(' ', '')}\n"
    assert ('"team": "cards"' in err.getvalue()) is terminal


def test_no_answer_reaches_the_terminal_as_its_control(project: Project) -> None:
    project.write("ask.py", TAKEN)
    project.answers(lambda _: '{"why": "\\u009b2J", "answer": "\\u009b31m\\u007f\\u001b[2J é"}')
    assert project.kaizen("run", "ask.py", "--set", "model=x") == 0
    assert project.json["answer"] == "\x9b31m\x7f\x1b[2J é"
    assert not {"\x9b", "\x7f", "\x1b"} & set(project.stdout)
    assert project.kaizen("runs", "list", "--json") == 0
    run_id = project.json[0]["run_id"]
    for how in ([], ["--messages"], ["--json"]):
        assert project.kaizen("runs", "show", run_id, *how) == 0
        assert "31m" in project.stdout
        assert not {"\x9b", "\x7f", "\x1b"} & set(project.stdout)
