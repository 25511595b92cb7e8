"""A word from whichever process changed what others may hold in memory: eight bytes that all of them map."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

_BYTES: Final = 8


class Signal:
    """A number in a file, another one after each ``give``. To look at it is to read memory: no system call, no lock.

    The number is drawn at random, so that two processes that give it at once leave one that nobody has seen.

    Args:
        path: the file; made at ``open`` where it is missing, with mode 0600.
    """

    __slots__ = ("_number", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number: memoryview | None = None

    def open(self) -> None:
        """Map the file.

        Raises:
            OSError: it can't be made or read.
        """
        place = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            if os.fstat(place).st_size < _BYTES:
                os.ftruncate(place, _BYTES)
            self._number = memoryview(mmap.mmap(place, _BYTES)).cast("Q")
        finally:
            os.close(place)

    @property
    def last(self) -> int:
        """The number now; 0 before ``open``."""
        number = self._number
        return 0 if number is None else number[0]

    def give(self) -> None:
        """Put another number there."""
        number = self._number
        if number is not None:
            number[0] = int.from_bytes(os.urandom(_BYTES))

    def close(self) -> None:
        """Let go of the file: it is unmapped when the last thread that looks at it is through."""
        self._number = None
