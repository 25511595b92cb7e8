"""A batch's output file: one line for each answered row, and by its own contents the batch's memory.

There is no second file that could tell another story: a row is answered if, and only if, its line is in the
output. A line is the input row, the output fields and ``_record``, so what is left without those is the row.
"""

from __future__ import annotations

import fcntl
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Self, cast

from pydantic_core import from_json, to_json

from kaizen.core.errors import Conflict, StoreError
from kaizen.learn.data.files import row_key

RECORD = "_record"
_CHUNK = 1 << 20


class RowKeys:
    """A bag of row keys in 16 bytes a key; a key that was put in twice can be taken out twice."""

    def __init__(self, keys: Iterable[int]) -> None:
        self._keys = array("Q")
        self._counts = array("Q")
        self.left = 0
        for key in sorted(keys):
            self.left += 1
            if self._keys and self._keys[-1] == key:
                self._counts[-1] += 1
            else:
                self._keys.append(key)
                self._counts.append(1)

    def take(self, key: int) -> bool:
        """Take a key out, if it is there."""
        place = bisect_left(self._keys, key)
        if place == len(self._keys) or self._keys[place] != key or not self._counts[place]:
            return False
        self._counts[place] -= 1
        self.left -= 1
        return True


class LineFile:
    """A file that one process at a time appends whole lines to.

    Args:
        path: the file; made where it is missing.

    Raises:
        Conflict: another process is writing to it, or it is no regular file.
        StoreError: it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise StoreError(f"can't write to {path}: {error.strerror}") from None
        try:
            if not path.is_file():
                raise Conflict(f"{path} is no regular file: a batch has to read its output again to go on")
            # the lock is the file's own and ends with the process, however it ends
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise Conflict(f"another process is writing to {path}; wait until it ends") from None
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def clear(self) -> None:
        """Remove all lines."""
        os.ftruncate(self._file, 0)

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and contents of each whole line; a last one without its end is left out.

        Raises:
            Conflict: a line was not written by a batch.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                value = _parsed(line)
                if value is None or RECORD not in value:
                    raise self._foreign(number)
                yield number, value

    def repair(self) -> bool:
        """Cut off a last line that was not written to its end; whether there was one.

        Raises:
            Conflict: it is no part of a batch's line, so it is left alone.
        """
        size = os.fstat(self._file).st_size
        end = self._whole(size)
        if end == size:
            return False
        torn = os.pread(self._file, size - end, end)
        value = _parsed(torn)
        if not torn.startswith(b"{") or (value is not None and RECORD not in value):
            raise self._foreign(None)
        os.ftruncate(self._file, end)
        return True

    def _whole(self, size: int) -> int:
        """Where the last whole line ends."""
        end = size
        while end:
            start = max(0, end - _CHUNK)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def _foreign(self, number: int | None) -> Conflict:
        where = f"{self.path}:{number}" if number else f"{self.path}, last line"
        return Conflict(f"{where}: no line of a batch; take another --output, or --overwrite it")

    def append(self, values: Mapping[str, Any]) -> None:
        """Write one line, in one call to the system so that a kill can tear it in two but not mix it with another.

        Raises:
            StoreError: the disk is full or the like; the next run repairs the file.
        """
        rest = to_json(values) + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise StoreError(f"can't write to {self.path}: {error.strerror}") from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None where it is none."""
    try:
        value = from_json(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def answered_rows(file: LineFile, written: Set[str]) -> RowKeys:
    """The rows that an output file has answers for.

    Args:
        file: the output.
        written: the names that are no columns: the program's outputs and ``_record``.
    """
    keys = array("Q")
    for _, line in file.lines():
        keys.append(row_key({name: value for name, value in line.items() if name not in written}))
    return RowKeys(keys)
