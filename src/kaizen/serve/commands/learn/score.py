"""``kaizen score``: a person's word on an answer."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any, Final, cast

from pydantic_core import from_json

from kaizen.core.errors import ConfigError
from kaizen.core.record import Record
from kaizen.ledger.scores import keep_feedback, value_of
from kaizen.ledger.views import as_json
from kaizen.serve.arguments import Command, Parser
from kaizen.serve.commands.select import find
from kaizen.serve.commands.tables import json_text
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK

_PROGRAM: Final = "program"


def _arguments(parser: Parser) -> None:
    parser.add_argument("id", metavar="RECORD", help="of an answer, or of its run; the beginning is enough")
    parser.add_argument("value", nargs="?", type=float, metavar="SCORE", help="0 (wrong) to 1 (right)")
    parser.add_argument("--stars", type=float, metavar="N", help="1 to 5, instead of a score")
    parser.add_argument("--thumbs", choices=("up", "down"), help="instead of a score")
    parser.add_argument("--comment", default="", metavar="TEXT", help="why")
    parser.add_argument(
        "--correct", metavar="JSON", help="the right outputs, those that were wrong: becomes a row to learn from"
    )
    parser.add_argument("--by", default="", metavar="NAME", help="who says so")
    parser.add_argument("--json", action="store_true", help="print the score's record")


def _score(args: argparse.Namespace, doors: Doors) -> int:
    correct = None if args.correct is None else _object(args.correct)
    value = value_of(args.value, stars=args.stars, thumbs=args.thumbs, correct=correct)

    async def work(app: Runs) -> Record:
        choice = await find(app, args.id)
        about = choice.record or await _root(app, choice.run_id)
        return await keep_feedback(
            app.ledger, about, value, comment=args.comment, correct=correct, by=args.by and f"human:{args.by}"
        )

    kept = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text(as_json(kept))}\n")
    else:
        sys.stdout.write(f"{kept.about}: {value:g}{', corrected' if correct else ''}\n")
    return OK


async def _root(app: Runs, run_id: str) -> Record:
    """The answer of a run: of its latest attempt."""
    trees = await app.ledger.tree(app.scope, run_id)
    answers = [node.record for node in trees if node.record.kind == _PROGRAM] or [node.record for node in trees]
    return answers[-1]


def _object(text: str) -> dict[str, Any]:
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ConfigError(f"--correct is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError('--correct should be a JSON object of outputs, such as \'{"team": "cards"}\'')
    return cast("dict[str, Any]", value)


SCORE: Final = Command(
    _arguments,
    _score,
    (
        ("kaizen score 019a9c4e-1b2c-7d3f 0.8 --comment 'right, but slow to the point'", "from 0 to 1"),
        ("kaizen score 019a9c4e-1b2c-7d3f --stars 4", "as people give it"),
        ('kaizen score 019a9c4e-1b2c-7d3f --correct \'{"team": "cards"}\'', "what it should have been"),
    ),
)
