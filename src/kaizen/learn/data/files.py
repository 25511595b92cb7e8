"""Files of rows, read one at a time: JSON lines, CSV with a header, or Parquet."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from pydantic_core import from_json, to_json

from kaizen.core.errors import ConfigError, InvalidInput, NotFound
from kaizen.core.ids import digest
from kaizen.learn.data.parquet import parquet_rows

_LINE_ENDS: Final = b"\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_CELL_LIMIT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Args:
        number: its place among the rows, from 1.
        line: the line of the file it ends on, from 1; its number in a Parquet file.
        values: by column; all strings in a CSV file.
    """

    number: int
    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of rows.

    Args:
        path: ends in ``.jsonl``, ``.ndjson``, ``.csv`` or ``.parquet``.
        renames: columns to call otherwise, old name to new.
    """

    path: Path
    renames: Mapping[str, str]

    @property
    def is_text(self) -> bool:
        """Whether all values are strings."""
        return self.path.suffix.lower() == ".csv"

    @property
    def is_binary(self) -> bool:
        """Whether it has columns of types of their own, and no lines."""
        return self.path.suffix.lower() == ".parquet"

    def rows(self) -> Iterator[Row]:
        """The rows, in order; nothing is kept of those before.

        Raises:
            NotFound: there is no such file.
            ConfigError: its name ends in no known way, a renamed column is not there, or what reads it is missing.
            InvalidInput: naming the line that can't be read.
        """
        readers: Mapping[str, Callable[[Path], Iterator[Row]]] = {
            ".csv": _csv_rows,
            ".jsonl": _json_rows,
            ".ndjson": _json_rows,
            ".parquet": _parquet_rows,
        }
        read = readers.get(self.path.suffix.lower())
        if read is None:
            raise ConfigError(f"{self.path}: rows are read from files named {', '.join(readers)}")
        if not self.path.is_file():
            raise NotFound(f"there is no file {self.path}")
        if not self.renames:
            return read(self.path)
        return (self._renamed(row) for row in read(self.path))

    def where(self, row: Row) -> str:
        """How to call a row in a message."""
        return f"{self.path}: row {row.number}" if self.is_binary else f"{self.path}:{row.line} (row {row.number})"

    def _renamed(self, row: Row) -> Row:
        missing = self.renames.keys() - row.values.keys()
        if missing and self.is_text:
            raise ConfigError(f"{self.path} has no column {', '.join(sorted(missing))} to rename")
        values = {self.renames.get(name, name): value for name, value in row.values.items()}
        if len(values) < len(row.values):
            raise ConfigError(f"{self.where(row)}: a renamed column has the name of another one")
        return Row(row.number, row.line, values)


def row_key(values: Mapping[str, Any]) -> int:
    """64 bits that tell rows of different contents apart (two of a million do not in one case of 10^7)."""
    return int(digest(to_json(values))[:16], 16)


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        empty: int | None = None
        number = 0
        for line, data in enumerate(file, 1):
            text = data.rstrip(_LINE_ENDS)
            if line == 1:
                text = text.removeprefix(_BOM)
            if not text.strip():
                empty = empty or line
                continue
            if empty is not None:
                # at the end of a file empty lines say nothing; between rows one may be lost
                raise InvalidInput(f"{path}:{empty}: an empty line between rows; remove it")
            number += 1
            yield Row(number, line, _json_object(path, line, text))


def _json_object(path: Path, line: int, text: bytes) -> Mapping[str, Any]:
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(f"{path}:{line}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{path}:{line}: a row is a JSON object, not {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _parquet_rows(path: Path) -> Iterator[Row]:
    return (Row(number, number, values) for number, values in enumerate(parquet_rows(path), 1))


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(_CELL_LIMIT)  # the default stops at 128 KiB, which a long message may pass
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, None)
            if not header:
                raise InvalidInput(f"{path}:1: a CSV file begins with a line of column names")
            twice = {name for name, times in Counter(header).items() if not name.strip() or times > 1}
            if twice:
                shown = ", ".join(repr(name) for name in sorted(twice))
                raise InvalidInput(f"{path}:1: column names have to be there and different: {shown}")
            empty: int | None = None
            number = 0
            for cells in reader:
                if not cells:
                    empty = empty or reader.line_num
                    continue
                if empty is not None:
                    raise InvalidInput(f"{path}:{empty}: an empty line between rows; remove it")
                if len(cells) != len(header):
                    raise InvalidInput(f"{path}:{reader.line_num}: {len(cells)} cells for {len(header)} columns")
                number += 1
                yield Row(number, reader.line_num, dict(zip(header, cells, strict=True)))
        except csv.Error as error:
            raise InvalidInput(f"{path}:{reader.line_num}: {error}") from None
        except UnicodeDecodeError:
            raise InvalidInput(f"{path}: not UTF-8 after line {reader.line_num}; save it as UTF-8") from None
