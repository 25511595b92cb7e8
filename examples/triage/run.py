"""Triage the example's test messages on the embedded language model, and say how well it went.

    make run
    make run ARGS="--limit 20"
    make run ARGS="--model openai/gpt-4.1-mini"

Every answer is a record in the ledger. The nearest-neighbour baseline beside it looks for the most similar labelled
message (by shared character 5-grams) and takes its team: what can be had without any language model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).parent))

from check_data import Message, jaccard, load, shingles
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from triage import Team, Triage

from kaizen.app import current
from kaizen.core.errors import KaizenError, OutputInvalid
from kaizen.core.record import Record

HERE = Path(__file__).parent
TEAMS: tuple[str, ...] = get_args(Team)
NO_ANSWER = "misfit"


@dataclass(frozen=True, slots=True)
class Result:
    """One message: the team that owns it, the team that was named, and the call's record."""

    label: str
    named: str
    record: Record | None


def main() -> int:
    """Run it; 0 when all messages were answered."""
    options = _options()
    console = Console()
    folder = HERE / "data"
    messages, problems = load(folder)
    if problems:
        print(f"error: {folder}: {problems[0]}", file=sys.stderr)
        return 1
    train = [message for message in messages if message.split == "train"]
    test = [message for message in messages if message.split == "test"][: options.limit]
    program = Triage.using(model=options.model) if options.model else Triage
    console.print(f"Triaging {len(test)} bank messages with [bold]{_model(options.model)}[/bold] ...")
    started = time.monotonic()
    try:
        results = asyncio.run(_answer(program, test, options.concurrency, console))
    except KaizenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was answered is in the ledger: kaizen runs list", file=sys.stderr)
        return 130
    seconds = time.monotonic() - started
    report = _report(results, train, test, seconds)
    Path("run.json").write_text(json.dumps(report, indent=2) + "\n")
    _show(console, results, report)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="only the first N messages")
    parser.add_argument("--model", help="a model ref, such as openai/gpt-4.1-mini; the embedded model without it")
    parser.add_argument("--concurrency", type=int, default=2, metavar="N", help="calls in the air at once (2)")
    options = parser.parse_args()
    if options.concurrency < 1 or (options.limit is not None and options.limit < 1):
        parser.error("--limit and --concurrency have to be at least 1")
    return options


def _model(given: str | None) -> str:
    return given or current().settings.model or "embedded/smollm2-135m"


async def _answer(program: type[Triage], rows: Sequence[Message], concurrency: int, console: Console) -> list[Result]:
    gate = asyncio.Semaphore(concurrency)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("messages", total=len(rows))

        async def one(row: Message) -> Result:
            async with gate:
                try:
                    answer = await program(message=row.message)
                    named, record = answer.team, answer.record
                except OutputInvalid:
                    named, record = NO_ANSWER, None
                progress.advance(task)
                return Result(row.team, named, record)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(row)) for row in rows]
    return [task.result() for task in tasks]


def _report(
    results: Sequence[Result], train: Sequence[Message], test: Sequence[Message], seconds: float
) -> dict[str, object]:
    n, right = len(results), sum(result.named == result.label for result in results)
    low, high = wilson(right, n)
    nearest = sum(_nearest(row, train) == row.team for row in test)
    nearest_low, nearest_high = wilson(nearest, n)
    records = [result.record for result in results if result.record is not None]
    latencies = sorted(record.latency_ms for record in records) or [math.nan]
    return {
        "n": n,
        "accuracy": right / n,
        "low": low,
        "high": high,
        "tokens": sum(record.tokens_in + record.tokens_out for record in records),
        "seconds": round(seconds, 2),
        "model": records[0].model if records else None,
        "tokens_in": sum(record.tokens_in for record in records),
        "tokens_cached": sum(record.tokens_cached for record in records),
        "tokens_out": sum(record.tokens_out for record in records),
        "latency_ms": {"p50": _at(latencies, 0.5), "p95": _at(latencies, 0.95)},
        "baseline": {"name": "nearest neighbour", "accuracy": nearest / n, "low": nearest_low, "high": nearest_high},
    }


def _nearest(row: Message, train: Sequence[Message]) -> str:
    mine = shingles(row.message)
    return max(train, key=lambda other: jaccard(mine, shingles(other.message))).team


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` (Wilson 1927), which stays within 0 and 1 and is fair for small ``n``."""
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def _at(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 1)


def _show(console: Console, results: Sequence[Result], report: dict[str, object]) -> None:
    baseline, latency = report["baseline"], report["latency_ms"]
    assert isinstance(baseline, dict)
    assert isinstance(latency, dict)
    scores = Table(title="Accuracy on the test split", title_justify="left")
    for column in ("", "accuracy", "95 % interval"):
        scores.add_column(column, justify="left" if not column else "right")
    for name, row in ((str(report["model"]), report), (str(baseline["name"]), baseline), ("guessing", None)):
        interval = f"{row['low']:.0%} to {row['high']:.0%}" if row else ""
        scores.add_row(name, f"{row['accuracy'] if row else 1 / len(TEAMS):.0%}", interval)
    console.print(scores)
    counts = Counter((result.label, result.named) for result in results)
    named = [*TEAMS, *([NO_ANSWER] if any(result.named == NO_ANSWER for result in results) else [])]
    confusion = Table(title="Owner (rows) and team named (columns)", title_justify="left")
    confusion.add_column("")
    for team in named:
        confusion.add_column(team, justify="right")
    for label in TEAMS:
        confusion.add_row(label, *(str(counts[label, team]) for team in named))
    console.print(confusion)
    console.print(
        f"tokens   {report['tokens_in']} in ({report['tokens_cached']} from the prompt cache), "
        f"{report['tokens_out']} out\n"
        f"latency  p50 {latency['p50']} ms, p95 {latency['p95']} ms; {report['seconds']} s in all\n"
        f"records  {current().settings.home} (and this table in run.json)\n"
    )
    record = random.Random(0).choice([result.record for result in results if result.record is not None])
    console.print("[bold]Try next[/bold]")
    for command in (
        "kaizen runs stats --by model",
        f"kaizen runs show {record.id}",
        'kaizen run examples/triage/triage.py:Triage --message "Someone stole my card"',
    ):
        console.print(f"  .venv/bin/{command}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
