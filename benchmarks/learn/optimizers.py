"""Each optimizer against its own ablation, on tasks named beforehand, several seeds, corrected for the number of tries.

    python benchmarks/learn/optimizers.py --json benchmarks/results/optimizers.json

Every run is the house's own (``kaizen.app.learn.optimize``) against a scripted strong model on a real socket, see
``strong.py``: 40 rows to learn from, 20 to choose by, the same budget for both arms, and 200 rows that neither saw. A
run that finds no improvement scores as the base does. Reported for each optimizer:

* ``gain``: of the score on held-out rows over the base, mean over tasks and seeds, with its 95 % bootstrap interval.
* ``over_ablation``: the same over the ablation, paired by task and seed; ``p`` by flipping signs, ``p_holm`` corrected
  for all optimizers of the table (Holm 1979). What does not beat its ablation is cut.
* ``false``: on tasks in which nothing can be gained, how many runs claimed an improvement.
* ``calls``: requests that reached the server, the most of any run; never more than the budget.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import interval, report  # noqa: E402 - the path has to be set first
from benchmarks.learn.strong import REPLIES, TASKS, Named, reply, rows  # noqa: E402
from kaizen.app import build  # noqa: E402
from kaizen.app.learn.optimize import optimize  # noqa: E402
from kaizen.core.context import Context  # noqa: E402
from kaizen.learn.evaluate.evaluate import evaluate  # noqa: E402
from kaizen.learn.metrics.metric import metric  # noqa: E402
from kaizen.learn.optimize.genetic import Genetic  # noqa: E402
from kaizen.learn.optimize.instructions import Instructions  # noqa: E402
from kaizen.learn.optimize.reflective import Reflective  # noqa: E402
from kaizen.registry.params import load  # noqa: E402
from kaizen.serve.doors import Optimizing  # noqa: E402
from kaizen.settings import read  # noqa: E402
from kaizen.testing.fault_server import FaultServer  # noqa: E402

TEST = 200
ARMS: Mapping[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "instructions": (
        Instructions,
        lambda: Instructions(grounded=False),
        "proposals are written without seeing examples and scores",
    ),
    "reflective": (Reflective, lambda: Reflective(informed=False), "revisions are written without seeing the cases"),
    "genetic": (Genetic, lambda: Genetic(fit=False), "parents are drawn without regard to their scores"),
}


async def run(task: Named, search: Callable[[], Any], seed: int, budget: int, folder: Path) -> dict[str, Any]:
    """One optimizer's run, and the score of what it chose on held-out rows."""
    with FaultServer(REPLIES.get(task.name, reply)) as server:
        app = build(
            read(
                {
                    "home": str(folder),
                    "model": "mine/large",
                    "providers": {"mine": {"kind": "openai", "base_url": server.base_url, "api_key": "none"}},
                    "log": {"level": "error"},
                }
            )
        )
        spec = task.program.spec
        judge = metric("accuracy", spec)
        train, val, test = (
            rows(task, count, f"{part} {seed}") for part, count in (("train", 40), ("val", 20), ("test", TEST))
        )
        try:
            ended = await optimize(
                app,
                Optimizing(
                    program=task.program,
                    train=train,
                    val=val,
                    metric=judge,
                    optimizer=search(),
                    calls=budget,
                    seed=seed,
                ),
            )
            asked = server.count
            params = {name: load(body) for name, body in ended.report.params.items()}
            scores: dict[str, float] = {}
            for name, overrides in (("base", {}), ("after", params)):
                begun = await app.new_run()
                ctx = Context(begun)
                scores[name] = (
                    await evaluate(ctx, task.program, test, judge, params=overrides or None, concurrency=16)
                ).score
        finally:
            await app.close()
    return {
        "task": task.name,
        "seed": seed,
        "improved": ended.report.improved,
        "base": scores["base"],
        "after": scores["after"],
        "calls": asked,
        "candidates": ended.report.candidates,
    }


def sign_flips(differences: Sequence[float], seed: int) -> float:
    """The one-sided p-value that the mean is not above 0: exact for up to 16 differences, else 20,000 draws."""
    seen = sum(differences)
    n = len(differences)
    exact = n <= 16
    rng = random.Random(seed)
    signs = range(2**n) if exact else [rng.getrandbits(n) for _ in range(20_000)]
    reached = sum(sum(-d if one >> at & 1 else d for at, d in enumerate(differences)) >= seen - 1e-12 for one in signs)
    return reached / len(signs) if exact else (1 + reached) / (1 + len(signs))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm's corrected p-values."""
    corrected: dict[str, float] = {}
    least = 0.0
    for at, (name, value) in enumerate(sorted(values.items(), key=lambda one: one[1])):
        least = corrected[name] = max(least, min(1.0, value * (len(values) - at)))
    return corrected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--budget", type=int, default=400)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table: dict[str, Any] = {}
    for arm in args.arms.split(","):
        whole, ablated, how = ARMS[arm]
        made: dict[str, list[dict[str, Any]]] = {"whole": [], "ablated": []}
        for name in args.tasks.split(","):
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                for which, search in (("whole", whole), ("ablated", ablated)):
                    with tempfile.TemporaryDirectory() as folder:
                        one = asyncio.run(run(TASKS[name], search, seed, args.budget, Path(folder)))
                    made[which].append(one)
                    print(arm, which, one, file=sys.stderr, flush=True)
        table[arm] = {"ablation": how, **figures(made)}
    p = holm({arm: one["over_ablation"]["p"] for arm, one in table.items() if one["over_ablation"]})
    for arm, value in p.items():
        table[arm]["over_ablation"]["p_holm"] = round(value, 5)
    report(
        {"budget": args.budget, "seeds": args.seeds, "first_seed": args.first_seed, "optimizers": table},
        seed=0,
        file=args.json,
    )


def figures(made: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    gaining = [one for one in made["whole"] if TASKS[one["task"]].gains]
    ablated = [one for one in made["ablated"] if TASKS[one["task"]].gains]
    spoilt = [one for one in made["ablated"] if not TASKS[one["task"]].gains]
    flat = [one for one in made["whole"] if not TASKS[one["task"]].gains]
    gains = [one["after"] - one["base"] for one in gaining]
    over = [one["after"] - other["after"] for one, other in zip(gaining, ablated, strict=True)]
    return {
        "gain": spread(gains),
        "over_ablation": {**spread(over), "p": round(sign_flips(over, 0), 5)} if over else {},
        "by_task": {
            task: {
                "base": round(statistics.fmean(one["base"] for one in some), 3),
                "after": round(statistics.fmean(one["after"] for one in some), 3),
                "ablated": round(statistics.fmean(one["after"] for one in ablated if one["task"] == task), 3),
            }
            for task in dict.fromkeys(one["task"] for one in gaining)
            if (some := [one for one in gaining if one["task"] == task])
        },
        "false": f"{sum(one['improved'] for one in flat)} of {len(flat)}",
        "false_ablated": f"{sum(one['improved'] for one in spoilt)} of {len(spoilt)}",
        "calls": max(one["calls"] for some in made.values() for one in some),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {}
    low, high = interval(values, statistics.fmean)
    return {"mean": round(statistics.fmean(values), 3), "low": round(low, 3), "high": round(high, 3), "n": len(values)}


if __name__ == "__main__":
    main()
