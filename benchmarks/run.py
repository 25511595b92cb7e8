"""All benchmarks, one after another, and one table of the bars: `make bench`.

    python benchmarks/run.py [NAME ...] [--quick] [--keep FOLDER]

Each script runs in a process of its own and writes its figures to `benchmarks/results/NAME.json`, with its command, its
seed and the machine. With `--quick` there are fewer rounds, for a look and not for the record: the results then go to
`build/bench/results`. A bar that a script could not measure is shown as `not measured`, and why stands above the table.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import CACHE, RESULTS, ROOT, environment

LIMIT_S = 1200  # for one script


@dataclass(frozen=True)
class Bar:
    """One promise: which script measures it, what it found, and whether that is enough."""

    script: str
    what: str
    bar: str
    figure: Callable[[Any], str]
    met: Callable[[Any], bool]


QUICK = {
    "structured_call": ["--rounds", "6", "--slice", "0.15", "--peers", "kaizen,dspy,openai,aiohttp"],
    "concurrency": ["--rounds", "1", "--seconds", "40"],
    "cold_start": ["--processes", "12"],
    "startup": ["--rounds", "8"],
    "records": ["--seconds", "2", "--kills", "5", "--rounds", "3"],
    "embedded_overhead": ["--rounds", "20"],
    "batch_kill": [],
}

BARS = (
    Bar(
        "structured_call",
        "one async structured call, CPU, over dspy's",
        "at most 0.16",
        lambda r: "{median} ({low} .. {high})".format(**r["ratio"]["at_once_1"]),
        lambda r: r["met"],
    ),
    Bar(
        "cold_start",
        "new process to the first byte, CPU beyond imports",
        "under 5 ms",
        lambda r: "{median} ms ({low} .. {high})".format(**r["first_byte_ms"]),
        lambda r: r["met"],
    ),
    Bar(
        "concurrency",
        "10,000 calls at once: answered, CPU, peak memory",
        "all, 5 s, 300 MiB",
        lambda r: ", ".join(
            (
                f"{min(one['answered'] for one in r['kaizen']):,}",
                f"{max(one['cpu_s'] for one in r['kaizen'])} s",
                f"{max(one['peak_mib'] for one in r['kaizen']):.0f} MiB",
            )
        ),
        lambda r: r["met"],
    ),
    Bar(
        "startup",
        "`import kaizen`: modules of ours",
        "one",
        lambda r: str(r["import kaizen"]["modules"]),
        lambda r: r["import kaizen"]["modules"] == 1,
    ),
    *(
        Bar(
            "startup",
            f"`{name}`, CPU over importing pydantic",
            f"at most {most}",
            lambda r, name=name: "{median} ({low} .. {high})".format(**r[name]["ratio"]),
            lambda r, name=name: r[name]["met"],
        )
        for name, most in (("from kaizen import signature", 1.5), ("kaizen --help", 2.0))
    ),
    Bar(
        "records",
        "records into SQLite, one process",
        "5,000 a second",
        lambda r: f"{r['one_process']['records_per_s']:,} a second",
        lambda r: r["one_process"]["records_per_s"] >= 5000,
    ),
    Bar(
        "records",
        "4 writing processes, slowest append (a loop that only sleeps: the machine's own)",
        "under 100 ms",
        lambda r: "{append_max_ms} ms ({probe_max_ms} ms)".format(**r["processes_paced"]),
        lambda r: r["processes_paced"]["append_max_ms"] < 100,
    ),
    Bar(
        "records",
        "records lost on kill -9 after the answer",
        "none",
        lambda r: "{lost} of {reported:,}, {kills} kills".format(**r["kill"]),
        lambda r: r["kill"]["lost"] == 0 and r["kill"]["halves"] == 0 and r["kill"]["integrity"] == "ok",
    ),
    Bar(
        "embedded_overhead",
        "embedded model above xllamacpp's own handler",
        "under 3 ms",
        lambda r: "{0} ms ({1[0]} .. {1[1]})".format(r["complete"]["difference_ms"], r["complete"]["interval_95_ms"]),
        lambda r: r["complete"]["difference_ms"] < r["bar_ms"],
    ),
    Bar(
        "batch_kill",
        "batch of 1,000 rows killed three times and resumed",
        "1,000, each once",
        lambda r: f"{r['rows_out']:,}, {r['missing']} missing, {r['double']} double",
        lambda r: r["met"],
    ),
)
NAMES = tuple(dict.fromkeys(bar.script for bar in BARS))


def measure(name: str, file: Path, words: list[str]) -> str | None:
    """Run a script; why it gave no figures, or None when it did (missing its bar is no failure here)."""
    script = ROOT / "benchmarks" / f"{name}.py"
    if not script.is_file():
        return "there is no such script yet"
    file.unlink(missing_ok=True)
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    try:
        run = subprocess.run(
            [sys.executable, f"benchmarks/{name}.py", "--json", str(shown), *words],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {LIMIT_S} s"
    said = run.stderr.strip()
    if said:
        print(said)
    return None if file.is_file() else said.rsplit("\n", 1)[-1] or f"exit status {run.returncode}"


def row(bar: Bar, file: Path) -> tuple[str, str, str, str]:
    if not file.is_file():
        return bar.what, bar.bar, "not measured", "?"
    result = json.loads(file.read_text(encoding="utf-8"))
    try:
        return bar.what, bar.bar, bar.figure(result), "met" if bar.met(result) else "NOT MET"
    except (KeyError, TypeError) as error:
        return bar.what, bar.bar, f"not measured ({error})", "?"


def table(rows: list[tuple[str, str, str, str]]) -> str:
    whole = [("what", "bar", "figure", ""), *rows]
    widths = [max(len(line[column]) for line in whole) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in whole)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, results not kept")
    parser.add_argument("--table", action="store_true", help="measure nothing, only show what is there")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    folder = CACHE / "results" if options.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    names = options.names or NAMES
    for name in () if options.table else names:
        print(f"{name} ...", flush=True)
        if problem := measure(name, folder / f"{name}.json", QUICK[name] if options.quick else []):
            print(f"{name}: {problem}")
    rows = [row(bar, folder / f"{bar.script}.json") for bar in BARS if bar.script in names]
    print(table(rows))
    return 0 if all(line[3] == "met" for line in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
