"""What people read: tables, times, tokens and money. Colour only on a terminal, full width in a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from pydantic_core import to_json

from kaizen.core.record import Record

_PIPE_WIDTH: Final = 10_000
_SHORT: Final = 18
_CONTROLS: Final = re.compile("[\x7f-\x9f]")


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """Write a table to standard output.

    Args:
        columns: the headings. The first column is never cut.
        rows: the cells.
        numbers: the columns that are set flush right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = sys.stdout
    # a pipe has no width to fit: whoever reads it wants every cell whole
    console = Console(file=out, width=None if out.isatty() else _PIPE_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        justify = "right" if column in numbers else "left"
        table.add_column(column, justify=justify, no_wrap=True, min_width=_longest(place, column, rows))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as shown:
        console.print(table)
    out.writelines(f"{line.rstrip()}\n" for line in shown.get().splitlines())


def _longest(place: int, column: str, rows: Sequence[Sequence[str]]) -> int | None:
    return None if place else max(len(column), *(len(row[0]) for row in rows)) if rows else len(column)


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON that can go to a terminal: what a model or a user wrote may hold its control sequences.

    JSON itself escapes the first 32 characters, not the second set of controls, which begin with DEL.
    """
    text = to_json(value, indent=indent, inf_nan_mode="null").decode()
    return text if text.isascii() and "\x7f" not in text else _CONTROLS.sub(lambda at: f"\\u{ord(at[0]):04x}", text)


def takes_colour() -> bool:
    """Whether standard output is a terminal whose user wants colours."""
    from rich.console import Console

    console = Console(file=sys.stdout)  # it knows NO_COLOR, TERM and the like
    return console.color_system is not None and not console.no_color


def short_id(identifier: str) -> str:
    """The part of an id that other commands accept: its time, to a fraction of a millisecond."""
    return identifier[:_SHORT]


def when(seconds: float) -> str:
    """Unix seconds as local time."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def milliseconds(value: float | None) -> str:
    """Milliseconds, in the unit that reads best."""
    if value is None:
        return "-"
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def tokens(record: Record) -> str:
    """Tokens in and out; ``~`` where any is an estimate."""
    if not record.model_calls:
        return "-"
    return f"{'~' if record.tokens_estimated else ''}{record.tokens_in}+{record.tokens_out}"


def dollars(usd: float | None) -> str:
    """A cost; ``?`` where the price is not known."""
    if usd is None:
        return "?"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.2g}"
