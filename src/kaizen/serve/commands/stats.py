"""``kaizen runs stats``: sums over the records, as a table and a plot."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final, get_args

from pydantic_core import to_json

from kaizen.ledger.views import By, Stat, stats
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.batch.progress import cost_text
from kaizen.serve.commands.select import add_filters, chosen
from kaizen.serve.commands.tables import milliseconds, takes_colour, write_table
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK

_COLUMNS: Final = ("calls", "errors", "p50", "p95", "p99", "tokens in", "tokens out", "cost", "score")
_PLOT_HEIGHT: Final = 12
_MOST_BARS: Final = 20
_LABEL: Final = 18
_SECOND: Final = 1000.0


def _arguments(parser: Parser) -> None:
    parser.add_argument("--by", choices=get_args(By), default="program", help="what to group by (default: program)")
    add_filters(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.add_argument("--plot", action="store_true", help="draw the plot also where standard output is no terminal")


def _stats(args: argparse.Namespace, doors: Doors) -> int:
    by: By = args.by

    async def work(app: Runs) -> list[Stat]:
        return await stats(app.ledger.store, app.scope, by, await chosen(app, args))

    found = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{to_json([asdict(stat) for stat in found], inf_nan_mode='null').decode()}\n")
        return OK
    if not found:
        say("no such calls")
        return OK
    shown = [replace(stat, group=_short(stat.group)) for stat in found] if by == "version" else found
    write_table((by, *_COLUMNS), [_row(stat) for stat in shown], numbers=_COLUMNS)
    if args.plot or sys.stdout.isatty():
        sys.stdout.write(f"\n{plot(by, shown, colour=takes_colour())}\n")
    return OK


def _short(version: str) -> str:
    """A program and the beginning of its params' digest."""
    ref, _, digest = version.partition("@")
    return f"{ref}@{digest[:8]}"


def _row(stat: Stat) -> tuple[str, ...]:
    return (
        stat.group,
        f"{stat.calls}",
        f"{stat.errors}",
        milliseconds(stat.p50_ms),
        milliseconds(stat.p95_ms),
        milliseconds(stat.p99_ms),
        f"{stat.tokens_in:,}",
        f"{stat.tokens_out:,}",
        cost_text(stat.cost_usd, stat.unpriced),
        "-" if stat.score is None else f"{stat.score:.3f}",
    )


def plot(by: By, found: Sequence[Stat], *, colour: bool) -> str:
    """Bars, as wide as the terminal: calls of the last 20 days, or p95 latency of the 20 slowest groups.

    Args:
        by: what the groups are.
        found: the groups.
        colour: whether escape codes for colours may be in it.
    """
    import plotext  # pyright: ignore[reportMissingTypeStubs]

    if by == "day":
        kept = list(found[-_MOST_BARS:])
        title, heights = "calls", [float(stat.calls) for stat in kept]
    else:
        kept = sorted(found, key=lambda stat: stat.p95_ms or 0.0, reverse=True)[:_MOST_BARS]
        title, heights = "latency p95, ms", [stat.p95_ms or 0.0 for stat in kept]
        if max(heights) >= _SECOND:
            title, heights = "latency p95, s", [height / _SECOND for height in heights]
    figure: Any = plotext.figure  # plotext carries no types
    figure.clear()
    # standing bars: plotext 6.1 leaves the first bar out of the scale of lying ones
    labels = [stat.group if len(stat.group) <= _LABEL else f"…{stat.group[1 - _LABEL :]}" for stat in kept]
    figure.draw(figure.bar(labels, heights, width=0.5))
    figure.title(title)
    figure.plot_size(shutil.get_terminal_size().columns, _PLOT_HEIGHT)
    return str(figure.build().string(colorless=not colour))


STATS: Final = Command(
    _arguments,
    _stats,
    (
        ("kaizen runs stats", "by program"),
        ("kaizen runs stats --by day --since 7d", "the last week"),
        ("kaizen runs stats --by version --program Triage --json", "one program's versions, for a script"),
    ),
)
