"""``kaizen registry label`` and ``rollback``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from kaizen.core.artifact import Arm, Head, Move
from kaizen.core.errors import InvalidInput
from kaizen.core.scope import Scope
from kaizen.registry.registry import PROD, Registry
from kaizen.serve.arguments import Command, Parser
from kaizen.serve.commands.registry.named import (
    add_name,
    add_reason,
    add_whose,
    arms_text,
    by,
    opened,
    subject,
    whose,
)
from kaizen.serve.commands.tables import json_text
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK
from kaizen.serve.shown.versions import Subject, arm_of, move_json

# -- label ----------------------------------------------------------------------------------------


def _label_arguments(parser: Parser) -> None:
    add_name(parser)
    parser.add_argument("label", metavar="LABEL", help="which to move: prod is what runs where nothing else is said")
    parser.add_argument(
        "versions",
        nargs="*",
        metavar="V",
        help="base, latest, a label or a number; several as V=WEIGHT, summing to 1 (default: that of NAME@V, latest)",
    )
    add_reason(parser)
    add_whose(parser)


def _label(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name)

    async def work(app: Runs) -> tuple[Move, Sequence[Head]]:
        scope, registry = whose(app, args), app.registry
        what = await subject(registry, scope, word)
        arms = [
            await _arm(registry, scope, what, text, sole=len(args.versions) < 2)
            for text in args.versions or [what.which or "latest"]
        ]
        move = await registry.label(scope, what.kind, what.name, args.label, arms, actor=by(args), reason=args.reason)
        return move, await registry.heads(scope, what.kind, what.name)

    _say(*asyncio.run(using(doors.app(), work)), as_json=args.json)
    return OK


async def _arm(registry: Registry, scope: Scope, what: Subject, text: str, *, sole: bool) -> Arm:
    which, equals, weight = text.rpartition("=") if "=" in text else (text, "", "1")
    try:
        share = float(weight)
    except ValueError:
        raise InvalidInput(f"{text!r} should read V=WEIGHT, such as 3=0.1") from None
    if not equals and not sole:
        raise InvalidInput(f"{text!r}: of several versions each needs its weight, such as {text}=0.5")
    return await arm_of(registry, scope, what, which, share)


def _say(move: Move, heads: Sequence[Head], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(f"{json_text(move_json(move, heads))}\n")
    else:
        sys.stdout.write(f"{move.kind}/{move.name}@{move.label} shows {arms_text(move.arms, heads)}\n")


LABEL: Final = Command(
    _label_arguments,
    _label,
    (
        (
            'kaizen registry label triage.Triage prod 3 --reason "12 points better on the test rows"',
            "release version 3",
        ),
        ("kaizen registry label triage.Triage prod base", "run the params in the code again"),
        (
            "kaizen registry label triage.Triage canary latest=0.1 prod=0.9",
            "show two, each to its share of the subjects",
        ),
    ),
)

# -- rollback -------------------------------------------------------------------------------------


def _rollback_arguments(parser: Parser) -> None:
    add_name(parser)
    parser.add_argument("--label", default=PROD, metavar="LABEL", help="which to move (default: prod)")
    add_reason(parser)
    add_whose(parser)


def _rollback(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name)

    async def work(app: Runs) -> tuple[Move, Sequence[Head]]:
        scope, registry = whose(app, args), app.registry
        what = await subject(registry, scope, word)
        move = await registry.rollback(scope, what.kind, what.name, args.label, actor=by(args), reason=args.reason)
        return move, await registry.heads(scope, what.kind, what.name)

    _say(*asyncio.run(using(doors.app(), work)), as_json=args.json)
    return OK


ROLLBACK: Final = Command(
    _rollback_arguments,
    _rollback,
    (
        ('kaizen registry rollback triage.Triage --reason "refunds go to the wrong team"', "what prod showed before"),
        ("kaizen registry rollback triage.Triage --label canary", "another label"),
    ),
)
