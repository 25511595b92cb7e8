from __future__ import annotations

import json
from pathlib import Path

import pytest

from kaizen.core.errors import Unavailable
from kaizen.core.request import Reply, Usage
from kaizen.serve.commands.tables import dollars, milliseconds
from tests.unit.serve.conftest import ANSWER, TRIAGE, Project, Terminal

CHAIN = """\
from kaizen import program
from triage import Triage

@program
async def both(message: str) -> str:
    first = await Triage(message=message)
    second = await Triage(message=message + "!")
    return first.team + second.team
"""


@pytest.fixture
def ran(project: Project) -> Project:
    """A project with four runs: two that went well, one of two steps, one that failed."""
    project.write("both.py", CHAIN)
    priced = Reply(model="scripted/m", text=ANSWER, usage=Usage(tokens_in=90, tokens_out=10), cost_usd=0.25)
    project.answers([priced, ANSWER, ANSWER, ANSWER, Unavailable("down", provider="scripted")])
    assert project.kaizen("run", "triage.py", "--message", "first") == 0
    assert project.kaizen("run", "triage.py", "--message", "second") == 0
    assert project.kaizen("run", "both.py:both", "--message", "third") == 0
    assert project.kaizen("run", "triage.py", "--message", "fourth") == 4
    return project


def test_nothing_was_run_yet(project: Project) -> None:
    assert project.kaizen("runs", "list") == 0
    assert (project.stdout, project.stderr) == ("", "no such runs\n")
    assert project.kaizen("runs", "list", "--json") == 0
    assert project.json == []
    assert project.kaizen("runs", "stats") == 0
    assert (project.stdout, project.stderr) == ("", "no such calls\n")
    assert project.kaizen("runs", "stats", "--json") == 0
    assert project.json == []
    assert project.kaizen("runs", "export") == 0
    assert project.stdout == ""


def test_the_list_is_newest_first(ran: Project) -> None:
    assert ran.kaizen("runs", "list") == 0
    head, failed, chain, unpriced, priced = ran.stdout.splitlines()
    assert head.split() == ["record", "started", "program", "status", "latency", "tokens", "cost", "model"]
    assert failed.split()[3:5] == ["triage.Triage", "unavailable"]
    assert failed.split()[-1] == "-"
    assert chain.split()[3] == "both.both"
    assert unpriced.split()[-2:] == ["?", "scripted/m"]
    assert priced.split()[-3:] == ["90+10", "$0.25", "scripted/m"]
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (["--limit", "2"], 2),
        (["--program", "Triage"], 3),
        (["--program", "triage.Triage", "--status", "error"], 1),
        (["--program", "both"], 1),
        (["--program", "no.Such"], 0),
        (["--status", "cancelled"], 0),
        (["--since", "1h"], 4),
        (["--since", "2999-01-01"], 0),
        (["--since", "2001-01-01T00:00+00:00"], 4),
    ],
)
def test_the_list_can_be_filtered(ran: Project, argv: list[str], count: int) -> None:
    assert ran.kaizen("runs", "list", "--json", *argv) == 0
    assert len(ran.json) == count
    assert all(record["kind"] == "program" and record["parent_id"] is None for record in ran.json)


def test_a_program_that_was_never_run(ran: Project) -> None:
    assert ran.kaizen("runs", "list", "--program", "Nobody") == 6
    assert ran.stderr == "error: nothing was run under the name Nobody\n"


def test_a_run_is_shown_as_a_tree(ran: Project) -> None:
    assert ran.kaizen("runs", "list", "--program", "both", "--json") == 0
    (record,) = ran.json
    for identifier in (record["id"], record["id"][:18], record["run_id"], record["run_id"].upper()):
        assert ran.kaizen("runs", "show", identifier) == 0
        lines = ran.stdout.splitlines()
        assert [line[: len(line) - len(line.lstrip())] for line in lines if "  ok  " in line] == [
            "",
            *("  ", "    ") * 2,
        ]
        assert lines[0].startswith("both.both  ok  ")
        assert lines[0].endswith(record["id"])
        assert record["run_id"] in lines[1]
        assert '  input   {"message":"third"}' in lines
        assert '  output  {"result":"cardscards"}' in lines
        assert '    input   {"message":"third!"}' in lines
        assert "what the customer wrote" not in ran.stdout
    assert ran.kaizen("runs", "show", record["id"], "--messages") == 0
    assert "what the customer wrote" in ran.stdout


def test_a_part_of_a_run_can_be_shown_alone(ran: Project) -> None:
    assert ran.kaizen("runs", "list", "--program", "both", "--json") == 0
    assert ran.kaizen("runs", "show", ran.json[0]["run_id"], "--json") == 0
    (tree,) = ran.json
    assert [child["step"] for child in tree["children"]] == ["0.0", "0.1"]
    second = tree["children"][1]
    assert second["children"][0]["kind"] == "model"
    assert second["children"][0]["input"]["messages"]
    assert ran.kaizen("runs", "show", second["id"]) == 0
    assert ran.stdout.startswith("triage.Triage  ok")
    assert '{"message":"third!"}' in ran.stdout


def test_a_failed_run_shows_its_error(ran: Project) -> None:
    assert ran.kaizen("runs", "list", "--status", "error", "--json") == 0
    assert ran.kaizen("runs", "show", ran.json[0]["id"]) == 0
    assert "  error   unavailable: down\n" in ran.stdout
    assert "  output" not in ran.stdout


def test_erased_contents_are_not_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "app", _without_payloads(project))
    assert project.kaizen("run", "triage.py", "--message", "x", "--record") == 0
    assert project.kaizen("runs", "show", project.json["_record"]["id"]) == 0
    assert "  input   not kept, or erased\n" in project.stdout


def _without_payloads(project: Project) -> object:
    made = project.app

    def app() -> object:
        app = made()
        app.ledger._payloads = False
        return app

    return app


@pytest.mark.parametrize(
    ("identifier", "code", "said"),
    [
        ("xyz", 6, "'xyz' is no id"),
        ("01", 6, "'01' is no id"),
        ("ffffffff", 6, "there is no run or record ffffffff in local/dev"),
        ("ffffffff-ffff-7fff-bfff-ffffffffffff", 6, "there is no run or record ffffffff-"),
    ],
)
def test_ids_of_nothing(ran: Project, identifier: str, code: int, said: str) -> None:
    assert ran.kaizen("runs", "show", identifier) == code
    assert ran.stderr.startswith(f"error: {said}")


def test_the_beginning_of_several_ids(ran: Project) -> None:
    assert ran.kaizen("runs", "list", "--json") == 0
    assert ran.kaizen("runs", "show", ran.json[0]["id"][:4]) == 7
    assert "error: several ids begin with " in ran.stderr


def test_export_writes_records_as_lines(ran: Project) -> None:
    assert ran.kaizen("runs", "export") == 0
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [record["kind"] for record in records].count("model") == 5
    assert len(records) == 11
    assert "input" not in records[0]
    assert ran.kaizen("runs", "export", "--output", "r.jsonl", "--payloads", "--program", "triage.Triage") == 0
    assert (ran.stdout, ran.stderr) == ("", "5 records are in r.jsonl\n")
    assert ran.lines("r.jsonl")[0]["input"] == {"message": "first"}


def test_a_long_export_says_how_far_it_is(ran: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.serve.commands.runs._SAY_EVERY", 0.0)
    assert ran.kaizen("runs", "export", "--output", "r.jsonl") == 0
    assert ran.stderr.startswith("1 records\n2 records\n")


@pytest.mark.parametrize(("name", "said"), [("triage.py", "triage.py is there already"), ("no/r.jsonl", "can't write")])
def test_export_overwrites_nothing(ran: Project, name: str, said: str) -> None:
    assert ran.kaizen("runs", "export", "--output", name) == 10
    assert ran.stderr.startswith(f"error: {said}")
    assert Path("triage.py").read_text() == TRIAGE


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("program", {"both.both": 1, "triage.Triage": 5}),
        ("model", {"scripted/m": 5}),
    ],
)
def test_stats(ran: Project, by: str, groups: dict[str, int]) -> None:
    assert ran.kaizen("runs", "stats", "--by", by, "--json") == 0
    assert {stat["group"]: stat["calls"] for stat in ran.json} == groups
    assert sum(stat["errors"] for stat in ran.json) == 1
    assert ran.kaizen("runs", "stats", "--by", by) == 0
    head, *lines = ran.stdout.splitlines()
    assert head.split()[:6] == [by, "calls", "errors", "p50", "p95", "p99"]
    assert {line.split()[0]: int(line.split()[1]) for line in lines} == groups
    assert "\x1b" not in ran.stdout


def test_stats_by_version_show_a_short_one(ran: Project) -> None:
    assert ran.kaizen("runs", "stats", "--by", "version", "--program", "Triage", "--json") == 0
    whole = ran.json[0]["group"]
    assert ran.kaizen("runs", "stats", "--by", "version", "--program", "Triage") == 0
    assert whole[: len("triage.Triage@") + 8] == ran.stdout.splitlines()[1].split()[0]


def test_stats_as_a_plot(ran: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert ran.kaizen("runs", "stats", "--plot") == 0
    assert "latency p95, ms" in ran.stdout
    assert "█" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert all(len(line) <= 60 for line in ran.stdout.partition("\n\n")[2].splitlines())
    assert ran.kaizen("runs", "stats", "--plot", "--by", "day") == 0
    assert " calls " in ran.stdout


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_a_plot_in_colours_unless_they_are_off(
    ran: Project, monkeypatch: pytest.MonkeyPatch, no_color: str, *, coloured: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    assert ran.kaizen("runs", "stats") == 0
    assert "latency p95" in out.getvalue()
    assert ("\x1b[38;" in out.getvalue()) is coloured


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.123, "0.12 ms"), (12.3, "12 ms"), (12_345.0, "12.3 s")])
def test_latencies(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(("usd", "text"), [(None, "?"), (0.0, "$0"), (0.001234, "$0.0012"), (12.5, "$12.50")])
def test_costs(usd: float | None, text: str) -> None:
    assert dollars(usd) == text
