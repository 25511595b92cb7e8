"""How fast, how steadily and how safely records are kept in SQLite.

    python benchmarks/records.py --json out.json

One append is what a structured call leaves: a program's and a model's record and their four payloads, about 1 KB of
contents in all. Reported:

* `lone_cpu_us`: CPU (all threads, upkeep of the file included) of one append when nothing else is in the air;
  `grouped_cpu_us`: of one of 1,000 at once. Medians of the rounds. `*_loop_gap_ms`: the longest time for which the
  event loop did not turn.
* `records_per_s`: records kept by one process, with 64 tasks that append one after another.
* `processes_full`, `processes_paced`: four processes with eight such tasks each, on one file: as fast as they can,
  and at 5,000 records a second in all. `append_max_ms` is the slowest append of any of them.
* `kill`: a process that reports what it kept is killed (`SIGKILL`) at a random time, over and over; `lost` counts what
  was reported and is not there.
* `stats_s`, `read_cpu_us`: grouping all records there are, and CPU of reading one.

CPU time is the figure to compare; wall times, stalls among them, say much about the machine: `probe_max_ms` is the
longest that a loop which only sleeps for a millisecond overslept in the same run.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kaizen.core.ids import digest, new_id
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.scope import LOCAL
from kaizen.ledger.views import stats
from kaizen.stores.sqlite import SqliteStore

PROCESSES = 4
TASKS = 8
RATE = 5_000  # records a second, all processes together
CALL = 2  # records in an append

Call = tuple[list[Record], list[Payload]]


def call(rng: random.Random) -> Call:
    """What one structured call leaves."""
    root, run = new_id(), new_id()
    payloads = [Payload(digest(data), data) for data in (rng.randbytes(125).hex().encode() for _ in range(4))]
    common: dict[str, Any] = {
        "run_id": run,
        "scope": LOCAL,
        "principal": "me",
        "started_at": time.time(),
        "latency_ms": rng.lognormvariate(5, 1),
        "model": "openai/some-model",
        "params": "5f" * 16,
        "contract": "c0" * 16,
        "tokens_in": 321,
        "tokens_out": 22,
        "cost_usd": 0.001,
        "attempts": 1,
        "model_calls": 1,
    }
    ins = [payload.digest for payload in payloads]
    program = Record(id=root, kind="program", ref="mail.Triage", input_digest=ins[0], output_digest=ins[1], **common)
    model = Record(
        id=new_id(),
        kind="model",
        ref="openai/some-model",
        parent_id=root,
        step="0",
        input_digest=ins[2],
        output_digest=ins[3],
        **common,
    )
    return [program, model], payloads


class Probe:
    """Measures how long the event loop goes without a turn."""

    async def __aenter__(self) -> "Probe":
        self.gap = 0.0
        self.task = asyncio.create_task(self.watch())
        return self

    async def watch(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            self.gap = max(self.gap, time.perf_counter() - start - 0.001)

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()


async def cpu(store: SqliteStore, rng: random.Random, calls: int, at_once: int) -> tuple[float, float]:
    """CPU microseconds of an append and the longest gap of the loop in milliseconds."""
    made = [call(rng) for _ in range(calls)]
    async with Probe() as probe:
        await asyncio.sleep(0.01)
        start = time.process_time()
        for first in range(0, calls, at_once):
            if at_once == 1:
                await store.append(LOCAL, *made[first])
            else:
                await asyncio.gather(*[store.append(LOCAL, *one) for one in made[first : first + at_once]])
        used = time.process_time() - start
    return used / calls * 1e6, probe.gap * 1e3


async def rate(
    store: SqliteStore, rng: random.Random, seconds: float, tasks: int, per_s: float | None
) -> dict[str, Any]:
    """Tasks that append one call after another; `per_s` is the pace of appends, all tasks together."""
    slowest: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        due = time.perf_counter() + rng.random() * tasks / (per_s or 1e9)
        while (now := time.perf_counter()) < end:
            if per_s is not None:
                await asyncio.sleep(max(0, due - now))
                due += tasks / per_s
            made = call(rng)
            start = time.perf_counter()
            await store.append(LOCAL, *made)
            slowest.append(time.perf_counter() - start)

    start, used = time.perf_counter(), time.process_time()
    async with Probe() as probe:
        await asyncio.gather(*[one() for _ in range(tasks)])
    took = time.perf_counter() - start
    slowest.sort()
    return {
        "records": CALL * len(slowest),
        "records_per_s": round(CALL * len(slowest) / took),
        "append_p50_ms": round(slowest[len(slowest) // 2] * 1e3, 3),
        "append_p999_ms": round(slowest[int(len(slowest) * 0.999)] * 1e3, 2),
        "append_max_ms": round(slowest[-1] * 1e3, 2),
        "loop_gap_ms": round(probe.gap * 1e3, 2),
        "cpu_us": round((time.process_time() - used) / len(slowest) * 1e6, 1),
    }


async def worker(options: argparse.Namespace) -> None:
    """One of several writing processes: waits for a line, writes, prints its figures."""
    store = SqliteStore(options.file)
    rng = random.Random(options.seed)
    await store.append(LOCAL, *call(rng))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps(await rate(store, rng, options.seconds, TASKS, options.pace)), flush=True)
    await store.close()


async def victim(options: argparse.Namespace) -> None:
    """Appends without end and prints the id of each program record once it is kept."""
    store = SqliteStore(options.file)
    rng = random.Random(options.seed)

    async def one() -> None:
        while True:
            made = call(rng)
            await store.append(LOCAL, *made)
            os.write(1, f"{made[0][0].id}\n".encode())

    await asyncio.gather(*[one() for _ in range(TASKS)])


def start(options: argparse.Namespace, role: str, file: Path, seed: int, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--role", role, "--file", str(file), "--seed", str(seed)]
    command += ["--seconds", str(options.seconds), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def processes(options: argparse.Namespace, folder: Path, pace: float | None) -> dict[str, Any]:
    file = folder / f"processes-{pace}.db"
    more = () if pace is None else ("--pace", str(pace))
    children = [start(options, "worker", file, options.seed + n, *more) for n in range(PROCESSES)]
    for child in children:
        child.stdout.readline()
    async with Probe() as probe:
        for child in children:
            child.stdin.write(b"go\n")
            child.stdin.flush()
        await asyncio.sleep(options.seconds)
    figures = [json.loads(child.communicate()[0]) for child in children]
    there = sqlite3.connect(file).execute("SELECT count(*) FROM records").fetchone()[0]
    return {
        "records": sum(figure["records"] for figure in figures),
        "records_missing": sum(figure["records"] for figure in figures) + PROCESSES * CALL - there,
        "records_per_s": sum(figure["records_per_s"] for figure in figures),
        "least_share": round(min(f["records"] for f in figures) / sum(f["records"] for f in figures), 3),
        "append_p50_ms": max(figure["append_p50_ms"] for figure in figures),
        "append_p999_ms": max(figure["append_p999_ms"] for figure in figures),
        "append_max_ms": max(figure["append_max_ms"] for figure in figures),
        "loop_gap_ms": max(figure["loop_gap_ms"] for figure in figures),
        "probe_max_ms": round(probe.gap * 1e3, 2),
    }


async def kill(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rng = random.Random(options.seed)
    file, kept, torn = folder / "kill.db", set[str](), 0
    for round_ in range(options.kills):
        child = start(options, "victim", file, options.seed + round_)
        first = child.stdout.readline()
        await asyncio.sleep(rng.uniform(0.01, 0.5))
        child.kill()
        lines = (first + child.communicate()[0]).split(b"\n")
        torn += bool(lines.pop())
        kept.update(line.decode() for line in lines)
    store = SqliteStore(file)
    there, children = set[str](), set[str | None]()
    async for record in store.records(LOCAL, RecordQuery()):
        (there if record.kind == "program" else children).add(
            record.id if record.kind == "program" else record.parent_id
        )
        for address in (record.input_digest, record.output_digest):
            if address is not None and rng.random() < 0.02:
                assert await store.payload(LOCAL, address) is not None
    await store.close()
    check = sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone()[0]
    return {
        "kills": options.kills,
        "reported": len(kept),
        "lost": len(kept - there),
        "halves": len(there ^ children),
        "integrity": check,
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        store = SqliteStore(folder / "one.db")
        await store.append(LOCAL, *call(rng))
        lone = [await cpu(store, rng, 2_000, 1) for _ in range(options.rounds)]
        grouped = [await cpu(store, rng, 4_000, 1_000) for _ in range(options.rounds)]
        for title, rounds in (("lone", lone), ("grouped", grouped)):
            result[f"{title}_cpu_us"] = round(statistics.median(figure for figure, _ in rounds), 1)
            result[f"{title}_cpu_us_rounds"] = [round(figure, 1) for figure, _ in rounds]
            result[f"{title}_loop_gap_ms"] = round(max(gap for _, gap in rounds), 2)
        result["one_process"] = await rate(store, rng, options.seconds, 64, None)
        used, began, count = time.process_time(), time.perf_counter(), 0
        async for _ in store.records(LOCAL, RecordQuery()):
            count += 1
        result["read_records"], result["read_cpu_us"] = count, round((time.process_time() - used) / count * 1e6, 1)
        began = time.perf_counter()
        await stats(store, LOCAL, "program")
        result["stats_s"] = round(time.perf_counter() - began, 2)
        await store.close()
        result["processes_full"] = await processes(options, folder, None)
        result["processes_paced"] = await processes(options, folder, RATE / PROCESSES / CALL)
        result["kill"] = await kill(options, folder)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5, help="for each timed part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--role", choices=("worker", "victim"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pace", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is not None:
        asyncio.run({"worker": worker, "victim": victim}[options.role](options))
        return
    result = {
        "command": "python benchmarks/records.py " + " ".join(sys.argv[1:]),
        "seed": options.seed,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "load": os.getloadavg(),
        },
        **asyncio.run(measure(options)),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
