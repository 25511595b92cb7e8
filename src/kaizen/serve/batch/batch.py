"""A program on every row of a file: several at once, each answer written when it is there, to be gone on with later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kaizen.core.context import Program, Releases
from kaizen.core.errors import (
    AuthFailed,
    ConfigError,
    Conflict,
    DefinitionError,
    Denied,
    InvalidInput,
    KaizenError,
    StoreError,
    record_of,
)
from kaizen.core.params import Params
from kaizen.core.protocols import Suspended
from kaizen.learn.data.files import Row, RowFile, row_key
from kaizen.programs.together import foremost
from kaizen.serve.arguments import say
from kaizen.serve.batch.answered import RECORD, LineFile, RowKeys
from kaizen.serve.batch.progress import Counts, Display
from kaizen.serve.doors import Runs
from kaizen.serve.errors import one_line
from kaizen.serve.inputs import TextReader
from kaizen.serve.versions import releases_for

ERROR: Final = "_error"
_TELL_EVERY: Final = 250_000  # rows: a few seconds of checking
# What goes wrong so with one row goes wrong with all: the batch stops instead of failing each.
_HOPELESS: Final = (AuthFailed, ConfigError, DefinitionError, StoreError)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What a batch is to do.

    Args:
        program: what to run.
        source: the rows.
        output: where answers go.
        constants: inputs that are the same for every row.
        concurrency: rows worked on at once.
        overrides: params by program name, before all others.
        version: which version of the program runs, as ``--version`` has it; None for what is released at each row.
    """

    program: Program
    source: RowFile
    output: Path
    constants: Mapping[str, Any]
    concurrency: int
    overrides: Mapping[str, Params] | None = None
    version: str | None = None

    @property
    def errors(self) -> Path:
        """Where failed rows go: ``out.errors.jsonl`` beside ``out.jsonl``."""
        return self.output.with_name(f"{self.output.stem}.errors.jsonl")

    @property
    def written(self) -> frozenset[str]:
        """The names in an output line that are no columns."""
        return frozenset({*self.program.spec.outputs, RECORD})


class Todo:
    """Which rows are still to be done: one bit a row."""

    def __init__(self) -> None:
        self.total = self.left = 0
        self._bits = bytearray()

    def add(self, *, todo: bool) -> None:
        """The next row."""
        if self.total % 8 == 0:
            self._bits.append(0)
        if todo:
            self._bits[-1] |= 1 << self.total % 8
            self.left += 1
        self.total += 1

    def __contains__(self, row: Row) -> bool:
        place = row.number - 1
        return place < self.total and bool(self._bits[place // 8] >> place % 8 & 1)


def check_rows(plan: BatchPlan, answered: RowKeys) -> Todo:
    """Read the whole input once, before any model is asked; which rows are to be done.

    Raises:
        NotFound, ConfigError: see ``RowFile.rows``; or a column has the name of an output.
        InvalidInput: a row can't be read, or lacks an input.
        Conflict: a row that was answered is not in the input any more.
    """
    todo = Todo()
    strange: Row | None = None
    spec = plan.program.spec
    needed = [name for name, one in spec.inputs.items() if one.required and name not in plan.constants]
    taken = plan.written | {ERROR}
    columns: tuple[str, ...] = ()
    for row in plan.source.rows():
        if (here := tuple(row.values)) != columns:
            columns = here
            _check_columns(plan, row, needed, taken)
        done = answered.take(row_key(row.values))
        strange = strange or (None if done else row)
        todo.add(todo=not done)
        if todo.total % _TELL_EVERY == 0:
            say(f"checked {todo.total:,} rows of {plan.source.path}")
    if answered.left:
        count = "a row that is" if answered.left == 1 else f"{answered.left} rows that are"
        changed = f"; {plan.source.where(strange)} is new" if strange else ""
        raise Conflict(
            f"{plan.output} answers {count} not in {plan.source.path}{changed}: put the rows back as they were, take "
            "another --output, or start anew with --overwrite"
        )
    return todo


def _check_columns(plan: BatchPlan, row: Row, needed: list[str], taken: frozenset[str]) -> None:
    where = plan.source.where(row) if not plan.source.is_text else str(plan.source.path)
    name = plan.program.spec.name
    if missing := [column for column in needed if column not in row.values]:
        raise InvalidInput(
            f"{where} lacks {', '.join(missing)}, which {name} needs; columns: {', '.join(row.values) or 'none'} "
            "(--rename OLD=NEW calls one otherwise)"
        )
    if clash := [column for column in row.values if column in taken]:
        raise ConfigError(
            f"{where}: column {', '.join(clash)} has the name of an output of {name}: "
            f"write --rename {clash[0]}=given_{clash[0].strip('_')}"
        )
    if both := [column for column in row.values if column in plan.constants]:
        raise ConfigError(f"{where}: {', '.join(both)} is a column and also given on the command line")


class Batch:
    """One run of a plan.

    Args:
        plan: what to do.
        todo: which rows, as ``check_rows`` found them.
        output: the output file, held by this process.
        display: shows the progress.
        counts: counts it; also there when the batch is stopped.
    """

    def __init__(self, plan: BatchPlan, todo: Todo, output: LineFile, display: Display, counts: Counts) -> None:
        self._plan, self._todo, self._output = plan, todo, output
        self._display, self._counts = display, counts
        self._reader = TextReader(plan.program.spec)
        self._errors = contextlib.ExitStack()
        self._error_file: LineFile | None = None
        self._releases: Releases | None = None

    async def run(self, app: Runs) -> None:
        """Do every row that is to be done. Cancelling it stops the rows in the air; what is answered stays.

        Args:
            app: runs the program.

        Raises:
            AuthFailed, ConfigError, StoreError, DefinitionError: what would fail every row.
            InvalidInput, ConfigError: the input file changed and can't be read any more.
            NotFound: there is no such version.
        """
        self._releases = await releases_for(app, self._plan.program, self._plan.version)
        rows = (row for row in self._plan.source.rows() if row in self._todo)
        workers = min(self._plan.concurrency, self._todo.left)
        with self._errors, contextlib.closing(rows):
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(workers):
                        group.create_task(self._work(app, rows))
            except BaseExceptionGroup as failures:
                # the workers' first failure stands for all: the others failed of the same, or were cancelled by it
                raise foremost(failures) from None

    async def _work(self, app: Runs, rows: Iterator[Row]) -> None:
        for row in rows:
            await self._do(app, row)
            self._display.show(self._counts)

    async def _do(self, app: Runs, row: Row) -> None:
        try:
            run = replace(await app.new_run(), overrides=self._plan.overrides, releases=self._releases)
            answer = await app.start_run(run, self._plan.program, self._inputs(row))
        except _HOPELESS:
            raise
        except Exception as error:  # noqa: BLE001 - a program's own errors fail their row, not the batch
            self._fail(row, error)
            return
        if isinstance(answer, Suspended):
            detail = {"run_id": answer.run_id, "step": answer.step}
            self._fail(row, Denied(f"the run waits for approval: {answer.question}", detail=detail))
            return
        spec = self._plan.program.spec
        if unknown := answer.outputs.keys() - spec.fields.keys():
            raise DefinitionError(spec.name, [f"it gives '{min(unknown)}', which is no output it declares"])
        outputs = {name: answer.outputs[name] for name in spec.outputs if name in answer.outputs}
        self._output.append({**row.values, **outputs, RECORD: answer.record.id})
        self._counts.answered += 1
        self._counts.add(answer.record)

    def _inputs(self, row: Row) -> dict[str, Any]:
        """A row's inputs. An empty CSV cell of an input that takes no text counts as not given."""
        known = {name: value for name, value in row.values.items() if name in self._reader.spec.inputs}
        if self._plan.source.is_text:
            takes_text = self._reader.takes_text
            known = {
                name: self._reader.value(name, text) for name, text in known.items() if text.strip() or takes_text(name)
            }
        return {**self._plan.constants, **known}

    def _fail(self, row: Row, error: Exception) -> None:
        code = error.code if isinstance(error, KaizenError) else "exception"
        record = record_of(error)
        if self._error_file is None:
            self._error_file = self._errors.enter_context(LineFile(self._plan.errors))
            self._error_file.clear()
        self._error_file.append(
            {**row.values, ERROR: {"code": code, "message": one_line(error)}, RECORD: record.id if record else None}
        )
        self._counts.failed += 1
        if record is not None:
            self._counts.add(record)
