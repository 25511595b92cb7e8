from __future__ import annotations

import json
from pathlib import Path

import pytest

from kaizen.app import App, build
from kaizen.core.context import Context
from kaizen.core.errors import AuthFailed, ConfigError, Unavailable
from kaizen.core.protocols import Ask, Decision, Need
from kaizen.core.request import Reply, Request, Usage
from kaizen.settings import load_settings
from kaizen.stores.sqlite import SqliteStore
from kaizen.testing.scripted import Line
from tests.unit.serve.conftest import ANSWER, Project

TYPED = """\
from kaizen import Signature, context

class Count(Signature):
    "Count."
    words: list[str] = context.input()
    most: int = context.input(default=3)
    note: str = context.input(default="none")
    count: int = context.output()
"""


def batch(project: Project, *more: str, rows: str = "rows.jsonl", target: str = "triage.py:Triage") -> int:
    return project.kaizen("run", target, "--input", rows, "--output", "out.jsonl", *more)


def message_of(request: Request) -> str:
    return request.messages[-1].text


def rows(project: Project, *messages: str, name: str = "rows.jsonl") -> Path:
    return project.write(name, "".join(json.dumps({"n": n, "message": m}) + "\n" for n, m in enumerate(messages)))


def test_a_line_is_the_row_then_the_outputs_then_the_record(project: Project) -> None:
    project.write("rows.csv", "id,message,note\n7,my card,é\n")
    assert batch(project, rows="rows.csv") == 0
    (line,) = project.lines("out.jsonl")
    assert list(line) == ["id", "message", "note", "team", "urgency", "_record"]
    assert line | {"_record": ""} == {
        "id": "7",
        "message": "my card",
        "note": "é",
        "team": "cards",
        "urgency": 4,
        "_record": "",
    }
    assert project.kaizen("runs", "show", line["_record"], "--json") == 0
    assert project.json[0]["output"] == {"team": "cards", "urgency": 4}
    assert project.stdout.count("my card") > 0


def test_equal_rows_are_two_rows(project: Project) -> None:
    project.write("rows.jsonl", '{"message": "same"}\n' * 5)
    assert batch(project) == 0
    assert [line["message"] for line in project.lines("out.jsonl")] == ["same"] * 5
    assert len({line["_record"] for line in project.lines("out.jsonl")}) == 5
    kept = (project.folder / "out.jsonl").read_bytes().splitlines(keepends=True)
    (project.folder / "out.jsonl").write_bytes(b"".join(kept[:3]))
    assert batch(project) == 0
    assert project.provider.count == 7
    assert len(project.lines("out.jsonl")) == 5
    assert "going on: 3 of 5 rows are answered already" in project.stderr


def test_a_finished_command_does_nothing(project: Project) -> None:
    rows(project, "a", "b")
    assert batch(project) == 0
    before = (project.folder / "out.jsonl").stat()
    assert batch(project) == 0
    assert project.stderr == "nothing to do: out.jsonl holds all 2 rows\n"
    assert project.provider.count == 2
    after = (project.folder / "out.jsonl").stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)


def test_an_empty_file_of_rows_is_finished(project: Project) -> None:
    project.write("rows.csv", "message\n")
    assert batch(project, rows="rows.csv") == 0
    assert project.stderr == "nothing to do: out.jsonl holds all 0 rows\n"


def test_overwrite_starts_anew(project: Project) -> None:
    rows(project, "a", "b")
    assert batch(project) == 0
    project.answers(lambda _: '{"team": "transfers", "urgency": 1}')
    assert batch(project, "--overwrite") == 0
    assert [line["team"] for line in project.lines("out.jsonl")] == ["transfers", "transfers"]
    assert project.provider.count == 2


def test_overwrite_loses_nothing_when_the_rows_are_wrong(project: Project) -> None:
    rows(project, "a")
    assert batch(project) == 0
    project.write("rows.jsonl", "broken\n")
    assert batch(project, "--overwrite") == 3
    assert len(project.lines("out.jsonl")) == 1


def test_a_torn_last_line_is_repaired(project: Project) -> None:
    rows(project, "a", "b", "c")
    assert batch(project) == 0
    out = project.folder / "out.jsonl"
    out.write_bytes(out.read_bytes()[:-9])
    assert batch(project) == 0
    assert project.stderr.startswith("out.jsonl: cut off a last line that was not written to its end\n")
    assert sorted(line["message"] for line in project.lines("out.jsonl")) == ["a", "b", "c"]
    assert project.provider.count == 4


def test_rows_can_be_added(project: Project) -> None:
    rows(project, "a", "b")
    assert batch(project) == 0
    rows(project, "a", "b", "c")
    assert batch(project) == 0
    assert [line["message"] for line in project.lines("out.jsonl")][2:] == ["c"]


def test_an_answered_row_that_changed_is_an_error_that_names_it(project: Project) -> None:
    rows(project, "a", "b", "c")
    assert batch(project) == 0
    rows(project, "a", "changed", "c")
    assert batch(project) == 7
    assert project.stderr == (
        "error: out.jsonl answers a row that is not in rows.jsonl; rows.jsonl:2 (row 2) is new: put the rows back as "
        "they were, take another --output, or start anew with --overwrite\n"
    )
    rows(project, "a")
    assert batch(project) == 7
    assert "answers 2 rows that are not in rows.jsonl: put" in project.stderr
    assert project.provider.count == 3


def test_failed_rows_go_to_a_side_file_and_are_tried_again(project: Project) -> None:
    def script(request: Request) -> Line:
        return Unavailable("down", provider="scripted") if "bad" in message_of(request) else ANSWER

    project.answers(script)
    rows(project, "a", "bad", "c", "bad")
    assert batch(project) == 1
    assert "2 of 4 rows answered in out.jsonl" in project.stderr
    assert "2 failed" in project.stderr
    again = "kaizen run triage.py:Triage --input rows.jsonl --output out.jsonl"
    assert project.stderr.endswith(f"the failed rows are in out.errors.jsonl; try them again with: {again}\n")
    failed = project.lines("out.errors.jsonl")
    assert [list(line) for line in failed] == [["n", "message", "_error", "_record"]] * 2
    assert sorted(line["n"] for line in failed) == [1, 3]
    assert failed[0]["_error"] == {"code": "unavailable", "message": "down"}
    assert project.kaizen("runs", "show", failed[0]["_record"], "--json") == 0
    assert project.json[0]["error_code"] == "unavailable"
    assert sorted(line["message"] for line in project.lines("out.jsonl")) == ["a", "c"]  # as they end
    project.answers(lambda _: ANSWER)
    assert batch(project) == 0
    assert project.provider.count == 2
    assert sorted(line["n"] for line in project.lines("out.jsonl")) == [0, 1, 2, 3]
    assert not (project.folder / "out.errors.jsonl").exists()


def test_a_row_that_misfits_the_contract_fails_alone(project: Project) -> None:
    project.write("rows.jsonl", '{"message": 5}\n{"message": "fine"}\n')
    assert batch(project) == 1
    (failed,) = project.lines("out.errors.jsonl")
    assert failed["_error"]["code"] == "invalid_input"
    assert failed["_record"]
    assert len(project.lines("out.jsonl")) == 1
    assert project.provider.count == 1


def test_what_a_failed_row_cost_counts(project: Project) -> None:
    reply = Reply(model="scripted/m", text="no json", usage=Usage(tokens_in=100, tokens_out=7), cost_usd=0.5)
    project.answers([reply, reply])
    rows(project, "a")
    assert batch(project) == 1
    assert "214 tokens, $1\n" in project.stderr


def test_a_programs_own_exception_fails_its_row(project: Project) -> None:
    project.write(
        "odd.py", "from kaizen import tool\n@tool\ndef odd(x: int) -> int:\n    'Fails.'\n    return 6 // x\n"
    )
    project.write("rows.csv", "x\n0\n2\nno\n")
    assert batch(project, rows="rows.csv", target="odd.py") == 1
    assert [(line["x"], line["result"]) for line in project.lines("out.jsonl")] == [("2", 3)]
    failed = {line["x"]: line["_error"] for line in project.lines("out.errors.jsonl")}
    assert failed["0"] == {"code": "exception", "message": "ZeroDivisionError: integer division or modulo by zero"}
    assert failed["no"]["code"] == "invalid_input"
    (record,) = [line["_record"] for line in project.lines("out.errors.jsonl") if line["x"] == "0"]
    assert project.kaizen("runs", "show", record, "--json") == 0
    assert project.json[0]["error_code"] == "exception"


def test_what_would_fail_every_row_stops_the_batch(project: Project) -> None:
    def script(request: Request) -> Line:
        return ANSWER if message_of(request).endswith("0") else AuthFailed("the key is wrong", provider="scripted")

    project.answers(script)
    rows(project, *(f"m{n}" for n in range(40)))
    assert batch(project, "--concurrency", "1") == 4
    assert project.provider.count == 2
    stopped, error = project.stderr.splitlines()
    assert stopped.startswith("stopped: 1 of 40 rows answered in out.jsonl")
    assert error == "error: the key is wrong"
    assert not (project.folder / "out.errors.jsonl").exists()


def test_a_long_check_says_how_far_it_is(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.serve.batch.batch._TELL_EVERY", 2)
    rows(project, "a", "b", "c")
    assert batch(project) == 0
    assert project.stderr.startswith("checked 2 rows of rows.jsonl\ndone: ")


def test_no_more_rows_at_once_than_asked_for(project: Project) -> None:
    project.write(
        "slow.py",
        "import asyncio\nfrom kaizen import program\nnow = most = 0\n"
        "@program\nasync def slow(x: int) -> int:\n"
        "    global now, most\n    now += 1\n    most = max(most, now)\n"
        "    await asyncio.sleep(0.01)\n    now -= 1\n    return most\n",
    )
    project.write("rows.csv", "x\n" + "".join(f"{n}\n" for n in range(12)))
    assert batch(project, "--concurrency", "3", rows="rows.csv", target="slow.py") == 0
    assert max(line["result"] for line in project.lines("out.jsonl")) == 3
    assert len(project.lines("out.jsonl")) == 12


def test_cells_are_json_where_the_input_is_no_text(project: Project) -> None:
    project.answers(lambda _: '{"count": 2}')
    project.write("count.py", TYPED)
    project.write("rows.csv", 'words,most,note\n"[""a"",""b""]",,\n"[]",5,12\n')
    assert batch(project, rows="rows.csv", target="count.py") == 0
    assert [(line["words"], line["most"], line["count"]) for line in project.lines("out.jsonl")] == [
        ('["a","b"]', "", 2),
        ("[]", "5", 2),
    ]
    assert project.kaizen("runs", "export", "--payloads", "--program", "Count") == 0
    inputs = [json.loads(line)["input"] for line in project.stdout.splitlines()]
    assert inputs == [
        {"words": ["a", "b"], "most": 3, "note": ""},
        {"words": [], "most": 5, "note": "12"},
    ]


def test_an_input_may_be_the_same_for_all_rows(project: Project) -> None:
    project.answers(lambda _: '{"count": 2}')
    project.write("count.py", TYPED)
    project.write("rows.csv", "words\n[]\n")
    assert batch(project, "--note", "all", rows="rows.csv", target="count.py") == 0
    assert list(project.lines("out.jsonl")[0]) == ["words", "count", "_record"]
    assert "all" in message_of(project.provider.requests[0])
    project.write("rows.csv", "words,note\n[],x\n")
    assert batch(project, "--note", "all", "--overwrite", rows="rows.csv", target="count.py") == 2
    assert project.stderr == "error: rows.csv: note is a column and also given on the command line\n"


def test_a_missing_column_is_one_error_before_any_call(project: Project) -> None:
    project.write("rows.csv", "id,text\n1,x\n2,y\n")
    assert batch(project, rows="rows.csv") == 3
    assert project.stderr == (
        "error: rows.csv lacks message, which triage.Triage needs; columns: id, text (--rename OLD=NEW calls one "
        "otherwise)\n"
    )
    assert not (project.folder / "out.jsonl").exists()
    assert batch(project, "--rename", "text=message", rows="rows.csv") == 0
    assert project.lines("out.jsonl")[0]["message"] == "x"
    project.write("rows.jsonl", '{"message": "x"}\n{"msg": "y"}\n')
    assert batch(project, "--overwrite") == 3
    assert project.stderr.startswith("error: rows.jsonl:2 (row 2) lacks message, ")
    assert project.provider.count == 2


@pytest.mark.parametrize("column", ["team", "_record", "_error"])
def test_a_column_with_the_name_of_an_output_is_an_error_before_any_call(project: Project, column: str) -> None:
    project.write("rows.csv", f"message,{column}\nx,y\n")
    assert batch(project, rows="rows.csv") == 2
    given = f"given_{column.strip('_')}"
    assert project.stderr == (
        f"error: rows.csv: column {column} has the name of an output of triage.Triage: "
        f"write --rename {column}={given}\n"
    )
    assert project.provider.count == 0
    assert batch(project, "--rename", f"{column}={given}", rows="rows.csv") == 0
    assert project.lines("out.jsonl")[0][given] == "y"


def test_rows_that_can_not_be_read_are_found_before_any_call(project: Project) -> None:
    project.write("rows.jsonl", '{"message": "a"}\n{"message"\n')
    assert batch(project) == 3
    assert project.stderr.startswith("error: rows.jsonl:2: no JSON: ")
    assert project.provider.count == 0


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--input", "rows.jsonl"], 2, "--input needs --output OUT.jsonl"),
        (["--message", "x", "--output", "o.jsonl"], 2, "--output goes with --input ROWS; an input of the program of "),
        (["--message", "x", "--overwrite"], 2, "--overwrite goes with --input ROWS"),
        (["--input", "rows.jsonl", "--output", "rows.jsonl"], 2, "--input and --output are the same file, rows.jsonl"),
        (["--input", "rows.jsonl", "--output", "no/o.jsonl"], 2, "--output: there is no folder no"),
        (["--input", "rows.jsonl", "--output", "o.jsonl", "--record"], 2, "--record and --stream go with one input"),
        (["--input", "rows.jsonl", "--output", "o.jsonl", "--rename", "x"], 2, "--rename 'x' should read OLD=NEW"),
        (["--input", "gone.jsonl", "--output", "o.jsonl"], 6, "there is no file gone.jsonl"),
        (["--input", "rows.jsonl", "--output", "triage.py"], 7, "triage.py:1: no line of a batch"),
    ],
)
def test_wrong_usage(project: Project, argv: list[str], code: int, said: str) -> None:
    rows(project, "a")
    assert project.kaizen("run", "triage.py", *argv) == code
    assert project.stderr.startswith(f"error: {said}")
    assert project.provider.count == 0
    assert not (project.folder / "o.jsonl").exists()


def test_the_file_of_failed_rows_is_no_input(project: Project) -> None:
    rows(project, "a", name="out.errors.jsonl")
    assert batch(project, rows="out.errors.jsonl") == 2
    assert project.stderr == "error: --input and the file of failed rows are the same file, out.errors.jsonl\n"
    assert len(project.lines("out.errors.jsonl")) == 1


def test_wrong_settings_leave_no_output_behind(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> App:
        raise ConfigError("model is wrong")

    monkeypatch.setattr(project, "app", app)
    rows(project, "a")
    assert batch(project) == 2
    assert project.stderr == "error: model is wrong\n"
    assert not (project.folder / "out.jsonl").exists()


def test_the_command_to_go_on_with_starts_nothing_anew(project: Project) -> None:
    project.answers(lambda _: AuthFailed("no") if project.provider.count > 1 else Unavailable("down"))
    rows(project, "it's")
    assert batch(project, "--overwrite", "--model", "scripted/m") == 1
    assert project.stderr.endswith(
        "kaizen run triage.py:Triage --input rows.jsonl --output out.jsonl --model scripted/m\n"
    )


def test_an_output_the_contract_does_not_declare_stops_the_batch(project: Project) -> None:
    project.write(
        "loose.py",
        "from kaizen import Answer, signature\nAsk = signature('message -> result', name='Ask')\n"
        "class Loose:\n    spec = Ask.spec\n"
        "    async def __call__(self, ctx, /, **inputs):\n        return Answer.of({'team': 'cards'})\n"
        "loose = Loose()\n",
    )
    rows(project, "a", "b")
    assert batch(project, target="loose.py:loose") == 1
    assert "error: loose.Ask: it gives 'team', which is no output it declares" in project.stderr
    assert project.lines("out.jsonl") == []


def test_a_row_that_waits_for_approval_is_not_answered(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asking:
        async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Decision:
            return Ask(f"may it {action} {target}?")

    settings = load_settings(project.folder, {"KAIZEN_MODEL": "scripted/m"}, {})
    monkeypatch.setattr(
        project,
        "app",
        lambda: build(settings, provider=project.provider, store=SqliteStore(project.folder / "l.db"), policy=Asking()),
    )
    rows(project, "a")
    assert batch(project) == 1
    (failed,) = project.lines("out.errors.jsonl")
    assert failed["_error"] == {
        "code": "denied",
        "message": "the run waits for approval: may it run triage.Triage?",
    }
    assert project.kaizen("run", "triage.py", "--message", "x") == 8
    assert "waits for approval: may it run triage.Triage?" in project.stderr
