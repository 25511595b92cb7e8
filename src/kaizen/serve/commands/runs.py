"""``kaizen runs list``, ``show`` and ``export``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydantic_core import from_json

from kaizen.core.errors import StoreError
from kaizen.core.record import Record
from kaizen.ledger.ledger import Node
from kaizen.ledger.views import as_json, export
from kaizen.serve.arguments import Command, Parser, say, whole_number
from kaizen.serve.commands.select import add_filters, chosen, find
from kaizen.serve.commands.tables import dollars, json_text, milliseconds, short_id, tokens, when, write_table
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import OK
from kaizen.serve.versions import version_texts

_SAY_EVERY: Final = 5.0

# -- list -----------------------------------------------------------------------------------------


def _list_arguments(parser: Parser) -> None:
    add_filters(parser)
    parser.add_argument("--limit", type=whole_number, default=20, metavar="N", help="how many (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON array of whole records")


def _list(args: argparse.Namespace, doors: Doors) -> int:
    async def work(app: Runs) -> list[Record]:
        query = await chosen(app, args, kind="program", root_only=True, newest=args.limit)
        return [record async for record in app.ledger.records(app.scope, query)]

    records = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text([as_json(record) for record in records])}\n")
    elif not records:
        say("no such runs")
    else:
        columns = ("record", "started", "program", "status", "latency", "tokens", "cost", "model")
        write_table(columns, [_row(record) for record in records], numbers=("latency", "tokens", "cost"))
    return OK


def _row(record: Record) -> tuple[str, ...]:
    status = record.error_code or record.status
    return (
        short_id(record.id),
        when(record.started_at),
        record.ref,
        status,
        milliseconds(record.latency_ms),
        tokens(record),
        dollars(record.cost_usd) if record.model_calls else "-",
        record.model or "-",
    )


LIST: Final = Command(
    _list_arguments,
    _list,
    (
        ("kaizen runs list", "the latest 20"),
        ("kaizen runs list --program Triage --status error --since 2h", "what went wrong lately"),
        ("kaizen runs list --limit 1000 --json", "for a script: one array"),
    ),
)

# -- show -----------------------------------------------------------------------------------------


def _show_arguments(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", help="of a run or a record; its beginning is enough")
    parser.add_argument("--messages", action="store_true", help="also what was sent to the models, and their replies")
    parser.add_argument("--json", action="store_true", help="print one JSON array of trees, with all contents")


def _show(args: argparse.Namespace, doors: Doors) -> int:
    async def work(app: Runs) -> tuple[list[_Opened], Mapping[str, str]]:
        choice = await find(app, args.id)
        trees = await app.ledger.tree(app.scope, choice.run_id)
        wanted = trees if choice.record is None else _subtrees(trees, choice.record.id)
        return [await _opened(app, node) for node in wanted], await version_texts(app, _records(wanted))

    nodes, versions = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text([_as_json(node) for node in nodes])}\n")
    else:
        for node in nodes:
            _write_node(node, 0, versions, messages=args.messages)
    return OK


def _records(nodes: Sequence[Node]) -> list[Record]:
    return [record for node in nodes for record in (node.record, *_records(node.children))]


def _subtrees(trees: tuple[Node, ...], record_id: str) -> list[Node]:
    pending = list(trees)
    while pending:
        node = pending.pop()
        if node.record.id == record_id:
            return [node]
        pending += node.children
    return []


@dataclass(frozen=True, slots=True)
class _Opened:
    """A record with its contents, where they are kept, and those below it."""

    record: Record
    contents: Mapping[str, Any]
    children: Sequence[_Opened]


async def _opened(app: Runs, node: Node) -> _Opened:
    contents: dict[str, Any] = {}
    for name, address in (("input", node.record.input_digest), ("output", node.record.output_digest)):
        data = await app.ledger.payload(app.scope, address)
        contents[name] = None if data is None else from_json(data)
    return _Opened(node.record, contents, [await _opened(app, child) for child in node.children])


def _as_json(node: _Opened) -> dict[str, Any]:
    return {**as_json(node.record), **node.contents, "children": [_as_json(child) for child in node.children]}


def _write_node(node: _Opened, depth: int, versions: Mapping[str, str], *, messages: bool) -> None:
    record = node.record
    lines = [f"{record.ref}  {record.status}  {_taken(record)}  {record.id}"]
    if not depth:
        lines.append(f"  started {when(record.started_at)}, run {record.run_id}, params {record.params or '-'}")
    if record.kind == "program" and record.version is not None:
        arm = f", an arm of experiment {record.experiment}" if record.experiment else ""
        lines.append(f"  version {versions.get(record.version, record.version)}{arm}")
    if record.error_code:
        lines.append(f"  error   {record.error_code}: {record.error or ''}")
    if record.kind == "program" or messages:
        for name, address in (("input", record.input_digest), ("output", record.output_digest)):
            if node.contents[name] is not None:
                lines.append(f"  {name:<7} {json_text(node.contents[name])}")
            elif address is not None:
                lines.append(f"  {name:<7} not kept, or erased")
    sys.stdout.writelines(f"{'  ' * depth}{line}\n" for line in lines)
    for child in node.children:
        _write_node(child, depth + 1, versions, messages=messages)


def _taken(record: Record) -> str:
    if not record.model_calls:
        return milliseconds(record.latency_ms)
    return f"{milliseconds(record.latency_ms)}, {tokens(record)} tokens, {dollars(record.cost_usd)}"


SHOW: Final = Command(
    _show_arguments,
    _show,
    (
        ("kaizen runs show 019a9c4e-1b2c-7d3f", "a call and everything below it"),
        ("kaizen runs show 019a9c4e-1b2c-7d3f --messages", "with the prompt as it was sent"),
    ),
)

# -- export ---------------------------------------------------------------------------------------


def _export_arguments(parser: Parser) -> None:
    add_filters(parser)
    parser.add_argument("--output", type=Path, metavar="FILE.jsonl", help="a new file; standard output without it")
    parser.add_argument("--payloads", action="store_true", help="add input and output, where they are kept")


def _export(args: argparse.Namespace, doors: Doors) -> int:
    async def work(app: Runs) -> int:
        query = await chosen(app, args)
        lines = export(app.ledger, app.scope, query, with_payloads=args.payloads)
        if args.output is None:
            return await _write_lines(lines, sys.stdout.buffer, quiet=True)
        with _new_file(args.output) as file:
            return await _write_lines(lines, file, quiet=False)

    count = asyncio.run(using(doors.app(), work))
    if args.output is not None:
        say(f"{count} records are in {args.output}")
    return OK


def _new_file(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileExistsError:
        raise StoreError(f"{path} is there already; take another name") from None
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}") from None


async def _write_lines(lines: AsyncIterator[bytes], file: BinaryIO, *, quiet: bool) -> int:
    count, last = 0, time.monotonic()
    async for line in lines:
        file.write(line)
        count += 1
        if not quiet and time.monotonic() - last >= _SAY_EVERY:
            last = time.monotonic()
            say(f"{count} records")
    file.flush()
    return count


EXPORT: Final = Command(
    _export_arguments,
    _export,
    (
        ("kaizen runs export --output records.jsonl", "every record of the project"),
        ("kaizen runs export --program Triage --payloads | head -n 3", "with inputs and outputs"),
    ),
)
