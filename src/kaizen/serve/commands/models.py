"""``kaizen models list``, ``test`` and ``pull``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import to_json

from kaizen.core.errors import KaizenError, NotFound, OutputInvalid
from kaizen.core.protocols import Suspended
from kaizen.core.record import Record
from kaizen.core.spec import shorten
from kaizen.ledger.views import as_json
from kaizen.programs.signature import signature
from kaizen.serve.arguments import Command, Parser, say
from kaizen.serve.commands.tables import dollars, json_text, milliseconds, tokens, write_table
from kaizen.serve.doors import Doors, ModelInfo, Runs, using
from kaizen.serve.errors import FINDINGS, OK, one_line

_EMBEDDED: Final = "embedded"
_SAID: Final = 60


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


def _test_arguments(parser: Parser) -> None:
    parser.add_argument("refs", metavar="REF", nargs="*", help="models; the default one without any")
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def _test(args: argparse.Namespace, doors: Doors) -> int:
    refs = args.refs or [model.ref for model in doors.models() if model.default]

    async def work(app: Runs) -> list[_Tried]:
        return [await _tried(app, ref) for ref in refs]

    found = asyncio.run(using(doors.app(), work))
    if args.json:
        sys.stdout.write(f"{json_text([_as_json(one) for one in found])}\n")
    else:
        columns = ("model", "answered", "latency", "tokens", "cost", "said")
        write_table(columns, [_test_row(one) for one in found], numbers=("latency", "tokens", "cost"))
    return OK if all(one.answered for one in found) else FINDINGS


@dataclass(frozen=True, slots=True)
class _Tried:
    """How a model answered, and the record of the call."""

    model: str
    answered: bool
    said: str
    record: Record | None


async def _tried(app: Runs, ref: str) -> _Tried:
    """One small call through all layers, on record as any other."""
    asked = signature("word -> answer", doc="Say the word.", name="ModelTest").using(model=ref, max_tokens=40)
    try:
        answer = await app.start(asked, {"word": "yes"})
    except OutputInvalid as misfit:
        # it answered; that a small model misses the form is another matter
        return _Tried(ref, True, one_line(misfit), misfit.record)
    except KaizenError as error:
        return _Tried(ref, False, one_line(error), error.record)
    if isinstance(answer, Suspended):
        return _Tried(ref, False, answer.question, None)
    return _Tried(ref, True, str(answer.outputs["answer"]), answer.record)


def _as_json(tried: _Tried) -> dict[str, Any]:
    record = None if tried.record is None else as_json(tried.record)
    return {"model": tried.model, "answered": tried.answered, "said": tried.said, "record": record}


def _test_row(tried: _Tried) -> tuple[str, ...]:
    record = tried.record
    return (
        tried.model,
        "yes" if tried.answered else "no",
        milliseconds(record.latency_ms if record is not None else None),
        tokens(record) if record is not None else "-",
        dollars(record.cost_usd) if record is not None and record.model_calls else "-",
        shorten(tried.said, _SAID),
    )


TEST: Final = Command(
    _test_arguments,
    _test,
    (
        ("kaizen models test", "the default model"),
        ("kaizen models test openai/gpt-4o-mini embedded/smollm2-135m --json", "several, for a script"),
    ),
)


def _pull_arguments(parser: Parser) -> None:
    parser.add_argument("ref", metavar="REF", help="the model, such as embedded/smollm2-135m")


def _pull(args: argparse.Namespace, doors: Doors) -> int:
    provider, _, name = args.ref.rpartition("/")
    if provider not in ("", _EMBEDDED):
        raise NotFound(f"{args.ref} is no embedded model: only those are pulled, such as embedded/smollm2-135m")

    async def work() -> Path:
        with steps() as step:
            return await doors.pull(name, step)

    path = asyncio.run(work())
    sys.stdout.write(f"{path}\n")
    return OK


@contextmanager
def steps() -> Generator[Callable[[str], None]]:
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
