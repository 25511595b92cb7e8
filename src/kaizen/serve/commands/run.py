"""``kaizen run``: a program on one input, or on each row of a file."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kaizen.core.answer import Answer
from kaizen.core.context import EVERY, Partial, Program
from kaizen.core.errors import ConfigError, Denied
from kaizen.core.params import Params
from kaizen.core.protocols import Suspended
from kaizen.learn.data.files import RowFile
from kaizen.ledger.views import as_json
from kaizen.serve.arguments import Command, Parser, say, whole_number
from kaizen.serve.batch.answered import LineFile, RowKeys, answered_rows
from kaizen.serve.batch.batch import Batch, BatchPlan, Todo, check_rows
from kaizen.serve.batch.progress import Counts, display
from kaizen.serve.commands.tables import json_text
from kaizen.serve.doors import Doors, Runs, using
from kaizen.serve.errors import FINDINGS, INTERRUPTED, OK
from kaizen.serve.inputs import TextReader, given_inputs, inputs_help
from kaizen.serve.load import load_program
from kaizen.serve.versions import add_version, releases_for

_BATCH_ONLY: Final = ("output", "concurrency", "overwrite", "rename")


def _arguments(parser: Parser) -> None:
    parser.add_argument("target", metavar="FILE.py:Name", help="the program; FILE.py alone if it has just one")
    add_version(parser)
    parser.add_argument("--model", metavar="REF", help="the model to ask instead, such as embedded/smollm2-135m")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an input whose name is a flag of this command"
    )
    parser.add_argument("--record", action="store_true", help="add the record of the call, under _record")
    parser.add_argument("--stream", action="store_true", help="show outputs as they are written, on a terminal")
    parser.add_argument("--input", type=Path, metavar="ROWS", help="a .csv or .jsonl file: run on each of its rows")
    parser.add_argument("--output", type=Path, metavar="OUT.jsonl", help="where the rows' answers go, one line each")
    parser.add_argument("--concurrency", type=whole_number, metavar="N", help="rows worked on at once (default: 8)")
    parser.add_argument("--overwrite", action="store_true", help="start the rows anew instead of going on")
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="call a column of the rows otherwise"
    )


def _more_help(words: Sequence[str]) -> str:
    if not words:
        return "\nEvery other --NAME VALUE is an input of the program; FILE.py:Name --help lists them.\n"
    return f"\n{inputs_help(load_program(words[0]).spec)}"


def _run(args: argparse.Namespace, doors: Doors) -> int:
    program = load_program(args.target)
    reader = TextReader(program.spec)
    inputs = given_inputs(reader, args.inputs, args.set, args.flags)
    overrides = {EVERY: Params(model=_model_ref(args.model))} if args.model else None
    if args.input is None:
        if used := [name for name in _BATCH_ONLY if getattr(args, name)]:
            raise ConfigError(
                f"--{used[0]} goes with --input ROWS; an input of the program of that name is given as --set "
                f"{used[0]}=VALUE"
            )
        return _run_one(program, inputs, overrides, args, doors)
    if args.output is None:
        raise ConfigError("--input needs --output OUT.jsonl")
    if args.record or args.stream:
        raise ConfigError("--record and --stream go with one input, not with --input ROWS")
    plan = BatchPlan(
        program=program,
        source=RowFile(args.input, _renames(args.rename)),
        output=args.output,
        constants=inputs,
        concurrency=args.concurrency or 8,
        overrides=overrides,
        version=args.version,
    )
    again = ["kaizen", "run", *(word for word in args.words if word != "--overwrite")]
    return _run_batch(plan, overwrite=args.overwrite, again=shlex.join(again), doors=doors)


def _model_ref(text: str) -> str:
    provider, _, model = text.partition("/")
    if not provider or not model:
        raise ConfigError(f"--model {text!r} should read provider/model, such as embedded/smollm2-135m")
    return text


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    renames: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not old or not equals or not new:
            raise ConfigError(f"--rename {pair!r} should read OLD=NEW")
        renames[old] = new
    return renames


# -- one input ------------------------------------------------------------------------------------


def _run_one(
    program: Program,
    inputs: Mapping[str, Any],
    overrides: Mapping[str, Params] | None,
    args: argparse.Namespace,
    doors: Doors,
) -> int:
    program.spec.validate_inputs(inputs)  # before anything is opened or loaded

    async def work(app: Runs) -> Answer | Suspended:
        releases = await releases_for(app, program, args.version)
        run = replace(await app.new_run(), emit=emit, overrides=overrides, releases=releases)
        return await app.start_run(run, program, inputs)

    with _partials(program.spec.name, show=args.stream) as emit:
        answer = asyncio.run(using(doors.app(), work))
    if isinstance(answer, Suspended):
        detail = {"run_id": answer.run_id, "step": answer.step}
        raise Denied(f"run {answer.run_id} waits for approval: {answer.question}", detail=detail)
    sys.stdout.write(f"{_outputs(program, answer, record=args.record)}\n")
    return OK


def _outputs(program: Program, answer: Answer, *, record: bool) -> str:
    """The outputs as JSON; intermediates lie behind the record."""
    shown: dict[str, Any] = {name: value for name, value in answer.outputs.items() if name in program.spec.outputs}
    if record:
        shown["_record"] = as_json(answer.record)
    return json_text(shown, indent=2 if sys.stdout.isatty() else None)


@contextlib.contextmanager
def _partials(ref: str, *, show: bool) -> Generator[Callable[[Partial], None] | None]:
    """Where partial outputs go: drawn over each other on a terminal, and gone when the answer is there."""
    if not show or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(file=sys.stderr), transient=True) as live:

        def emit(partial: Partial) -> None:
            if partial.ref == ref:
                live.update(Text(json_text(partial.outputs, indent=2)))

        yield emit


# -- many rows ------------------------------------------------------------------------------------


def _run_batch(plan: BatchPlan, *, overwrite: bool, again: str, doors: Doors) -> int:
    for name, path in (("--output", plan.output), ("the file of failed rows", plan.errors)):
        if path.exists() and plan.source.path.exists() and path.samefile(plan.source.path):
            raise ConfigError(f"--input and {name} are the same file, {path}")
    if not plan.output.parent.is_dir():
        raise ConfigError(f"--output: there is no folder {plan.output.parent}")
    is_new = not plan.output.exists()
    with LineFile(plan.output) as output:
        try:
            todo = _prepare(plan, output, overwrite=overwrite)
            app = doors.app() if todo.left else None
        except BaseException:
            if is_new:
                plan.output.unlink()  # nothing was begun
            raise
        plan.errors.unlink(missing_ok=True)  # its rows are tried again now
        if app is None:
            say(f"nothing to do: {plan.output} holds all {todo.total} rows")
            return OK
        return _work(plan, todo, output, app, again)


def _prepare(plan: BatchPlan, output: LineFile, *, overwrite: bool) -> Todo:
    if overwrite:
        todo = check_rows(plan, RowKeys(()))  # before what is there is lost
        output.clear()
        return todo
    answered = answered_rows(output, plan.written)
    if output.repair():
        say(f"{plan.output}: cut off a last line that was not written to its end")
    return check_rows(plan, answered)


def _work(plan: BatchPlan, todo: Todo, output: LineFile, app: Runs, again: str) -> int:
    counts = Counts(total=todo.total, before=todo.total - todo.left)
    if counts.before:
        say(f"going on: {counts.before} of {counts.total} rows are answered already")
    shown = display(sys.stderr)
    try:
        asyncio.run(using(app, Batch(plan, todo, output, shown, counts).run))
    except KeyboardInterrupt:
        shown.close()
        say(f"stopped: {_summary(plan, counts)}\ngo on with: {again}")
        return INTERRUPTED
    except BaseException:
        shown.close()
        say(f"stopped: {_summary(plan, counts)}")
        raise
    shown.close()
    say(f"done: {_summary(plan, counts)}")
    if counts.failed:
        say(f"the failed rows are in {plan.errors}; try them again with: {again}")
        return FINDINGS
    return OK


def _summary(plan: BatchPlan, counts: Counts) -> str:
    answered = counts.before + counts.answered
    return f"{answered} of {counts.total} rows answered in {plan.output}, {counts.text()}"


RUN: Final = Command(
    _arguments,
    _run,
    (
        ('kaizen run triage.py:Triage --message "Someone stole my card"', "one input; the outputs as a JSON object"),
        ("kaizen run triage.py:Triage --message @mail.txt --record", "an input from a file; the call's record too"),
        (
            'kaizen run triage.py:Triage --message "..." --version base',
            "with the params in the code, whatever is released",
        ),
        ("kaizen run triage.py:Triage --help", "the inputs of a program"),
        (
            "kaizen run triage.py:Triage --input rows.csv --output out.jsonl --concurrency 8",
            "each row of a file; the same command again goes on where it stopped",
        ),
    ),
    takes_inputs=True,
    more_help=_more_help,
)
