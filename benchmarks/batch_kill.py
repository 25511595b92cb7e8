"""A batch that is killed at random times and started again: every row once, none lost, none twice.

    python benchmarks/batch_kill.py --json out.json

`kaizen run FILE --input rows.jsonl --output out.jsonl` runs on a local server on a real socket and is killed
(`SIGKILL`) at random times, which the seed gives in answered rows plus a random part of a call; then it is started once
more and left to end. A quarter of the rows equal another row. Reported:

* `rows_out`: lines of the output; `missing` and `double`: rows that are not there, or too often; the bar is 0 of each.
* `asked`: calls that reached the server. What was in the air at a kill is asked again, and nothing else, so they may be
  `rows` plus `kills` times `concurrency` at most.
* `unrecorded`: lines whose record is not in the ledger.
* `cpu_ms_row`: CPU milliseconds of all the processes per row, starts included; `wall_s`: of the whole.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lab import ANSWER, environment, report, served, server

PROGRAM = """\
from typing import Literal

from kaizen import Signature, context


class Triage(Signature):
    message: str = context.input()
    team: Literal["cards", "transfers", "accounts"] = context.output()
    urgency: int = context.output(ge=1, le=5)
"""
DELAY = 0.05  # seconds before each of the server's answers


class Job:
    """The command in a project's folder."""

    def __init__(self, folder: Path, base: str, rows: list[dict[str, Any]], concurrency: int) -> None:
        self.folder, self.rows = folder, rows
        (folder / "triage.py").write_text(PROGRAM)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "kaizen.toml").write_text(
            f'model = "mine/m"\n[providers.mine]\nkind = "openai"\nbase_url = "{base}/v1"\napi_key = "none"\n'
        )
        files = ["--input", "rows.jsonl", "--output", "out.jsonl"]
        self.words = ["run", "triage.py", *files, "--concurrency", str(concurrency)]

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kaizen", *(words or self.words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=pipe, stderr=pipe, text=True)

    def answered(self) -> int:
        out = self.folder / "out.jsonl"
        return out.read_bytes().count(b"\n") if out.exists() else 0

    def killed_at(self, mark: int, later: float) -> int:
        """Run until so many rows are answered, and a little longer; how many lines there are then."""
        process = self.start()
        while self.answered() < mark:
            if process.poll() is not None:
                raise SystemExit(f"it ended by itself: {process.communicate()[1]}")
            time.sleep(0.005)
        time.sleep(later)
        process.kill()
        process.communicate()
        return self.answered()

    def check(self) -> dict[str, int]:
        """What came out, against what went in."""
        lines = [json.loads(line) for line in (self.folder / "out.jsonl").read_text().splitlines()]
        wanted = Counter(json.dumps(row) for row in self.rows)
        given = Counter(json.dumps({name: line[name] for name in self.rows[0]}) for line in lines)
        exported, _ = self.start("runs", "export", "--status", "ok").communicate()
        kept = {json.loads(line)["id"] for line in exported.splitlines()}
        return {
            "rows_out": len(lines),
            "missing": (wanted - given).total(),
            "double": (given - wanted).total(),
            "unrecorded": len({line["_record"] for line in lines} - kept),
        }


def measure(options: argparse.Namespace, base: str, folder: Path) -> dict[str, Any]:
    rng, count = random.Random(options.seed), options.rows
    rows = [{"n": n, "message": f"message {n}"} for n in (n if n % 4 else 0 for n in range(count))]
    job = Job(folder, base, rows, options.concurrency)
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    marks = sorted(rng.sample(range(1, count * 9 // 10), options.kills))
    kills = [job.killed_at(mark, rng.random() * DELAY) for mark in marks]
    last = job.start()
    _, said = last.communicate()
    if last.returncode:
        raise SystemExit(said)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    asked = served(base)
    result = {"killed_at_rows": kills, "asked": asked, **job.check()}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result |= {"cpu_ms_row": round(cpu * 1000 / count, 2), "wall_s": round(wall, 1)}
    most = count + options.kills * options.concurrency
    bad = result["missing"] + result["double"] + result["unrecorded"]
    return {**result, "met": bad == 0 and result["rows_out"] == count and asked <= most}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, server(DELAY) as base:
        result = measure(options, base, Path(name))
    given = {"rows": options.rows, "kills": options.kills, "concurrency": options.concurrency}
    row = {
        "what": f"a batch of {options.rows:,} rows, killed {options.kills} times at random and started again",
        "measured": f"{result['rows_out']:,} rows, {result['missing']} missing, {result['double']} double",
        "against": f"{options.rows:,} rows, each once",
    }
    report({**given, "answer": ANSWER, **result, "readme": [row]}, seed=options.seed, file=options.json)
    return 0 if result["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
