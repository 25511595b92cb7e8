"""``kaizen registry list``, ``show`` and ``history``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kaizen.core.artifact import BASE, Arm, Head, Move, Version
from kaizen.registry.params import read_file, readable
from kaizen.registry.registry import PARAMS
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.commands.registry.named import (
    add_name,
    add_whose,
    arms_text,
    opened,
    safe,
    short,
    subject,
    whose,
)
from kaizen.serve.commands.tables import json_text, when, write_table
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK
from kaizen.serve.shown.versions import (
    Held,
    Subject,
    head_json,
    held,
    held_json,
    labels_of,
    move_json,
    name_json,
    score_of,
    shows,
)

_LONG: Final = 20_000

# -- list -----------------------------------------------------------------------------------------


def _list_arguments(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="list the versions of this one")
    parser.add_argument("--kind", metavar="KIND", help="only these, such as params or dataset")
    add_whose(parser)


def _list(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name) if args.name else None

    async def work(app: Runs) -> tuple[Subject | None, Sequence[Head], Sequence[Move]]:
        scope = whose(app, args)
        if word is None:
            return None, await app.registry.heads(scope, args.kind), await app.registry.archive.moves(scope, args.kind)
        what = await subject(app.registry, scope, word)
        heads = await app.registry.heads(scope, what.kind, what.name)
        return what, heads, await app.registry.history(scope, what.kind, what.name)

    what, heads, moves = asyncio.run(using(doors.app(), work))
    if what is not None:
        _write_versions(heads, moves, as_json=args.json)
    else:
        _write_names(heads, moves, as_json=args.json)
    return OK


def _write_names(heads: Sequence[Head], moves: Sequence[Move], *, as_json: bool) -> None:
    labels = labels_of(moves)
    grouped: dict[tuple[str, str], list[Head]] = {key: [] for key in labels}
    for head in heads:
        grouped.setdefault((head.kind, head.name), []).append(head)
    if as_json:
        rows = [name_json(key, group, labels.get(key, {})) for key, group in sorted(grouped.items())]
        sys.stdout.write(f"{json_text(rows)}\n")
    elif not grouped:
        say("the registry is empty: every program runs the params in its code")
    else:
        columns = ("name", "kind", "versions", "labels", "latest by", "at", "reason")
        write_table(
            columns,
            [_name_row(key, group, labels.get(key, {})) for key, group in sorted(grouped.items())],
            numbers=("versions",),
        )


def _name_row(key: tuple[str, str], heads: Sequence[Head], labels: Mapping[str, Sequence[Arm]]) -> tuple[str, ...]:
    shown = ", ".join(f"{label}: {arms_text(arms, heads)}" for label, arms in labels.items())
    newest = heads[-1] if heads else None
    latest = ("-", "-", "-") if newest is None else (safe(newest.author), when(newest.at), safe(newest.reason))
    return (key[1], key[0], f"{len(heads)}", shown or "-", *latest)


def _write_versions(heads: Sequence[Head], moves: Sequence[Move], *, as_json: bool) -> None:
    labels = {label: arms for shown in labels_of(moves).values() for label, arms in shown.items()}
    rows = [(head, [label for label, arms in labels.items() if shows(arms, head.version)]) for head in heads]
    if as_json:
        sys.stdout.write(f"{json_text([{**head_json(head), 'labels': shown} for head, shown in rows])}\n")
        return
    base = [label for label, arms in labels.items() if shows(arms, BASE)]
    table = [(BASE, "-", ", ".join(base) or "-", "the code", "-", "-")] if not heads or heads[0].kind == PARAMS else []
    table += [
        (
            f"{head.number}",
            short(head.version),
            ", ".join(shown) or "-",
            safe(head.author),
            when(head.at),
            safe(head.reason),
        )
        for head, shown in rows
    ]
    write_table(("version", "address", "labels", "by", "at", "reason"), table)


LIST: Final = Command(
    _list_arguments,
    _list,
    (
        ("kaizen registry list", "what has versions, and what its labels show"),
        ("kaizen registry list triage.py:Triage", "the versions of one program"),
        ("kaizen registry list --kind dataset --json", "for a script: one array"),
    ),
)

# -- show -----------------------------------------------------------------------------------------


def _show_arguments(parser: Parser) -> None:
    add_name(parser)
    parser.add_argument("--version", metavar="V", help="base, latest, a label or a number (default: latest)")
    add_whose(parser)


def _show(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name)

    async def work(app: Runs) -> tuple[Held, Sequence[str], Sequence[Version]]:
        scope = whose(app, args)
        what = await subject(app.registry, scope, word)
        one = await held(app.registry, scope, what, args.version or what.which)
        version = BASE if one.version is None else one.version.artifact.version
        labels = await app.registry.labels(scope, what.kind, what.name)
        scores = await app.registry.children(scope, one.ref, "evaluation")
        return one, [label for label, arms in labels.items() if shows(arms, version)], scores

    one, labels, scores = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text(held_json(one, labels, scores))}\n")
        return OK
    lines = [f"{one.what.full} version {one.shown}" + (f", {', '.join(labels)}" if labels else "")]
    if one.version is not None:
        version = one.version
        lines.append(f"  {version.artifact.version} by {version.author}, {when(version.at)}")
        lines += [f"  because {version.reason}"] if version.reason else []
        lines += [f"  made from {ref}" for ref in version.artifact.parents]
    lines += [f"  {score_text(score)}" for score in scores]
    sys.stdout.write("\n".join([*(safe(line) for line in lines), "", _body(one)]))
    return OK


def _body(one: Held) -> str:
    if one.what.kind == PARAMS:
        return readable(read_file(json_text(one.tree)).params)[0] or "it says nothing: the code's own hold\n"
    text = f"{json_text(one.tree, indent=2)}\n"
    return text if len(text) <= _LONG else f"{text[:_LONG]}\n... {len(text) - _LONG:,} more characters, see --json\n"


def score_text(evaluation: Version) -> str:
    """One line: ``accuracy 0.81 [0.72, 0.88], n = 100``."""
    said = score_of(evaluation)
    name = said.get("metric") or "score"
    return f"{name} {interval_text(said)}, n = {said.get('n', '?')} ({said['evaluation']})"


def interval_text(said: Mapping[str, Any]) -> str:
    """``0.81 [0.72, 0.88]``."""
    score, low, high = (said.get(key) for key in ("score", "low", "high"))
    shown = "?" if score is None else f"{score:.3g}"
    return shown if low is None or high is None else f"{shown} [{low:.3g}, {high:.3g}]"


SHOW: Final = Command(
    _show_arguments,
    _show,
    (
        ("kaizen registry show triage.Triage@prod", "what runs now, and its scores"),
        ("kaizen registry show triage.py:Triage --version base", "the params in the code"),
        ("kaizen registry show dataset/mail@2 --json", "anything else, whole"),
    ),
)

# -- history --------------------------------------------------------------------------------------


def _history_arguments(parser: Parser) -> None:
    add_name(parser)
    parser.add_argument("--label", metavar="LABEL", help="only the moves of this one")
    add_whose(parser)


def _history(args: argparse.Namespace, doors: Doors) -> int:
    word = opened(args.name)

    async def work(app: Runs) -> tuple[Sequence[Move], Sequence[Head]]:
        scope = whose(app, args)
        what = await subject(app.registry, scope, word)
        moves = await app.registry.history(scope, what.kind, what.name, args.label)
        return moves, await app.registry.heads(scope, what.kind, what.name)

    moves, heads = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text([move_json(move, heads) for move in moves])}\n")
    elif not moves:
        say("no label of it was ever moved")
    else:
        columns = ("at", "label", "shows", "by", "reason")
        write_table(
            columns,
            [
                (when(move.at), move.label, arms_text(move.arms, heads), safe(move.actor), safe(_why(move)))
                for move in moves
            ],
        )
    return OK


def _why(move: Move) -> str:
    return " ".join(filter(None, ("(rollback)" if move.undoes else "", move.reason)))


HISTORY: Final = Command(
    _history_arguments,
    _history,
    (
        ("kaizen registry history triage.Triage", "who moved which label, when and why"),
        ("kaizen registry history triage.Triage --label prod --json", "for a script: one array, oldest first"),
    ),
)
