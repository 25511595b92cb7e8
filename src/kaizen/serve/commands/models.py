"""``kaizen models list`` and ``pull``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic_core import to_json

from kaizen.core.errors import NotFound
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.commands.tables import write_table
from kaizen.serve.doors import Doors, ModelInfo
from kaizen.serve.errors import OK

_EMBEDDED: Final = "embedded"


def _list_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def _list(args: argparse.Namespace, doors: Doors) -> int:
    models = doors.models()
    if args.json:
        sys.stdout.write(f"{to_json([asdict(model) for model in models]).decode()}\n")
    else:
        columns = ("model", "kind", "default", "ready", "output", "$/M in", "$/M out", "note")
        write_table(columns, [_row(model) for model in models], numbers=("$/M in", "$/M out"))
    return OK


def _row(model: ModelInfo) -> tuple[str, ...]:
    return (
        model.ref,
        model.kind,
        "yes" if model.default else "",
        "yes" if model.ready else "no",
        model.output_mode or "-",
        _price(model.input_usd_per_mtok),
        _price(model.output_usd_per_mtok),
        model.note,
    )


def _price(usd: float | None) -> str:
    return "?" if usd is None else f"{usd:g}"


LIST: Final = Command(
    _list_arguments,
    _list,
    (("kaizen models list", "what can be asked, and what is missing"), ("kaizen models list --json", "for a script")),
)


def _pull_arguments(parser: Parser) -> None:
    parser.add_argument("ref", metavar="REF", help="the model, such as embedded/smollm2-135m")


def _pull(args: argparse.Namespace, doors: Doors) -> int:
    provider, _, name = args.ref.rpartition("/")
    if provider not in ("", _EMBEDDED):
        raise NotFound(f"{args.ref} is no embedded model: only those are pulled, such as embedded/smollm2-135m")

    async def work() -> Path:
        with _steps() as step:
            return await doors.pull(name, step)

    path = asyncio.run(work())
    sys.stdout.write(f"{path}\n")
    return OK


@contextmanager
def _steps() -> Generator[Callable[[str], None]]:
    """Where steps are told: a moving bar on a terminal (an installer does not say how far it is), else lines."""
    if not sys.stderr.isatty():
        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        task = progress.add_task("", total=None)
        yield lambda words: progress.update(task, description=words)
        progress.update(task, total=1, completed=1)


PULL: Final = Command(
    _pull_arguments,
    _pull,
    (("kaizen models pull embedded/smollm2-135m", "into the user's data folder; the path goes to standard output"),),
)
