"""What `evaluate` adds to the calls themselves: CPU milliseconds a row, against a server that answers at once.

    python benchmarks/learn/evaluate.py [--rows 10000] [--rounds 5] [--json benchmarks/results/learn_evaluate.json]

The baseline makes the same calls through `App.start`, with the same concurrency, on the same App: SQLite on disk, an
OpenAI server in a process of its own. Rounds take turns, so that a slow moment of the machine hits both. CPU is the
process's own (`time.process_time`), threads included. What is above the call: the row's branch, the score, the score's
record, the figures at the end, and the report in the registry. With a budget each call is also taken from a durable
allowance, which is measured apart. Made-up rows: no data set is needed. The bar is 0.3 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lab

from kaizen import Signature, context
from kaizen.app import App, build
from kaizen.app.learn.evaluations import evaluate_plan
from kaizen.core.protocols import Suspended
from kaizen.learn.data.rows import Row
from kaizen.learn.evaluate.plan import Plan
from kaizen.learn.metrics.metric import metric
from kaizen.settings import load_settings

BAR_MS = 0.3
CONCURRENCY = 8


class Triage(Signature):
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)


def rows_of(n: int, turn: int) -> list[Row]:
    """Rows half of which the server's one answer is right for."""
    return [
        Row(
            {"message": f"message {place} of turn {turn}"},
            {"team": ("cards", "transfers")[place % 2], "urgency": lab.ANSWER["urgency"]},
        )
        for place in range(n)
    ]


async def plain(app: App, rows: Sequence[Row]) -> None:
    """The calls by themselves."""
    places: Iterator[Row] = iter(rows)

    async def work() -> None:
        for row in places:
            answer = await app.start(Triage, row.inputs)
            assert not isinstance(answer, Suspended)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


async def evaluated(app: App, rows: Sequence[Row], calls: int | None) -> None:
    """The same, scored."""
    plan = Plan(program=Triage, rows=rows, metric=metric("accuracy", Triage.spec), concurrency=CONCURRENCY, calls=calls)
    (found,) = await evaluate_plan(app, plan)
    assert found.n == len(rows)
    assert found.calls == len(rows)
    assert abs(found.score - 0.5) < 0.01


async def measure(address: str, home: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds a row, by arm and round."""
    provider = {"kind": "openai", "base_url": f"{address}/v1", "api_key": "none"}
    tree = {"model": "server/m", "home": str(home), "providers": {"server": provider}}
    app = build(load_settings(home, {}, tree))
    taken: dict[str, list[float]] = {"plain": [], "evaluate": [], "evaluate with a budget": []}
    try:
        await plain(app, rows_of(200, -1))  # connections, imports, the file
        await evaluated(app, rows_of(200, -2), None)
        for turn in range(rounds):
            for arm in taken:
                given = rows_of(rows, turn)
                began = time.process_time()
                if arm == "plain":
                    await plain(app, given)
                else:
                    await evaluated(app, given, None if arm == "evaluate" else rows)
                taken[arm].append((time.process_time() - began) * 1000 / rows)
    finally:
        await app.close()
    return taken


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="What `evaluate` adds to the calls themselves.")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=lab.RESULTS / "learn_evaluate.json")
    args = parser.parse_args()
    with lab.server() as address, tempfile.TemporaryDirectory() as home:
        before = lab.served(address)
        taken = asyncio.run(measure(address, Path(home), args.rows, args.rounds))
        served = lab.served(address) - before
    pairs = zip(taken["evaluate"], taken["plain"], strict=True)
    above = [one - base for one, base in pairs]
    budget = [one - base for one, base in zip(taken["evaluate with a budget"], taken["plain"], strict=True)]
    figures = {
        "rows": args.rows,
        "concurrency": CONCURRENCY,
        "calls_served": served,
        "cpu_ms_a_row": {arm: lab.summary(values, 4) for arm, values in taken.items()},
        "above_the_call_ms": lab.summary(above, 4),
        "above_the_call_with_a_budget_ms": lab.summary(budget, 4),
        "bar_ms": BAR_MS,
        "passed": statistics.median(above) <= BAR_MS,
    }
    lab.report(figures, seed=0, file=args.json)


if __name__ == "__main__":
    main()
