"""``kaizen serve``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from kaizen.serve.arguments import Command, Parser, whole_number
from kaizen.serve.doors import Doors, Serving


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="the settings, instead of the project's kaizen.toml"
    )
    parser.add_argument("--host", help="where to listen; 127.0.0.1 is this machine only")
    parser.add_argument("--port", type=_port, help="8000 unless the settings say otherwise; 0 takes a free one")
    parser.add_argument("--workers", metavar="N", type=whole_number, help="processes that answer")
    parser.add_argument(
        "--program",
        metavar="FILE.py:Name",
        action="append",
        default=[],
        help="a program that callers may run; repeatable",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"should be a number from 0 to 65535, not {text!r}")
    return int(text)


def _serve(args: argparse.Namespace, doors: Doors) -> int:
    return doors.serve(Serving(args.config, args.host, args.port, args.workers, tuple(args.program)))


SERVE: Final = Command(
    _arguments,
    _serve,
    (
        ("kaizen serve", "on this machine, with the embedded model; prints a key the first time"),
        ("kaizen serve --config kaizen.toml --port 8000 --workers 2", "as the file says, in two processes"),
        ("kaizen serve --program triage.py:Triage", "beside models a program: POST /api/v1/programs/triage.Triage"),
    ),
)
