"""An optimizer that is killed at random times and resumed: the same result, nothing paid twice, the budget held.

    python benchmarks/learn/resume.py --json benchmarks/results/resume_optimize.json

`kaizen optimize` runs in a process of its own against a scripted strong model on a real socket (see ``strong.py``),
once undisturbed, and then once for each seed of kills in a fresh project: it is killed (`SIGKILL`) ten times, each
after a random number of further requests and a random part of a call, resumed by the same command with ``--resume``,
and at last left to end. One row is worked on at a time. Reported for each:

* ``same``: whether what it found (winner, scores, candidates, choice) is that of the undisturbed run, byte for byte.
* ``again``: requests that reached the server more than once; at most one for each kill, which was in the air.
* ``asked``: requests that reached the server in all, ``counted``: what the run's durable count says; ``budget``.
* ``second``: whether a second process that resumed the run at the same time was refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import environment, report  # noqa: E402 - the path has to be set first
from benchmarks.learn.strong import TASKS, reply, rows  # noqa: E402
from kaizen.testing.fault_server import Call, Fault, FaultServer  # noqa: E402

KILLS = 10
DELAY = 0.01  # seconds before each answer
PROGRAM = '''\
from typing import Literal

from kaizen import Signature, context


class Routing(Signature):
    """Name the team that takes the message."""

    message: str = context.input("what the customer wrote")
    team: Literal["red", "green", "blue", "amber", "violet"] = context.output("the team")
'''
SAME = (
    *("improved", "reason", "how", "before", "after", "low", "high", "n"),
    *("chance", "candidates", "front", "params", "stopped"),
)


class Counting(FaultServer):
    """Counts each request by its contents."""

    def __init__(self) -> None:
        super().__init__(reply, default=Fault(delay=DELAY), keep=1)
        self.asked: Counter[str] = Counter()

    def received(self, call: Call) -> Fault:
        self.asked[hashlib.sha256(call.body).hexdigest()] += 1
        return super().received(call)


class Job:
    """The command in a project's folder."""

    def __init__(self, folder: Path, server: Counting, optimizer: str, budget: int) -> None:
        self.folder, self.server = folder, server
        (folder / "desk.py").write_text(PROGRAM)
        for part, count in (("train", 40), ("val", 20), ("test", 30)):
            some = rows(TASKS["routing"], count, f"{part} 0")
            text = "".join(json.dumps({**row.inputs, **row.outputs}) + "\n" for row in some)
            (folder / f"{part}.jsonl").write_text(text)
        (folder / "kaizen.toml").write_text(
            f'model = "mine/m"\n[providers.mine]\nkind = "openai"\nbase_url = "{server.base_url}"\napi_key = "none"\n'
        )
        files = [word for part in ("train", "val", "test") for word in (f"--{part}", f"{part}.jsonl")]
        self.words = ["optimize", "desk.py:Routing", *files, "--optimizer", optimizer, "--budget", str(budget)]
        self.words += ["--concurrency", "1", "--json"]

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kaizen", *self.words, *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=pipe, stderr=pipe, text=True)

    def finish(self, *words: str) -> dict[str, Any]:
        out, err = self.start(*words).communicate(timeout=300)
        try:
            return json.loads(out)
        except ValueError:
            raise SystemExit(f"no result: {err[-2000:]}") from None


def run_id_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    return line.split()[1].rstrip(":")


def killed(job: Job, draw: random.Random, kills: int, wanted: int) -> tuple[str, int, bool | None]:
    """Kill so many times, spread over what it will ask; the run, the kills that struck, and a second process's fate."""
    words: list[str] = []
    run, struck, refused = "", 0, None
    marks = sorted(draw.randint(1, wanted - 1) for _ in range(kills))
    for number, mark in enumerate(marks):
        process = job.start(*words)
        run = run_id_of(process)
        words = ["--resume", run]
        if number == kills // 2:
            second = job.start(*words)
            _, said = second.communicate(timeout=60)
            refused = second.returncode != 0 and "another process works on run" in said
        while sum(job.server.asked.values()) < mark and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.random() * 2 * DELAY)
        if process.poll() is not None:
            process.communicate()
            break
        process.kill()
        process.communicate()
        struck += 1
    return run, struck, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", default="compose,reflective,instructions,genetic")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--budget", type=int, default=250)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table: list[dict[str, Any]] = []
    for optimizer in args.optimizers.split(","):
        with Counting() as server, tempfile.TemporaryDirectory() as folder:
            whole = Job(Path(folder), server, optimizer, args.budget).finish()
            asked = sum(server.asked.values())
        for seed in range(args.seeds):
            with Counting() as server, tempfile.TemporaryDirectory() as folder:
                job = Job(Path(folder), server, optimizer, args.budget)
                run, struck, refused = killed(job, random.Random(seed), KILLS, asked)
                found = job.finish("--resume", run)
                one = {
                    "optimizer": optimizer,
                    "seed": seed,
                    "kills": struck,
                    "same": all(found[name] == whole[name] for name in SAME),
                    "undisturbed_asked": asked,
                    "asked": sum(server.asked.values()),
                    "again": sum(count - 1 for count in server.asked.values()),
                    "counted": found["calls"],
                    "budget": args.budget,
                    "second_refused": refused,
                    "improved": found["improved"],
                }
                if not one["same"]:
                    one["differs"] = {name: [whole[name], found[name]] for name in SAME if found[name] != whole[name]}
                table.append(one)
                print(one, file=sys.stderr, flush=True)
    report({"kills": KILLS, "runs": table}, seed=0, file=args.json)


if __name__ == "__main__":
    main()
