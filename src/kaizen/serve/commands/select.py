"""Which records a command is about: the flags that choose them, and ids in their short form."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, get_args

from kaizen.core.errors import Conflict, NotFound
from kaizen.core.record import Kind, Record, RecordQuery, Status
from kaizen.serve.arguments import Parser
from kaizen.serve.doors import Runs

_AGO: Final = re.compile(r"(\d+)([smhdw])")
_SECONDS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_ID: Final = re.compile(r"[0-9a-f-]{4,36}")
_WHOLE: Final = 36
_NEAR: Final = 256  # records looked through for a run whose id begins so: its first follows within moments


@dataclass(frozen=True, slots=True)
class Choice:
    """What an id stands for: a run, or one record of it."""

    run_id: str
    record: Record | None


def add_filters(parser: Parser) -> None:
    """The flags that choose records."""
    parser.add_argument("--program", metavar="NAME", help="only of this program: triage.Triage, or Triage")
    parser.add_argument("--status", choices=get_args(Status), help="only those that ended so")
    add_since(parser)


def add_since(parser: Parser) -> None:
    """The flag that says from when on."""
    parser.add_argument(
        "--since", type=_since, metavar="WHEN", help="only from then on: 30m, 2h, 7d (ago), or 2031-05-28, also T14:30"
    )


def _since(text: str) -> float:
    if ago := _AGO.fullmatch(text):
        return time.time() - int(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 30m, 2h, 7d or 2031-05-28T14:30") from None


async def chosen(
    app: Runs,
    args: argparse.Namespace,
    *,
    kind: Kind | None = None,
    root_only: bool = False,
    newest: int | None = None,
) -> RecordQuery:
    """The query that the flags of ``add_filters`` ask for.

    Args:
        app: whose records.
        args: the flags.
        kind: as in the query.
        root_only: as in the query.
        newest: if given, that many, newest first.

    Raises:
        NotFound: nothing was run under the program's name.
    """
    return RecordQuery(
        kind=kind,
        ref=await _ref(app, args.program),
        status=args.status,
        since=args.since,
        root_only=root_only,
        newest_first=newest is not None,
        limit=newest,
    )


async def _ref(app: Runs, name: str | None) -> str | None:
    """A program's full name; the latest one run whose class or function is called so."""
    if name is None or "." in name:
        return name
    async for record in app.ledger.records(app.scope, RecordQuery(kind="program", newest_first=True)):
        if record.ref.rpartition(".")[2] == name:
            return record.ref
    raise NotFound(f"nothing was run under the name {name}")


async def find(app: Runs, identifier: str) -> Choice:
    """The run or record that an id, whole or its beginning, stands for.

    Raises:
        NotFound: there is none.
        Conflict: there are several.
    """
    identifier = identifier.lower()
    if not _ID.fullmatch(identifier):
        raise NotFound(f"{identifier!r} is no id: `kaizen runs list` shows them")
    records = app.ledger.records
    if len(identifier) == _WHOLE:
        record = await app.ledger.store.record(app.scope, identifier)
        if record is not None:
            return Choice(record.run_id, record)
        async for record in records(app.scope, RecordQuery(run_id=identifier, limit=1)):
            return Choice(record.run_id, None)
    else:
        near = [record async for record in records(app.scope, RecordQuery(after=identifier, limit=_NEAR))]
        found = {record.id: Choice(record.run_id, record) for record in near if record.id.startswith(identifier)}
        found |= {r.run_id: Choice(r.run_id, None) for r in near if r.run_id.startswith(identifier)}
        if len(found) > 1:
            raise Conflict(f"several ids begin with {identifier}: {', '.join(sorted(found)[:3])} ...")
        if found:
            return next(iter(found.values()))
    raise NotFound(f"there is no run or record {identifier} in {app.scope}")
