"""What a run of the example came to: figures for ``run.json``, and the same as tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from check_data import Message, jaccard, shingles
from rich.console import Console
from rich.table import Table
from triage import Team

from kaizen.core.record import Record

TEAMS: tuple[str, ...] = get_args(Team)
NO_ANSWER = "misfit"


@dataclass(frozen=True, slots=True)
class Result:
    """One message: the team that owns it, the team that was named, and the call's record."""

    label: str
    named: str
    record: Record | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All messages by one program.

    Args:
        name: what to call it.
        results: in the order of the messages.
        seconds: wall time of all.
    """

    name: str
    results: Sequence[Result]
    seconds: float

    @property
    def records(self) -> list[Record]:
        """The records of the calls that gave an answer."""
        return [result.record for result in self.results if result.record is not None]

    def figures(self) -> dict[str, Any]:
        """What ``run.json`` says about it. Latency counts one message, all its model calls together."""
        records = self.records
        latencies = sorted(record.latency_ms for record in records)
        tokens_in, tokens_out = (sum(one.tokens_in for one in records), sum(one.tokens_out for one in records))
        return {
            **accuracy(sum(result.named == result.label for result in self.results), len(self.results)),
            "tokens": tokens_in + tokens_out,
            "seconds": round(self.seconds, 2),
            "program": self.name,
            "model": records[0].model if records else None,
            "tokens_in": tokens_in,
            "tokens_cached": sum(record.tokens_cached for record in records),
            "tokens_out": tokens_out,
            "model_calls": sum(record.model_calls for record in records),
            "latency_ms": {"p50": _at(latencies, 0.5), "p95": _at(latencies, 0.95)},
        }


def report(
    main: Outcome, others: Sequence[Outcome], train: Sequence[Message], test: Sequence[Message]
) -> dict[str, Any]:
    """The content of ``run.json``: the main program's figures, then those of the others and the baselines."""
    nearest = sum(_nearest(row, train) == row.team for row in test)
    return {
        **main.figures(),
        "others": [other.figures() for other in others],
        "baselines": [
            {"name": "nearest neighbour", **accuracy(nearest, len(test))},
            {"name": "guessing", "n": None, "accuracy": 1 / len(TEAMS), "low": None, "high": None},
        ],
    }


def accuracy(right: int, n: int) -> dict[str, float]:
    """A share with its 95 % interval."""
    low, high = wilson(right, n)
    return {"n": n, "accuracy": right / n, "low": low, "high": high}


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` (Wilson 1927), which stays within 0 and 1 and is fair for small ``n``."""
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def show(console: Console, main: Outcome, figures: Mapping[str, Any]) -> None:
    """The report as tables, and the main program's confusions."""
    programs = (figures, *figures["others"])
    scores = _table("Accuracy on the test split", "", "accuracy", "95 % interval")
    for name, row in (
        *((row["program"], row) for row in programs),
        *((row["name"], row) for row in figures["baselines"]),
    ):
        scores.add_row(name, *_shares(row))
    console.print(scores)
    spent = _table("Tokens, and latency of a message", "", "in", "cached", "out", "p50 ms", "p95 ms", "seconds")
    for row in programs:
        cells = (row["tokens_in"], row["tokens_cached"], row["tokens_out"], *row["latency_ms"].values(), row["seconds"])
        spent.add_row(row["program"], *("" if cell is None else str(cell) for cell in cells))
    console.print(spent)
    console.print(_confusion(main))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def _shares(row: Mapping[str, Any]) -> tuple[str, str]:
    return f"{row['accuracy']:.0%}", "" if row["low"] is None else f"{row['low']:.0%} to {row['high']:.0%}"


def _confusion(outcome: Outcome) -> Table:
    counts = Counter((result.label, result.named) for result in outcome.results)
    named = [*TEAMS, *([NO_ANSWER] if any(name == NO_ANSWER for _, name in counts) else [])]
    table = _table(f"{outcome.name}: owner in rows, team named in columns", "", *named)
    for label in TEAMS:
        table.add_row(label, *(str(counts[label, team]) for team in named))
    return table


def _nearest(row: Message, train: Sequence[Message]) -> str:
    mine = shingles(row.message)
    return max(train, key=lambda other: jaccard(mine, shingles(other.message))).team


def _at(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 1)
