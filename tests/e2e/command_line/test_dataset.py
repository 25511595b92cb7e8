"""Rows out of records, from the calls that a server got to what an optimizer may learn from."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.command_line.conftest import CliProject

MESSAGES = (
    "Someone stole my card at the station this morning, please stop it now",
    "Someone stole my card at the station this morning, please stop it now!",
    "Where is the money that I sent to ada@example.com on Monday?",
)


def said(cli: CliProject, *argv: str) -> Any:
    done = cli.run(*argv, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def scored(cli: CliProject) -> None:
    """Three calls, each with a person's word on it; the last is put right."""
    for message in MESSAGES:
        assert cli.run("run", "triage.py:Triage", "--message", message).returncode == 0
    assert cli.server.count == 3
    runs = {one["id"]: one for one in said(cli, "runs", "list")}
    assert len(runs) == 3
    for at, record in enumerate(sorted(runs)):
        word = ("1",) if at < 2 else ("--correct", '{"team": "transfers"}')
        assert cli.run("score", record, *word).returncode == 0


def test_what_people_said_of_answers_becomes_rows_without_asking_anybody(cli: CliProject) -> None:
    scored(cli)
    made = cli.run("dataset", "from-runs", "Triage", "--where", "score >= 0.8 or corrected", "-o", "rows")
    assert made.returncode == 0, made.stderr
    (file,) = (cli.folder / "rows").glob("*.jsonl")
    rows = {row["message"]: row["team"] for row in cli.lines(str(file))}
    assert len(rows) == 2  # of two that say the same, one
    assert rows[MESSAGES[2]] == "transfers"  # what a person put right, not what was answered
    assert set(rows) - {MESSAGES[2]} <= set(MESSAGES[:2])

    wish = ("from-runs", "Triage", "--where", "score >= 0.8 or corrected", "--keep-alike", "--redact", "-o", "all")
    assert cli.run("dataset", *wish).returncode == 0
    (file,) = (cli.folder / "all").glob("*.jsonl")
    messages = [row["message"] for row in cli.lines(str(file))]
    assert len(messages) == 3
    assert not any("ada@example.com" in message for message in messages)
    assert cli.server.count == 3


def test_rows_put_aside_for_a_test_are_refused_before_a_model_is_asked(cli: CliProject) -> None:
    lines = [{"message": f"message {at}", "team": "cards", "urgency": 1} for at in range(12)]
    (cli.folder / "mail.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    parts = cli.run(
        *("dataset", "import", "mail.jsonl", "--program", "triage.py:Triage", "--split", "0.5,0.25,0.25", "-o", "parts")
    )
    assert parts.returncode == 0, parts.stderr
    split = {file.stem: cli.lines(str(file)) for file in (cli.folder / "parts").glob("*.jsonl")}
    shown = [sorted(row["message"] for row in rows) for rows in split.values()]
    assert sorted(message for some in shown for message in some) == sorted(line["message"] for line in lines)
    test = next(file for file in (cli.folder / "parts").glob("*.jsonl") if "test" in file.stem)
    refused = cli.run("optimize", "triage.py:Triage", "--train", "mail.jsonl", "--budget", "50")
    assert refused.returncode != 0
    assert "kept for testing" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert cli.run("optimize", "triage.py:Triage", "--train", str(test), "--budget", "50").returncode != 0
    assert cli.server.count == 0
