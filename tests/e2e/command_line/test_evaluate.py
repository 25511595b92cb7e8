"""An evaluation on a real socket: what it asks of the server, within its budget, and after it was killed."""

from __future__ import annotations

import json
import time

from kaizen.testing.fault_server import slow, status
from tests.e2e.command_line.conftest import CliProject, wait_for

ROWS = 60


def evaluation(cli: CliProject, *more: str) -> tuple[str, ...]:
    rows = [{"message": f"m{n}", "team": ("cards", "transfers")[n % 2], "urgency": 4} for n in range(ROWS)]
    (cli.folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("eval", "triage.py:Triage", "--data", "test.jsonl", "--json", *more)


def test_a_budget_is_never_passed_and_a_larger_one_goes_on(cli: CliProject) -> None:
    argv = evaluation(cli, "--concurrency", "4")
    cli.server.queue(status(503))  # asked again: a call that reaches the model, too
    ran = cli.run(*argv, "--budget", "20")
    assert ran.returncode == 9, ran.stderr
    assert cli.server.count == 20
    assert "19 of 60 rows are done" in ran.stderr
    run = ran.stderr.splitlines()[0].split()[1].rstrip(":")
    assert f"--resume {run}" in ran.stderr
    again = cli.run(*argv, "--budget", "20", "--resume", run)
    assert (again.returncode, cli.server.count) == (9, 20)
    whole = cli.run(*argv, "--budget", "61", "--resume", run)
    assert whole.returncode == 0, whole.stderr
    found = json.loads(whole.stdout)
    assert (found["score"], found["n"], cli.server.count) == (0.5, ROWS, 61)
    assert found["cost_usd"] > 0


def test_killed_and_resumed_it_pays_for_no_answer_twice(cli: CliProject) -> None:
    cli.server.default = slow(0.05)
    process = cli.start(*evaluation(cli, "--concurrency", "4"))
    wait_for(lambda: cli.server.count >= 20)
    time.sleep(0.01)
    process.kill()
    _, said = process.communicate()
    run = said.splitlines()[0].split()[1].rstrip(":")
    cli.server.default = slow(0.0)
    done = cli.run(*evaluation(cli), "--resume", run)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["score"], found["n"]) == (0.5, ROWS)
    assert ROWS <= cli.server.count <= ROWS + 4  # at most what was in the air
    records = [json.loads(line) for line in cli.run("runs", "export").stdout.splitlines()]
    scores = [record["about"] for record in records if record["kind"] == "score"]
    assert len(scores) == len(set(scores)) == ROWS
    fresh = json.loads(cli.run(*evaluation(cli)).stdout)
    assert [fresh[name] for name in ("score", "low", "high", "n")] == [
        found[name] for name in ("score", "low", "high", "n")
    ]
