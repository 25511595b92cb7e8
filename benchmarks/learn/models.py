"""Choosing the cheapest model that holds the quality: the optimizer ``models`` against scoring every model on all rows.

    python benchmarks/learn/models.py --json benchmarks/results/learn_models.json

Every run is the house's own (``kaizen.app.learn.optimize``) against scripted models on a real socket, whose accuracy
and price are known: 60 rows, and a budget that is not enough to ask every model about all of them.
Tasks, named before anything was run:

* ``twin``: two of five other models are as good as the program's own, at a quarter and a tenth of its price.
* ``slope``: what is cheaper is worse, by 4, 18 and 50 points.
* ``none``: what is cheaper is worse by 20 points and more: nothing can be saved.

Reported for each arm: how much of a row's cost was saved, mean over tasks and seeds with its 95 % bootstrap interval;
how far the true accuracy fell (the models' own, not a score); how many runs took a model that is over 5 points worse
(``worse``); requests and dollars that the search took. ``over_ablation`` is paired by task and seed: of what was saved
by runs that hold the quality (what took a worse model counts as having saved nothing), and of the dollars that the
search did without, as a share of the ablation's, which is what dropping models early is for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import report  # noqa: E402 - the path has to be set first
from benchmarks.learn.optimizers import sign_flips, spread  # noqa: E402
from benchmarks.learn.strong import TASKS, TEAMS, TOPICS, draw, rows, team_of  # noqa: E402
from kaizen.app import build  # noqa: E402
from kaizen.app.learn.optimize import optimize  # noqa: E402
from kaizen.learn.metrics.metric import metric  # noqa: E402
from kaizen.learn.optimize.models import Models  # noqa: E402
from kaizen.registry.params import load  # noqa: E402
from kaizen.serve.doors import Optimizing  # noqa: E402
from kaizen.settings import read  # noqa: E402
from kaizen.testing.fault_server import FaultServer  # noqa: E402

OWN = "large"
MODELS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "twin": {
        OWN: (0.92, 10.0),
        "other": (0.93, 20.0),
        "twin": (0.92, 2.5),
        "near": (0.92, 1.0),
        "weak": (0.70, 0.5),
        "poor": (0.45, 0.2),
    },
    "slope": {OWN: (0.92, 10.0), "close": (0.88, 3.0), "weak": (0.74, 1.0), "poor": (0.42, 0.2)},
    "none": {OWN: (0.92, 10.0), "mid": (0.72, 4.0), "weak": (0.60, 1.0), "poor": (0.45, 0.2)},
}
"""By task and model: accuracy, and dollars per million tokens."""
WORSE = 0.05
ROWS, VAL = 60, 20
ARMS = {"whole": True, "ablated": False}


def reply(task: str, body: Mapping[str, Any]) -> str:
    """What a model answers: right on its share of the rows, each model on rows of its own."""
    message = str(body["messages"][-1]["content"])
    right = team_of(next(topic for topic in TOPICS if f"about the {topic}" in message))
    accuracy = MODELS[task][body["model"]][0]
    wrong = [team for team in TEAMS if team != right]
    other = wrong[int(draw("other", message) * len(wrong))]
    return json.dumps({"team": right if draw(body["model"], message) < accuracy else other})


async def run(task: str, seed: int, budget: int, folder: Path, *, race: bool) -> dict[str, Any]:
    """One search, and what the model that it chose is really like."""
    models = MODELS[task]
    with FaultServer(lambda body: reply(task, body)) as server:
        priced = {
            f"mine/{name}": {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd} for name, (_, usd) in models.items()
        }
        provider = {"kind": "openai", "base_url": server.base_url, "api_key": "none"}
        told = {"home": str(folder), "model": f"mine/{OWN}", "providers": {"mine": provider}, "models": priced}
        app = build(read({**told, "log": {"level": "error"}}))
        routing = TASKS["routing"]
        some = rows(routing, ROWS, f"models {task} {seed}")
        try:
            ended = await optimize(
                app,
                Optimizing(
                    program=routing.program,
                    train=some[VAL:],
                    val=some[:VAL],
                    metric=metric("accuracy", routing.program.spec),
                    optimizer=Models(race=race),
                    models=tuple(ref for ref in priced if ref != f"mine/{OWN}"),
                    calls=budget,
                    seed=seed,
                ),
            )
        finally:
            await app.close()
    chosen = OWN
    for body in ended.report.params.values():
        chosen = (load(body).model or OWN).removeprefix("mine/")
    own, taken = models[OWN], models[chosen]
    return {
        "task": task,
        "seed": seed,
        "chosen": chosen,
        "saved": 1 - taken[1] / own[1],
        "fell": own[0] - taken[0],
        "calls": server.count,
        "usd": ended.usd,
    }


def held(one: Mapping[str, Any]) -> float:
    """What a run saved, if what it chose is no worse."""
    return 0.0 if one["fell"] > WORSE else float(one["saved"])


def figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One arm's."""
    return {
        "saved": spread([one["saved"] for one in runs]),
        "saved_held": spread([held(one) for one in runs]),
        "fell": round(statistics.fmean(one["fell"] for one in runs), 4),
        "worse": f"{sum(one['fell'] > WORSE for one in runs)} of {len(runs)}",
        "calls": round(statistics.fmean(one["calls"] for one in runs), 1),
        "most_calls": max(one["calls"] for one in runs),
        "usd": round(statistics.fmean(one["usd"] for one in runs), 6),
        "by_task": {
            task: round(statistics.fmean(held(one) for one in runs if one["task"] == task), 3)
            for task in dict.fromkeys(one["task"] for one in runs)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    for task in MODELS:
        for seed in range(args.seeds):
            for name, race in ARMS.items():
                with tempfile.TemporaryDirectory() as folder:
                    made[name].append(asyncio.run(run(task, seed, args.budget, Path(folder), race=race)))
                print(name, made[name][-1], file=sys.stderr, flush=True)
    over = [held(one) - held(other) for one, other in zip(made["whole"], made["ablated"], strict=True)]
    less = [1 - one["usd"] / other["usd"] for one, other in zip(made["whole"], made["ablated"], strict=True)]
    body = {
        "budget": args.budget,
        "seeds": args.seeds,
        "arms": {name: figures(runs) for name, runs in made.items()},
        "over_ablation": {
            "saved": {**spread(over), "p": round(sign_flips(over, 0), 5)},
            "search_usd": {**spread(less), "p": round(sign_flips(less, 0), 5)},
        },
    }
    report(body, seed=0, file=args.json)


if __name__ == "__main__":
    main()
