"""How a batch's progress is shown: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from kaizen.core.record import Record
from kaizen.ledger.views import is_unpriced

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY: Final = 5.0
_REDRAW: Final = 0.1


@dataclass(slots=True)
class Counts:
    """What a batch has done so far.

    Args:
        total: rows of the input.
        before: of them, those answered by earlier runs of the command.
        answered, failed: rows of this run.
        tokens_in, tokens_out: of this run.
        cost_usd: dollars of the calls whose price is known.
        priced, unpriced: rows whose cost is known, and rows with a call whose price is not known.
        begun: ``time.monotonic()`` when the first row was begun.
    """

    total: int = 0
    before: int = 0
    answered: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    priced: int = 0
    unpriced: int = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        """Rows that need nothing more in this run."""
        return self.before + self.answered + self.failed

    def add(self, record: Record) -> None:
        """Count what a row took."""
        self.tokens_in += record.tokens_in
        self.tokens_out += record.tokens_out
        if record.cost_usd is not None:
            self.priced += 1
            self.cost_usd += record.cost_usd
        elif is_unpriced(record):
            self.unpriced += 1

    def text(self) -> str:
        """Rate, failures, tokens and cost, as one line."""
        seconds = max(time.monotonic() - self.begun, 1e-9)
        parts = [f"{(self.answered + self.failed) / seconds:.1f} rows/s"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{self.tokens_in + self.tokens_out:,} tokens")
        return ", ".join([*parts, cost_text(self.cost_usd if self.priced else None, self.unpriced)])


def cost_text(usd: float | None, unpriced: int = 0) -> str:
    """Dollars in words, where some or all prices may not be known."""
    if usd is None:
        return "price unknown" if unpriced else "$0"
    shown = f"${usd:.2f}" if usd >= 100 else f"${usd:.4g}" if usd else "$0"
    return f"{shown} and {unpriced} at unknown prices" if unpriced else shown


class Display(Protocol):
    """Where progress is shown."""

    def show(self, counts: Counts) -> None:
        """The state now; called after every row."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class LineDisplay:
    """A plain line every few seconds, for logs and pipes."""

    def __init__(self, stream: TextIO, every: float = _EVERY) -> None:
        self._stream, self._every = stream, every
        self._last = time.monotonic()

    def show(self, counts: Counts) -> None:
        """Write a line, if it is time for one."""
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self._stream.write(f"{counts.done} of {counts.total} rows, {counts.text()}\n")
            self._stream.flush()

    def close(self) -> None:
        """Nothing is left open."""


class BarDisplay:
    """A bar with what is left, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._progress, self._task = _bar(stream)
        self._last = 0.0

    def show(self, counts: Counts) -> None:
        """Redraw, but not for every row of a fast batch."""
        now = time.monotonic()
        if now - self._last < _REDRAW and counts.done < counts.total:
            return
        self._last = now
        self._progress.update(self._task, total=counts.total, completed=counts.done, status=counts.text())

    def close(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


def _bar(stream: TextIO) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(file=stream))
    task = progress.add_task("rows", total=None, status="")
    progress.start()
    return progress, task


def display(stream: TextIO) -> Display:
    """The display for a stream."""
    return BarDisplay(stream) if stream.isatty() else LineDisplay(stream)
