"""What optimizing is worth on a model of 135 million parameters: held-out accuracy against DSPy and against no model.

    python benchmarks/learn/accuracy.py --json benchmarks/results/learn_accuracy.json
    python benchmarks/learn/accuracy.py --tasks sst2 --seeds 0 --rows 60 --arms base,without,ours

Tasks: ``sst2`` (the mood of a film review), ``banking8`` (eight intents of banking77), ``slots`` (five values in what a
restaurant's guest writes, restaurant8k; a row counts where all five are right), from the folder of data sets that
KAIZEN_DATA names, by default ``../shared/data``. A seed draws 40 rows to learn from and 20 to choose by from the train
file, and the test rows from the test file. Arms, on the same rows:

* ``base``: the program as it is written.
* ``without``: no model at all, ``kaizen eval --without-model`` on the same 60 rows: neighbours, a linear classifier or
  the majority on Kaizen's embedder, and a span finder.
* ``dspy``: the best on the test rows of DSPy's optimizers and its plain program, which is generous to it.
* ``ours``: ``kaizen optimize`` with at most 500 calls, then ``kaizen eval --version latest``.

One row is asked at a time: two would each read the examples that they share, on a machine of two cores no faster.

Every arm of every task and seed is kept in ``--folder`` as it is done, and not done again: a run that was stopped goes
on. Intervals are paired bootstraps over rows, of all seeds together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import CACHE, environment, python_of, report  # noqa: E402 - the path has to be set first
from kaizen.learn.metrics.compare import same  # noqa: E402
from kaizen.learn.stats import paired  # noqa: E402

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "accuracy_tasks.py"
MODEL = "embedded/smollm2-135m"
PINS = ("dspy==3.4.1", "litellm==1.106.2", "openai==2.54.0", "pydantic==2.14.3")
TRAIN, VAL, CALLS = 40, 20, 500
NAMES: Mapping[str, str] = {"sst2": "Sst2", "banking8": "Banking8", "slots": "Slots"}
SLOTS = ("people", "date", "time", "first_name", "last_name")
LABELS = frozenset(
    {"card_arrival", "lost_or_stolen_card", "exchange_rate", "pending_top_up", "change_pin"}
    | {"Refund_not_showing_up", "country_support", "terminate_account"}
)
ARMS = ("base", "without", "dspy", "ours")
Rows = list[dict[str, Any]]


# -- data -----------------------------------------------------------------------------------------


def data_folder() -> Path:
    """Where the data sets are."""
    folder = Path(os.environ.get("KAIZEN_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        raise SystemExit(f"there is no folder {folder} of data sets: set KAIZEN_DATA")
    return folder


def drawn(task: str, seed: int, count: int) -> dict[str, Rows]:
    """The rows of a task and seed, by split."""
    folder = {"sst2": "sst2", "banking8": "banking77", "slots": "restaurant8k"}[task]
    train, test = (_read(task, data_folder() / folder / f"{name}.jsonl") for name in ("train", "test"))
    rng = random.Random(f"{task} {seed}")
    rng.shuffle(train)
    rng.shuffle(test)
    return {"train": train[:TRAIN], "val": train[TRAIN : TRAIN + VAL], "test": test[:count]}


def _read(task: str, path: Path) -> Rows:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if task == "slots":
        return [{"text": one["text"], **{name: one["slots"].get(name) for name in SLOTS}} for one in rows]
    kept = (one for one in rows if task != "banking8" or one["label"] in LABELS)
    return [{"text": one["text"], "label": one["label"]} for one in kept]


# -- arms -----------------------------------------------------------------------------------------


def run_arm(arm: str, task: str, folder: Path, seed: int) -> dict[str, Any]:
    """One arm: its predictions by test row, and what it used."""
    if arm == "dspy":
        return _dspy(task, folder, seed)
    program, home = f"{PROGRAMS}:{NAMES[task]}", folder / f"home-{arm}"
    words: list[str] = []
    more: dict[str, Any] = {}
    if arm == "ours":
        told = _kaizen(
            home,
            *("optimize", program, "--train", folder / "train.jsonl", "--val", folder / "val.jsonl"),
            *("--metric", "accuracy", "--budget", CALLS, "--seed", seed, "--concurrency", 1, "--json"),
        )
        more = {key: told.get(key) for key in ("improved", "reason", "how", "calls", "seconds")}
        words = ["--version", "latest"]
    elif arm == "base":
        words = ["--version", "base"]
    else:
        both = folder / "both.jsonl"
        both.write_text("".join((folder / f"{name}.jsonl").read_text("utf-8") for name in ("train", "val")), "utf-8")
        words = ["--without-model", "--train", str(both), "--seed", str(seed)]
    file = folder / f"{arm}.predictions.jsonl"
    test = ("--data", folder / "test.jsonl", "--metric", "accuracy", "--concurrency", 1)
    _kaizen(home, "eval", program, *words, *test, "--predictions", file, "--json")
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {**more, "predictions": [line["prediction"] for line in lines]}


def _kaizen(home: Path, *words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "kaizen", *map(str, words)]
    env = environment(KAIZEN_HOME=str(home))
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=home.parent)
    if done.returncode:
        raise RuntimeError(f"kaizen {words[0]}: {done.stderr.strip()[-600:]}")
    return json.loads(done.stdout)


def _dspy(task: str, folder: Path, seed: int) -> dict[str, Any]:
    """DSPy's optimizers in their own environment, against our gateway with the same embedded model."""
    python = python_of("dspy", PINS)
    script = HERE / "accuracy_dspy.py"
    with gateway() as (address, key):
        words = [python, str(script), address, key, MODEL, str(folder), task, str(seed), str(CALLS)]
        env = {**environment(), "DSPY_CACHEDIR": str(folder / "dspy-cache")}
        done = subprocess.run(words, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"dspy: {done.stderr.strip()[-600:]}")
    return {"optimizers": json.loads(done.stdout.strip().splitlines()[-1])}


@contextmanager
def gateway() -> Iterator[tuple[str, str]]:
    """Address and key of a gateway that serves the embedded model."""
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "kaizen.toml"
        config.write_text(f'model = "{MODEL}"\nhome = "home"\n', "utf-8")
        key = asyncio.run(_key(config))
        words = [sys.executable, "-m", "kaizen", "serve", "--config", str(config), "--port", "0"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment(), cwd=place)
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            _until_up(f"{found[0]}/health/live")
            yield found[0], key
        finally:
            process.terminate()
            process.wait(20)


async def _key(config: Path) -> str:
    from kaizen.app.govern import make_keys
    from kaizen.core.scope import Scope
    from kaizen.settings import load_settings

    keys = make_keys(load_settings(config.parent, {}, {}, config=config))
    made = await keys.create(Scope("bench", "prod"))
    await keys.close()
    return made.secret


def _until_up(url: str, seconds: float = 60.0) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = monotonic() + seconds
    while True:
        try:
            opener.open(url, timeout=5).close()
            return
        except OSError:
            if monotonic() > end:
                raise
            sleep(0.1)


# -- figures --------------------------------------------------------------------------------------


def hits(rows: Rows, predictions: Sequence[Any]) -> list[float]:
    """1 for each row all of whose outputs are right."""
    wanted = [{name: value for name, value in row.items() if name != "text"} for row in rows]
    pairs = zip(wanted, predictions, strict=True)
    return [float(got is not None and all(same(want[name], got.get(name)) for name in want)) for want, got in pairs]


def scored(rows: Rows, kept: Mapping[str, Any]) -> tuple[list[float], str]:
    """The hits of an arm, and which of DSPy's optimizers it was."""
    if "optimizers" not in kept:
        return hits(rows, kept["predictions"]), kept.get("how") or ""
    every = {name: hits(rows, one["predictions"]) for name, one in kept["optimizers"].items()}
    best = max(every, key=lambda name: sum(every[name]))
    return every[best], best


def compared(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """How much more the first has, with the interval of the paired bootstrap."""
    low, high = paired(other, one)
    gain = statistics.fmean(one) - statistics.fmean(other)
    return {"gain": round(gain, 4), "low": round(low, 4), "high": round(high, 4), "n": len(one)}


def figures(found: Mapping[tuple[str, int, str], tuple[list[float], str]], arms: Sequence[str]) -> dict[str, Any]:
    """Scores by task, seed and arm; and our gain over the others, by task and over all."""
    runs = [
        {
            "task": task,
            "seed": seed,
            "arm": arm,
            "score": round(statistics.fmean(values), 4),
            "n": len(values),
            "how": how,
        }
        for (task, seed, arm), (values, how) in found.items()
    ]
    gains: dict[str, Any] = {}
    for other in arms:
        if other == "ours" or "ours" not in arms:
            continue
        tasks = sorted({task for task, _, _ in found})
        joined: dict[str, tuple[list[float], list[float]]] = {task: ([], []) for task in [*tasks, "all"]}
        for (task, seed, arm), (values, _) in found.items():
            if arm == "ours" and (task, seed, other) in found:
                for name in (task, "all"):
                    joined[name][0].extend(values)
                    joined[name][1].extend(found[task, seed, other][0])
        gains[other] = {name: compared(*both) for name, both in joined.items() if both[0]}
    return {"runs": runs, "ours_over": gains, "readme": told(runs)}


def told(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A line for the README: the means over the seeds, by task."""
    means: dict[str, list[str]] = {}
    for arm in dict.fromkeys(run["arm"] for run in runs):
        for task in dict.fromkeys(run["task"] for run in runs):
            scores = [run["score"] for run in runs if (run["arm"], run["task"]) == (arm, task)]
            if scores:
                means.setdefault(arm, []).append(f"{task} {statistics.fmean(scores):.2f}")
    if "ours" not in means:
        return []
    seeds = len({run["seed"] for run in runs})
    names = {"without": "no model, same rows", "dspy": "DSPy's best", "base": "as written"}
    others = "; ".join(f"{names[arm]}: {', '.join(means[arm])}" for arm in means if arm != "ours")
    drawn = "one seed" if seeds == 1 else f"{seeds} seeds"
    what = f"held-out accuracy of a 135-million-parameter model after `kaizen optimize` on 60 rows, {drawn}"
    return [{"what": what, "measured": ", ".join(means["ours"]), "against": others}]


def main() -> int:
    """Do what is not done yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(NAMES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", type=int, default=200, help="test rows")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--folder", type=Path, default=CACHE / "learn_accuracy")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    arms = args.arms.split(",")
    found: dict[tuple[str, int, str], tuple[list[float], str]] = {}
    for task in args.tasks.split(","):
        for seed in map(int, args.seeds.split(",")):
            rows = drawn(task, seed, args.rows)
            folder = args.folder.absolute() / f"{task}-{seed}-{args.rows}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, some in rows.items():
                (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in some), "utf-8")
            for arm in arms:
                kept = folder / f"{arm}.json"
                if not kept.is_file():
                    kept.write_text(json.dumps(run_arm(arm, task, folder, seed)), "utf-8")
                values, how = scored(rows["test"], json.loads(kept.read_text("utf-8")))
                found[task, seed, arm] = values, how
                print(f"{task} {seed} {arm}: {statistics.fmean(values):.3f} {how}", file=sys.stderr, flush=True)
    report({"train": TRAIN, "val": VAL, "budget": CALLS, **figures(found, arms)}, seed=0, file=args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
