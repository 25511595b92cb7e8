"""``kaizen costs`` and ``kaizen costs advise``: what calls cost, what the layers saved, and what others would have."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final, get_args

from pydantic_core import to_json

from kaizen.core.request import Usage
from kaizen.core.scope import Scope
from kaizen.inference.advise.traffic import Advice, Reprice, advise
from kaizen.ledger.costs import Cost, CostsBy, costs
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.batch.progress import cost_text
from kaizen.serve.commands.select import add_filters, chosen
from kaizen.serve.commands.tables import dollars, takes_colour, write_table
from kaizen.serve.doors import Doors, ModelInfo, Runs, using
from kaizen.serve.errors import OK

_COLUMNS: Final = ("calls", "from cache", "tokens in", "tokens out", "cost", "saved")
_MOST_BARS: Final = 20
_LABEL: Final = 18
_HEIGHT: Final = 12
_MTOK: Final = 1e6


def _scope(app: Runs, args: argparse.Namespace) -> Scope:
    return Scope(args.tenant or app.scope.tenant, args.environment or app.scope.environment)


def _whose(parser: Parser) -> None:
    parser.add_argument("--tenant", metavar="NAME", help="whose calls; the project's own tenant without it")
    parser.add_argument("--environment", metavar="NAME", help="which of its environments")
    add_filters(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def _costs_arguments(parser: Parser) -> None:
    parser.add_argument("--by", choices=get_args(CostsBy), default="model", help="what to group by (default: model)")
    _whose(parser)
    parser.add_argument("--plot", action="store_true", help="draw the plot also where standard output is no terminal")


def _costs(args: argparse.Namespace, doors: Doors) -> int:
    by: CostsBy = args.by

    async def work(app: Runs) -> list[Cost]:
        return await costs(app.ledger.store, _scope(app, args), by, await chosen(app, args))

    found = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{to_json([asdict(cost) for cost in found]).decode()}\n")
        return OK
    if not found:
        say("no such calls")
        return OK
    whole = Cost("all")
    for cost in found:
        whole = _sum(whole, cost)
    write_table((by, *_COLUMNS), [_row(cost) for cost in (*found, whole)], numbers=_COLUMNS)
    if (args.plot or sys.stdout.isatty()) and any(cost.cost_usd or cost.saved_usd for cost in found):
        sys.stdout.write(f"\n{plot(found, colour=takes_colour())}\n")
    return OK


def _sum(one: Cost, other: Cost) -> Cost:
    values = asdict(other)
    return Cost(one.group, **{name: value + values[name] for name, value in asdict(one).items() if name != "group"})


def _row(cost: Cost) -> tuple[str, ...]:
    known = None if cost.unpriced == cost.calls else cost.cost_usd
    return (
        cost.group,
        f"{cost.calls:,}",
        f"{cost.kept:,}",
        f"{cost.tokens_in:,}",
        f"{cost.tokens_out:,}",
        cost_text(known, cost.unpriced),
        dollars(cost.saved_usd) + ("+?" if cost.untold else ""),
    )


def plot(found: Sequence[Cost], *, colour: bool) -> str:
    """Two bars a group, as wide as the terminal: what it cost and what was saved; of the last 20 groups at most."""
    import plotext  # pyright: ignore[reportMissingTypeStubs]

    kept = list(found[-_MOST_BARS:])
    labels = [cost.group if len(cost.group) <= _LABEL else f"…{cost.group[1 - _LABEL :]}" for cost in kept]
    figure: Any = plotext.figure  # plotext carries no types
    figure.clear()
    spent, saved = [cost.cost_usd for cost in kept], [cost.saved_usd for cost in kept]
    figure.draw(figure.bar(labels, [spent, saved], width=0.6))
    figure.title("dollars: left cost, right saved")
    figure.plot_size(shutil.get_terminal_size().columns, _HEIGHT)
    return str(figure.build().string(colorless=not colour))


COSTS: Final = Command(
    _costs_arguments,
    _costs,
    (
        ("kaizen costs", "by model, with a plot"),
        ("kaizen costs --by key --since 7d", "who spent what in the last week"),
        ("kaizen costs --by tier --tenant acme --json", "what caches answered, for a script"),
    ),
)


def _advise(args: argparse.Namespace, doors: Doors) -> int:
    models = {model.ref: model for model in doors.models()}

    async def work(app: Runs) -> list[Advice]:
        query, scope = await chosen(app, args), _scope(app, args)
        found = await advise(app.ledger, scope, _reprice(models), query, batched=_batched(models))
        found += await doors.replay(app, scope, query)
        return sorted(found, key=lambda one: -(one.saved_usd or 0.0))

    found = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{to_json([asdict(advice) for advice in found]).decode()}\n")
        return OK
    if not found:
        say("nothing to advise: no call was repeated or can be shortened, and no cheaper model has enough scores")
        return OK
    columns = ("would have saved", "by", "calls", "quality", "measured on", "which is")
    write_table(columns, [_advice_row(one) for one in found], numbers=("would have saved", "calls", "measured on"))
    return OK


def _advice_row(advice: Advice) -> tuple[str, ...]:
    quality = "not measured"
    if advice.quality is not None and advice.low is not None and advice.high is not None:
        quality = f"{advice.quality:.3f} ({advice.low:.3f} .. {advice.high:.3f})"
    return (
        dollars(advice.saved_usd),
        advice.change,
        f"{advice.calls:,}",
        quality,
        f"{advice.n:,}" if advice.n else "-",
        advice.note,
    )


def _reprice(models: dict[str, ModelInfo]) -> Reprice:
    def reprice(ref: str, usage: Usage) -> float | None:
        model = models.get(ref)
        if model is None or model.input_usd_per_mtok is None or model.output_usd_per_mtok is None:
            return None
        return (usage.tokens_in * model.input_usd_per_mtok + usage.tokens_out * model.output_usd_per_mtok) / _MTOK

    return reprice


def _batched(models: dict[str, ModelInfo]) -> Callable[[str], bool]:
    # by the wire's kind: whether a server really has the API only a call can tell
    providers = {ref.partition("/")[0] for ref, model in models.items() if model.kind in ("openai", "anthropic")}

    def batched(ref: str) -> bool:
        return ref.partition("/")[0] in providers

    return batched


ADVISE: Final = Command(
    _whose,
    _advise,
    (
        ("kaizen costs advise", "replay all that was recorded"),
        ("kaizen costs advise --since 7d --json", "the last week, for a script"),
    ),
)
