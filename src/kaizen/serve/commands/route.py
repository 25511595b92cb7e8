"""``kaizen route train``: a router from a file that says which model was right."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from kaizen.core.errors import Conflict
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.commands.tables import json_text, write_table
from kaizen.serve.doors import Doors
from kaizen.serve.errors import OK

_COLUMNS: Final = ("dial", "cost", "right")


def _arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="JSON lines, or CSV: a prompt, and who was right")
    parser.add_argument("--output", metavar="router.json", type=Path, required=True, help="where the router is written")
    parser.add_argument("--text", metavar="COLUMN", help="the column of the prompts, where it is not plain")
    parser.add_argument("--models", metavar="COLUMN", nargs="+", help="the columns of right and wrong")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _train(args: argparse.Namespace, doors: Doors) -> int:
    if args.output.exists():
        raise Conflict(f"{args.output} is there already, and nothing is overwritten")
    if not args.json:
        say("training: some seconds for each thousand rows")
    trained = asyncio.run(doors.train(args.file, args.output, args.text, args.models))
    if args.json:
        sys.stdout.write(f"{json_text({'output': str(args.output), **asdict(trained)})}\n")
        return OK
    say(f"{trained.rows:,} rows; prompts in {trained.text!r}, models {', '.join(trained.models)}")
    say(f"{args.output} is written; use it: router = {json_text(str(args.output))} under [inference.route]")
    write_table(_COLUMNS, [tuple(f"{value:.3f}" for value in point) for point in trained.curve], numbers=_COLUMNS)
    return OK


TRAIN: Final = Command(
    _arguments,
    _train,
    (
        ("kaizen route train answers.jsonl --output router.json", "columns are found by their values"),
        ("kaizen route train a.csv --output r.json --text question --models up/small up/large", "or named"),
    ),
)
