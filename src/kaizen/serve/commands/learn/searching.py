"""An optimizer's search while it runs: a bar and a live chart of the best so far on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kaizen.learn.optimize.board import Event

_EVERY: Final = 5.0
_REDRAW: Final = 0.1
_WIDTH: Final = 60
_HEIGHT: Final = 8
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


class Watch(Protocol):
    """Where a search is shown."""

    def show(self, event: Event) -> None:
        """Its state now."""
        ...

    def say(self, line: str) -> None:
        """Something to read, also when it is over."""
        ...


class Lines:
    """A plain line every few seconds, and whenever the best changes: for logs and pipes."""

    def __init__(self, stream: TextIO, every: float = _EVERY) -> None:
        self._stream, self._every = stream, every
        self._last = time.monotonic()
        self._best: float | None = None

    def show(self, event: Event) -> None:
        """Write a line, if there is something to say."""
        now = time.monotonic()
        if now - self._last < self._every and event.best == self._best:
            return
        self._last, self._best = now, event.best
        self.say(summary(event))

    def say(self, line: str) -> None:
        """Write it."""
        self._stream.write(f"{line}\n")
        self._stream.flush()


class Chart:
    """A bar of the calls used, and the best score so far over them."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=stream), auto_refresh=False, transient=True)
        self._points: list[tuple[int, float]] = []
        self._last = 0.0

    def show(self, event: Event) -> None:
        """Draw anew, but not for every step of a fast search."""
        if event.best is not None:
            self._points.append((event.used, event.best))
        now = time.monotonic()
        if now - self._last < _REDRAW:
            return
        self._last = now
        self._live.update(self._drawn(event), refresh=True)

    def say(self, line: str) -> None:
        """Above the chart, where it stays."""
        self._live.console.print(line, highlight=False, markup=False)

    def open(self) -> None:
        """Take the lines under the cursor."""
        self._live.start()

    def close(self) -> None:
        """Give them back."""
        self._live.stop()

    def _drawn(self, event: Event) -> RenderableType:
        from rich.text import Text

        return Text("\n".join([*chart(self._points, event), bar(event), summary(event)]))


def summary(event: Event) -> str:
    """A search's state in a line."""
    used = f"{event.used} calls" if event.limit is None else f"{event.used} of {event.limit} calls"
    base = "" if event.base is None else f", base {event.base:.3f}"
    best = "" if event.best is None else f", best {event.best:.3f} ({event.how})"
    return f"{used}, {event.candidates - 1} candidates{base}{best}; {event.what}"


def bar(event: Event) -> str:
    """How much of the search's calls is used; nothing without a limit."""
    if not event.limit:
        return ""
    done = min(_WIDTH, round(_WIDTH * event.used / event.limit))
    return "━" * done + "╌" * (_WIDTH - done)


def chart(points: list[tuple[int, float]], event: Event, height: int = _HEIGHT) -> list[str]:
    """The best score so far over the calls used, as lines of blocks."""
    if not points:
        return []
    last = event.limit or max(points[-1][0], 1)
    columns: list[float | None] = [None] * _WIDTH
    for used, best in points:
        columns[min(_WIDTH - 1, int(_WIDTH * used / max(last, 1)))] = best
    reached = min(_WIDTH - 1, int(_WIDTH * points[-1][0] / max(last, 1)))
    held: float | None = None
    for at in range(reached + 1):
        held = columns[at] = columns[at] if columns[at] is not None else held
    seen = [one for one in columns if one is not None]
    low, high = min(seen), max(max(seen), min(seen) + 0.05)
    lines: list[str] = []
    for row in range(height - 1, -1, -1):
        cells = "".join(" " if one is None else _cell((one - low) / (high - low) * height - row) for one in columns)
        label = f"{low + (high - low) * (row + 1) / height:5.2f} " if row in (0, height - 1) else "      "
        lines.append(f"{label}{cells}".rstrip())
    return lines


def _cell(level: float) -> str:
    """A block of a column; the lowest score still shows as a line."""
    return _BLOCKS[min(8, max(1 if -1e-9 <= level < 1e-9 else 0, round(8 * level)))] if level > -1 else " "


@contextlib.contextmanager
def watching(stream: TextIO) -> Generator[Watch]:
    """Where a search is shown while this lasts."""
    if not stream.isatty():
        yield Lines(stream)
        return
    shown = Chart(stream)
    shown.open()
    try:
        yield shown
    finally:
        shown.close()
