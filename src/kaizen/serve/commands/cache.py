"""``kaizen cache stats`` and ``invalidate``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from pydantic_core import to_json

from kaizen.core.protocols import CacheSize
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Tier
from kaizen.core.scope import Scope
from kaizen.serve.arguments import Command, Parser
from kaizen.serve.batch.progress import cost_text
from kaizen.serve.commands.select import add_since
from kaizen.serve.commands.tables import write_table
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK

_COLUMNS: Final = ("calls", "share", "tokens in", "tokens out", "cost", "saved")
_EVIDENCE: Final = ("evidence", "false", "false at most", "would be given")
_AGREEMENTS: Final = ("task", "level", "compared", "differed", "risk at most")


@dataclass(slots=True)
class _Sum:
    """Model calls that one tier answered.

    Args:
        calls: how many ended well.
        tokens_in, tokens_out: of their answers, as counted when each was made.
        cost_usd: dollars of those whose price is known.
        unpriced: those whose price is not.
        saved_usd: what they would have cost more without the tier, where that is known.
        unknown: those of which it is not.
    """

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    saved_usd: float = 0.0
    unknown: int = 0

    def add(self, record: Record) -> None:
        """Count a call."""
        self.calls += 1
        self.tokens_in += record.tokens_in
        self.tokens_out += record.tokens_out
        self.cost_usd += record.cost_usd or 0.0
        self.unpriced += record.cost_usd is None
        saved = [stage.saved_usd for stage in record.stages if stage.layer == record.cache_tier]
        self.saved_usd += sum(usd or 0.0 for usd in saved)
        self.unknown += None in saved


def _add_whose(parser: Parser) -> None:
    parser.add_argument("--tenant", metavar="NAME", help="whose (default: the settings' tenant)")
    parser.add_argument("--environment", metavar="NAME", help="which of its environments (default: the settings')")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _whose(app: Runs, args: argparse.Namespace) -> Scope:
    return Scope(args.tenant or app.scope.tenant, args.environment or app.scope.environment)


def _stats_arguments(parser: Parser) -> None:
    add_since(parser)
    _add_whose(parser)


def _stats(args: argparse.Namespace, doors: Doors) -> int:
    async def work(app: Runs) -> tuple[CacheSize, Mapping[Tier, _Sum], Mapping[str, Any]]:
        scope = _whose(app, args)
        sums: dict[Tier, _Sum] = {}
        async for record in app.ledger.records(scope, RecordQuery(kind="model", status="ok", since=args.since)):
            sums.setdefault(record.cache_tier, _Sum()).add(record)
        tiers: dict[Tier, _Sum] = {tier: sums[tier] for tier in get_args(Tier) if tier in sums}
        return await app.cache.size(scope), tiers, await doors.known(app, scope)

    size, sums, known = asyncio.run(using(doors.app(), work))
    if args.json:
        shown = {
            "entries": size.entries,
            "bytes": size.bytes,
            "tiers": {tier: asdict(one) for tier, one in sums.items()},
            "layers": known,
        }
        sys.stdout.write(f"{to_json(shown).decode()}\n")
        return OK
    sys.stdout.write(f"{size.entries:,} entries, {size.bytes:,} bytes\n")
    if sums:
        sys.stdout.write("\n")
        calls = sum(one.calls for one in sums.values())
        write_table(
            ("answered by", *_COLUMNS), [_row(tier, one, calls) for tier, one in sums.items()], numbers=_COLUMNS
        )
    _write_known(known)
    return OK


def _write_known(known: Mapping[str, Any]) -> None:
    """The layers' own counts, and the evidence they stand on."""
    for layer, own in known.items():
        if "counts" in own:
            events = ", ".join(f"{count:,} {event.replace('_', ' ')}" for event, count in own["counts"].items())
            sys.stdout.write(f"\n{layer}, in the gateways here since they were started: {events}\n")
    semantic = known.get("semantic", {})
    if "tasks" in semantic:
        words = f"{semantic['sampling']:.1%} of its hits asked anew, at most {semantic['budget']:.1%} may be false"
        sys.stdout.write(f"\nsemantic: {words}; {semantic['evidence']:,} pieces of evidence\n")
        if semantic["tasks"]:
            rows = [_task_row(task, one) for task, one in semantic["tasks"].items()]
            write_table(("task", *_EVIDENCE), rows, numbers=_EVIDENCE)
    compress = known.get("compress", {})
    if "agreements" in compress:
        words = f"{compress['sampling']:.1%} of calls sent both ways, at most {compress['limit']:.1%} may change"
        sys.stdout.write(f"\ncompress: {words}\n")
        if compress["agreements"]:
            rows = [_agreement_row(one) for one in compress["agreements"]]
            write_table(("model", *_AGREEMENTS), rows, numbers=_AGREEMENTS[1:])


def _task_row(task: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    given = "none" if one["likely_from"] is None else f"{one['share']:.1%}"
    return ("all" if task == "*" else task, f"{one['evidence']:,}", f"{one['false']:,}", f"{one['bound']:.2%}", given)


def _agreement_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        one["model"],
        one["task"],
        f"{one['level']}",
        f"{one['compared']:,}",
        f"{one['differed']:,}",
        f"{one['risk']:.2%}",
    )


def _row(tier: Tier, one: _Sum, calls: int) -> tuple[str, ...]:
    return (
        tier,
        f"{one.calls}",
        f"{one.calls / calls:.1%}",
        f"{one.tokens_in:,}",
        f"{one.tokens_out:,}",
        cost_text(one.cost_usd if one.unpriced < one.calls else None, one.unpriced),
        "-" if tier == "model" else cost_text(one.saved_usd if one.unknown < one.calls else None, one.unknown),
    )


STATS: Final = Command(
    _stats_arguments,
    _stats,
    (
        ("kaizen cache stats", "what is kept, and what it has answered and saved"),
        ("kaizen cache stats --since 7d --tenant acme --json", "one tenant's last week, for a script"),
    ),
)


def _invalidate_arguments(parser: Parser) -> None:
    parser.add_argument("tags", nargs="*", metavar="TAG", help="drop what carries any of these, such as document:7f")
    parser.add_argument("--all", action="store_true", help="drop everything instead")
    _add_whose(parser)


def _invalidate(args: argparse.Namespace, doors: Doors) -> int:
    if args.all == bool(args.tags):
        Parser("cache invalidate", "").error("name the tags to invalidate, or --all")

    async def work(app: Runs) -> int:
        return await app.cache.invalidate(_whose(app, args), None if args.all else args.tags)

    dropped = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{to_json({'dropped': dropped}).decode()}\n")
    else:
        sys.stdout.write(f"dropped {dropped:,}\n")
    return OK


INVALIDATE: Final = Command(
    _invalidate_arguments,
    _invalidate,
    (
        ("kaizen cache invalidate document:7f", "whatever was made of that document, for every worker at once"),
        ("kaizen cache invalidate model:openai/gpt-4o-mini", "whatever that model has answered"),
        ("kaizen cache invalidate --all", "everything of this tenant and environment"),
    ),
)
