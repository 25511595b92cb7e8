"""Whether the main path needs more CPU than that of another commit: the guard of `make bench-compare`.

    python benchmarks/compare.py [--base REV] [--json out.json]

The source of the base is unpacked into a temporary folder and run in the same environment. A pair is a new process of
each, side by side, in a random order; both make the same structured calls (see `structured_call.py`; records and
payloads kept) in short turns, A B B A, so that whatever else the machine does falls on both alike. What a pair says is
the median of the ratios of its neighbouring turns; the pairs are independent, and a Student interval of their mean
logarithm is taken, one-sided, at 99 %.

It fails when the lower bound of the ratio lies above 1.05, one call at a time or with 32 in flight. As long as the
interval holds 1.05 it goes on, to at most four times as many pairs. `--trials N` compares the base with itself N times;
`--plant 10` makes the working tree slower by so many percent: how the guard itself is tested.

The base is by default the last commit if the source has changes that are not committed; else the point where the
branch left `main` (its own upstream first); else the parent. Without any of them (a first commit, a shallow clone) the
last commit is compared with itself.
"""

import argparse
import contextlib
import io
import math
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from lab import ROOT, Worker, environment, report, server

LIMIT = 1.05
MODES = (1, 32)
CALLS = 64  # of a turn
WARM_UP = 320
# One-sided 99 % quantiles of Student's t by degrees of freedom; between two rows the larger one is taken.
T_99 = {3: 4.541, 4: 3.747, 5: 3.365, 7: 2.998, 9: 2.821, 11: 2.718, 15: 2.602, 19: 2.539, 23: 2.500, 31: 2.453}


def git(*words: str) -> str | None:
    """What git says, or None when it fails."""
    run = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else None


def default_base() -> str:
    """The commit to compare with; see above."""
    if git("status", "--porcelain", "--", "src"):
        return "HEAD"
    head = git("rev-parse", "HEAD")
    for trunk in ("@{upstream}", "origin/HEAD", "origin/main", "main"):
        base = git("merge-base", "HEAD", trunk)
        if base and base != head:
            return base
    return "HEAD^" if git("rev-parse", "--verify", "--quiet", "HEAD^^{commit}") else "HEAD"


def unpack(commit: str, folder: Path) -> Path:
    """The source of a commit, without touching the work tree or git's own files."""
    packed = subprocess.run(["git", "archive", commit, "--", "src"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"


def start(source: Path, address: str, home: Path) -> Worker:
    """A warm process that runs this source.

    Raises:
        RuntimeError: if it has no main path, or another.
    """
    home.mkdir(parents=True)
    words = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "kaizen", f"{address}/v1", str(home)]
    worker = Worker(words, environment(source))
    try:
        worker.ask(1, WARM_UP)
        worker.ask(32, WARM_UP)
    except BaseException:
        worker.close()
        raise
    return worker


def pair(sources: tuple[Path, Path], folder: Path, rng: random.Random, options: argparse.Namespace) -> dict[str, Any]:
    """The logarithm of new over base for one process of each, by mode, and the base's CPU microseconds."""
    logs: dict[int, list[float]] = {mode: [] for mode in MODES}
    cpu: dict[int, list[float]] = {mode: [] for mode in MODES}
    order = rng.sample((0, 1), 2)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(server())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        workers: dict[int, Worker] = {}
        for side in order:
            workers[side] = start(sources[side], address, home / str(side))
            stack.callback(workers[side].close)
        rough = {mode: statistics.median(workers[0].ask(mode, CALLS)["cpu_us"] for _ in range(5)) for mode in MODES}
        for turn in range(options.turns):
            for mode in MODES:
                if options.plant:
                    workers[1].ask("plant", rough[mode] * options.plant / 100)
                used: dict[int, float] = {}
                for side in order if turn % 2 else reversed(order):
                    used[side] = workers[side].ask(mode, CALLS)["cpu_us"]
                logs[mode].append(math.log(used[1] / used[0]))
                cpu[mode].append(used[0])
    return {
        "log": {mode: statistics.median(found) for mode, found in logs.items()},
        "cpu": {mode: statistics.median(found) for mode, found in cpu.items()},
    }


def judged(logs: list[float]) -> dict[str, float]:
    """The ratio and its one-sided 99 % bounds."""
    mean = statistics.fmean(logs)
    free = len(logs) - 1
    quantile = T_99[max(known for known in T_99 if known <= free)]
    error = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    return {
        "ratio": round(math.exp(mean), 4),
        "low": round(math.exp(mean - error), 4),
        "high": round(math.exp(mean + error), 4),
    }


def compare(
    sources: tuple[Path, Path], folder: Path, rng: random.Random, options: argparse.Namespace
) -> dict[str, Any]:
    pairs: list[dict[str, Any]] = []
    verdicts: dict[str, dict[str, float]] = {}
    for _ in range(4):
        pairs += [pair(sources, folder, rng, options) for _ in range(options.pairs)]
        verdicts = {f"at_once_{mode}": judged([one["log"][mode] for one in pairs]) for mode in MODES}
        if any(found["low"] > LIMIT for found in verdicts.values()):
            break
        if all(found["high"] < LIMIT for found in verdicts.values()):
            break
    return {
        "pairs": len(pairs),
        "base_cpu_us": {f"at_once_{m}": round(statistics.median(one["cpu"][m] for one in pairs), 1) for m in MODES},
        **verdicts,
        "slower": any(found["low"] > LIMIT for found in verdicts.values()),
        "decided": all(found["high"] < LIMIT or found["low"] > LIMIT for found in verdicts.values()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--base", help="the commit to compare with")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of processes between two looks, at least 4")
    parser.add_argument("--turns", type=int, default=16, help="turns of each process")
    parser.add_argument("--trials", type=int, default=0, help="compare the base with itself so many times")
    parser.add_argument("--plant", type=float, default=0.0, metavar="PERCENT", help="make the second slower")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    if options.pairs < 4:
        parser.error("--pairs must be at least 4")
    base = options.base or default_base()
    commit = git("rev-parse", "--verify", f"{base}^{{commit}}")
    if commit is None:
        parser.error(f"there is no commit {base!r} here")
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = unpack(commit, folder)
        try:
            with server() as address:
                start(source, address, folder / "try").close()
        except RuntimeError as error:
            print(f"the base {base} has no main path to compare with: {error}")
            return 0
        if options.trials:
            trials: list[dict[str, Any]] = []
            for _ in range(options.trials):
                trials.append(compare((source, source), folder, rng, options))
                print(trials[-1], file=sys.stderr, flush=True)
            slower = sum(trial["slower"] for trial in trials)
            report(
                {"planted_percent": options.plant, "trials": len(trials), "called_slower": slower, "each": trials},
                seed=options.seed,
                file=options.json,
            )
            return 0
        result = compare((source, ROOT / "src"), folder, rng, options)
    report({"base": commit[:12], "limit": LIMIT, **result}, seed=options.seed, file=options.json)
    if result["slower"]:
        print(f"FAILED: the main path needs more than {LIMIT - 1:.0%} more CPU than at {base}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
