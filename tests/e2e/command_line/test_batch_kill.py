"""A batch that is killed and started again does every row once."""

from __future__ import annotations

import json
import random
import time

from kaizen.testing.fault_server import slow
from tests.e2e.command_line.conftest import CliProject, wait_for

ROWS = 200
KILLS = 3
CONCURRENCY = 8


def test_killed_three_times_each_row_is_there_once(cli: CliProject) -> None:
    seed = random.randrange(10_000)
    chance = random.Random(seed)
    cli.server.default = slow(0.02)
    # every second row equals another one: those are two rows
    rows = [{"n": n if n % 2 else 0, "message": f"m{n if n % 2 else 0}"} for n in range(ROWS)]
    (cli.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    marks = sorted(chance.sample(range(1, ROWS - 20), KILLS))
    for mark in marks:
        process = cli.start(*cli.batch("--concurrency", str(CONCURRENCY)))
        wait_for(lambda least=mark: cli.answered() >= least)
        time.sleep(chance.random() * 0.02)
        process.kill()
        process.communicate()
        assert process.returncode == -9, f"seed {seed}"
    ran = cli.run(*cli.batch("--concurrency", str(CONCURRENCY)))
    assert ran.returncode == 0, f"seed {seed}: {ran.stderr}"
    lines = cli.lines("out.jsonl")
    key = json.dumps
    assert sorted(key({"n": line["n"], "message": line["message"]}) for line in lines) == sorted(map(key, rows))
    assert len({line["_record"] for line in lines}) == ROWS, f"seed {seed}"
    # what was in the air at a kill was not answered, and is asked again; nothing else is
    assert ROWS <= cli.server.count <= ROWS + KILLS * CONCURRENCY, f"seed {seed}"
    kept = {record["id"] for record in map(json.loads, cli.run("runs", "export", "--status", "ok").stdout.splitlines())}
    assert {line["_record"] for line in lines} <= kept, f"seed {seed}"
    again = cli.run(*cli.batch())
    assert (again.returncode, again.stderr) == (0, f"nothing to do: out.jsonl holds all {ROWS} rows\n")
