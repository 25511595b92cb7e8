"""``kaizen compress calibrate``: how often shortened prompts are answered as whole ones are."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from kaizen.core.scope import Scope
from kaizen.serve.arguments import Command, Parser, say, whole_number
from kaizen.serve.commands.models import steps
from kaizen.serve.commands.tables import json_text, write_table
from kaizen.serve.doors import Calibrating, Doors, Runs, using
from kaizen.serve.errors import OK

if TYPE_CHECKING:
    from kaizen.inference.compress.calibrate import Calibration, Measured

_COLUMNS: Final = ("agreed", "interval", "risk at most", "tokens saved", "compared")


def _arguments(parser: Parser) -> None:
    parser.add_argument("--model", metavar="REF", help="ask this model (default: the one that each call asked)")
    parser.add_argument("--task", metavar="NAME", help="only calls of this type of task")
    parser.add_argument("--calls", metavar="N", type=whole_number, default=100, help="model calls at most (100)")
    parser.add_argument("--tenant", metavar="NAME", help="whose calls (default: the settings' tenant)")
    parser.add_argument("--environment", metavar="NAME", help="which of its environments (default: the settings')")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _calibrate(args: argparse.Namespace, doors: Doors) -> int:
    async def work(app: Runs) -> Calibration:
        scope = Scope(args.tenant or app.scope.tenant, args.environment or app.scope.environment)
        with steps() as step:

            def told(calls: int, prompts: int) -> None:
                if sys.stderr.isatty() or prompts % 10 == 0:
                    step(f"{prompts} prompts, {calls} of at most {args.calls} calls")

            return await doors.calibrate(app, Calibrating(scope, args.model, args.task, args.calls, told))

    found = asyncio.run(using(doors.app(), work))
    if args.json:
        rows = [_as_json(row) for row in found.measured]
        sys.stdout.write(f"{json_text({'asked': found.asked, 'failed': found.failed, 'measured': rows})}\n")
        return OK
    failed = f", {found.failed} of them failed" if found.failed else ""
    say(f"{found.asked} calls made{failed}; what they showed is kept, and holds from the next call on")
    if found.measured:
        write_table(("task", "model", "level", *_COLUMNS), [_row(row) for row in found.measured], numbers=_COLUMNS)
    else:
        say("no recorded call whose contents are kept can be shortened")
    return OK


def _as_json(row: Measured) -> dict[str, object]:
    low, high = row.agreement.interval()
    return {**asdict(row), "low": low, "high": high, "risk": row.agreement.risk}


def _row(row: Measured) -> tuple[str, ...]:
    agreement = row.agreement
    low, high = agreement.interval()
    return (
        row.task,
        row.model,
        row.level,
        f"{1 - agreement.differed / agreement.compared:.1%}",
        f"{low:.1%} .. {high:.1%}",
        f"{agreement.risk:.1%}",
        f"{1 - row.after / row.before:.1%}" if row.before else "-",
        f"{agreement.compared:,}",
    )


CALIBRATE: Final = Command(
    _arguments,
    _calibrate,
    (
        ("kaizen compress calibrate", "ask recorded calls again, whole and shortened, 100 calls at most"),
        ("kaizen compress calibrate --task support --calls 500 --json", "one type of task, for a script"),
        ("kaizen compress calibrate --model openai/gpt-4o-mini", "as another model would answer the recorded prompts"),
    ),
)
