"""``kaizen registry diff``: words of texts, demos, params, and the scores side by side."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, assert_never

from kaizen.registry.diff import Change, Items, Op, Values, Words
from kaizen.registry.registry import LATEST, PROD
from kaizen.serve.arguments import Command, Parser
from kaizen.serve.commands.registry.look import interval_text
from kaizen.serve.commands.registry.named import add_name, add_whose, opened, subject, whose
from kaizen.serve.commands.tables import json_text, takes_colour, write_table
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK
from kaizen.serve.shown.differences import changed, diff_json, scores_beside
from kaizen.serve.shown.versions import Held, held

_MARKS: Final[Mapping[Op, tuple[str, str]]] = {"=": ("", ""), "-": ("[-", "-]"), "+": ("{+", "+}")}
_COLOURS: Final[Mapping[Op, str]] = {"=": "", "-": "\x1b[31m", "+": "\x1b[32m"}
_PLAIN: Final = "\x1b[0m"
_MOST: Final = 6


def _arguments(parser: Parser) -> None:
    add_name(parser)
    parser.add_argument("old", nargs="?", metavar="OLD", help="base, latest, a label or a number (default: prod)")
    parser.add_argument("new", nargs="?", metavar="NEW", help="the same (default: latest)")
    parser.add_argument("--all", action="store_true", help="every demo that came or went, not only the first of them")
    add_whose(parser)


def _diff(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name)

    async def work(app: Runs) -> tuple[Held, Held, Sequence[Mapping[str, Any]]]:
        scope, registry = whose(app, args), app.registry
        what = await subject(registry, scope, word)
        old = await held(registry, scope, what, args.old or what.which or PROD)
        new = await held(registry, scope, what, args.new or LATEST)
        return old, new, await scores_beside(registry, scope, old, new)

    old, new, scores = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text(diff_json(old, new, scores))}\n")
        return OK
    changes = changed(old, new)
    sys.stdout.write(f"{old.what.full}  {old.shown} -> {new.shown}\n")
    if not changes:
        sys.stdout.write("  no difference\n")
    for name, change in changes.items():
        most = sys.maxsize if args.all else _MOST
        sys.stdout.writelines(f"{line}\n" for line in _lines(name, change, most, colour=takes_colour()))
    if scores:
        sys.stdout.write("\n")
        rows = [(row["metric"], interval_text(row["old"] or {}), interval_text(row["new"] or {})) for row in scores]
        write_table(("metric", old.shown, new.shown), rows)
    return OK


def _lines(name: str, change: Change, most: int, *, colour: bool) -> list[str]:
    match change:
        case Words(pieces):
            text = "".join(_marked(op, piece, colour=colour) for op, piece in pieces)
            return ["", name, *(f"  {line}" for line in text.splitlines())]
        case Items(removed, added, moved):
            lines: list[str] = []
            signed: tuple[tuple[Op, Sequence[Any]], ...] = (("-", removed), ("+", added))
            for op, items in signed:
                lines += [_marked(op, f"{op} {json_text(item)}", colour=colour, mark=False) for item in items[:most]]
                lines += [f"{op} and {len(items) - most} more; --all shows them"] if len(items) > most else []
            lines += ["those that both have stand in another order"] if moved else []
            return ["", name, *(f"  {line}" for line in lines)]
        case Values(old, new):
            return ["", name, f"  {_shown(old)} -> {_shown(new)}"]
        case _:
            assert_never(change)


def _marked(op: Op, text: str, *, colour: bool, mark: bool = True) -> str:
    before, after = _MARKS[op] if mark else ("", "")
    safe = "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)
    return f"{_COLOURS[op]}{before}{safe}{after}{_PLAIN}" if colour and op != "=" else f"{before}{safe}{after}"


def _shown(value: object) -> str:
    return "not stated" if value is None else json_text(value)


DIFF: Final = Command(
    _arguments,
    _diff,
    (
        ("kaizen registry diff triage.Triage", "what the latest version changes against what runs"),
        ("kaizen registry diff triage.py:Triage base 3", "against the code; its docstring is compared, too"),
        ("kaizen registry diff triage.Triage 2 3 --json", "for a script"),
    ),
)
