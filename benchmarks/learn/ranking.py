"""The trained ranking of changes against not having it: the same searches, with and without past runs in the registry.

    python benchmarks/learn/ranking.py --json benchmarks/results/ranking.json

Two kinds of task on the scripted model of ``strong.py``: ``codes``, a text to write, where instructions help most (four
demos can't show fourteen codes), and ``style``, a choice, where the model follows demos and no instruction. ``ranked``
runs on new rows of each with a budget that is not enough for everything, once in a project that holds the candidates
of earlier runs (other seeds of the same two tasks), and once in an empty one. Its first stage, the search for demos, is
that of ``instructions`` without proposals, so that the comparison is about the order and the shares alone. Reported:
the score on 200 held-out rows with and without, the mean difference with its 95 % interval, ``p`` by flipping signs.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import interval, report  # noqa: E402 - the path has to be set first
from benchmarks.learn import strong  # noqa: E402
from benchmarks.learn.optimizers import TEST, sign_flips  # noqa: E402
from benchmarks.learn.strong import TASKS, Named, rows, team_of  # noqa: E402
from kaizen import Signature, context  # noqa: E402
from kaizen.app import build  # noqa: E402
from kaizen.app.learn.optimize import optimize  # noqa: E402
from kaizen.core.context import Context  # noqa: E402
from kaizen.learn.evaluate.evaluate import evaluate  # noqa: E402
from kaizen.learn.metrics.metric import metric  # noqa: E402
from kaizen.learn.optimize import compose  # noqa: E402
from kaizen.learn.optimize.instructions import Instructions  # noqa: E402
from kaizen.registry.params import load  # noqa: E402
from kaizen.serve.doors import Optimizing  # noqa: E402
from kaizen.settings import read  # noqa: E402
from kaizen.testing.fault_server import FaultServer  # noqa: E402


class Style(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["red", "green", "blue", "amber", "violet"] = context.output("the team")


def style_reply(body: Mapping[str, Any]) -> str:
    """The model where what an instruction states does not matter: its rules are taken out before it reads them."""
    first = dict(body["messages"][0])
    if not strong._text(first["content"]).startswith(("Write a better", "Revise")):
        first["content"] = strong._RULE.sub("", strong._text(first["content"]))
    return strong.reply({**body, "messages": [first, *body["messages"][1:]]})


STYLE = Named("style", Style, strong.TOPICS[:4], lambda topic: {"team": team_of(topic)})
WORLD = ((TASKS["codes"], strong.reply), (STYLE, style_reply))


class Demos(Instructions):
    """Sets of demos and nothing else."""

    name = "demonstrations"

    def __init__(self) -> None:
        super().__init__(proposals=0, demo_sets=6)


_named = compose.search_named


def searched(name: str) -> Any:
    """The searches by name, with ours for demos."""
    return Demos() if name == "demonstrations" else _named(name)


async def run(task: Named, reply: Any, seed: str, budget: int, folder: Path, *, test: bool) -> float:
    """A search, and the score of what it chose."""
    with FaultServer(reply) as server:
        provider = {"kind": "openai", "base_url": server.base_url, "api_key": "none"}
        tree = {"home": str(folder), "model": "mine/large", "providers": {"mine": provider}, "log": {"level": "error"}}
        app = build(read(tree))
        judge = metric("accuracy", task.program.spec)
        train, val, held = (
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
                    optimizer=compose.Ranked(),
                    calls=budget,
                    seed=int(seed.split()[-1]),
                ),
            )
            params = {name: load(body) for name, body in ended.report.params.items()}
            if not test:
                return 0.0
            ctx = Context(await app.new_run())
            return (await evaluate(ctx, task.program, held, judge, params=params or None, concurrency=16)).score
        finally:
            await app.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--past", type=int, default=4)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    compose.search_named = searched
    made: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as whole:
        known = Path(whole) / "known"
        for seed in range(args.past):
            for task, reply in WORLD:
                asyncio.run(run(task, reply, f"past {seed}", 400, known, test=False))
        for seed in range(args.seeds):
            for task, reply in WORLD:
                one: dict[str, Any] = {"task": task.name, "seed": seed}
                for which in ("without", "with"):
                    folder = Path(whole) / f"{which} {task.name} {seed}"
                    folder.mkdir()
                    if which == "with":
                        for file in known.glob("registry.db*"):
                            shutil.copy(file, folder)
                    one[which] = asyncio.run(run(task, reply, f"new {seed}", args.budget, folder, test=True))
                made.append(one)
                print(one, file=sys.stderr, flush=True)
    over = [one["with"] - one["without"] for one in made]
    low, high = interval(over, statistics.fmean)
    figures = {
        "budget": args.budget,
        "past_runs": args.past * len(WORLD),
        "by_task": {
            task.name: {
                which: round(statistics.fmean(one[which] for one in made if one["task"] == task.name), 3)
                for which in ("without", "with")
            }
            for task, _ in WORLD
        },
        "difference": {"mean": round(statistics.fmean(over), 3), "low": round(low, 3), "high": round(high, 3)},
        "p": round(sign_flips(over, 0), 5),
        "runs": made,
    }
    report(figures, seed=0, file=args.json)


if __name__ == "__main__":
    main()
