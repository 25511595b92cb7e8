"""All benchmarks, one after another, and one table of the bars: `make bench`.

    python benchmarks/run.py [NAME ...] [--quick] [--table]

Each script runs in a process of its own and writes its figures to `benchmarks/results/NAME.json`, with its command, its
seed and the machine. What takes hours or needs data sets is only run when it is named; its bars are shown from what is
kept. With `--quick` there are fewer rounds, for a look and not for the record: the results then go to
`build/bench/results`. A bar that a script could not measure is shown as `not measured`, and why stands above the table.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bars import BARS, SCRIPTS, Bar, Script
from lab import CACHE, RESULTS, ROOT, environment

LIMIT_S = 1200  # for one script that is not known to be long


def measure(script: Script, file: Path, *, quick: bool) -> str | None:
    """Run a script; why it gave no figures, or None when it did (missing its bar is no failure here).

    What is kept of an earlier run stays where it gave none.
    """
    earlier = file.with_suffix(".earlier")
    if file.is_file():
        file.replace(earlier)
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    words = (quick and script.quick) or script.words
    try:
        run = subprocess.run(
            [sys.executable, f"benchmarks/{script.path}.py", *words, "--json", str(shown)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=None if script.long else subprocess.PIPE,  # who waits for long sees how it goes
            text=True,
            timeout=None if script.long else LIMIT_S,
        )
        said = (run.stderr or "").strip()
        if said:
            print(said)
        return None if file.is_file() else said.rsplit("\n", 1)[-1] or f"exit status {run.returncode}"
    except subprocess.TimeoutExpired:
        return f"not done after {LIMIT_S} s"
    finally:
        if file.is_file():
            earlier.unlink(missing_ok=True)
        elif earlier.is_file():
            earlier.replace(file)


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
    usual = [name for name, script in SCRIPTS.items() if not script.long]
    named = f"of {', '.join(SCRIPTS)}; default: {', '.join(usual)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=named)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, results not kept")
    parser.add_argument("--table", action="store_true", help="measure nothing, only show what is there")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SCRIPTS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    folder = CACHE / "results" if options.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    measured = [] if options.table else options.names or usual
    for name in measured:
        print(f"{name} ...", flush=True)
        if problem := measure(SCRIPTS[name], folder / f"{name}.json", quick=options.quick):
            print(f"{name}: {problem}")
    shown = [bar for bar in BARS if bar.script in (options.names or SCRIPTS)]
    rows = [row(bar, folder / f"{bar.script}.json") for bar in shown]
    print(table(rows))
    counted = measured or options.names or SCRIPTS
    return 0 if all(line[3] == "met" for bar, line in zip(shown, rows, strict=True) if bar.script in counted) else 1


if __name__ == "__main__":
    raise SystemExit(main())
