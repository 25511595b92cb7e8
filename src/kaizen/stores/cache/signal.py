"""A word from whichever process changed what others may hold in memory: sixteen bytes that all of them map."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

_BYTES: Final = 16


class Signal:
    """Two numbers in a file. To look at them is to read memory: no system call, no lock.

    One is another number after each ``give``, drawn at random, so that two processes that give it at once leave one
    that nobody has seen. The other says who put entries last, as that process has set it.

    Args:
        path: the file; made at ``open`` where it is missing, with mode 0600.
    """

    __slots__ = ("_numbers", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers: memoryview | None = None

    def open(self) -> None:
        """Map the file.

        Raises:
            OSError: it can't be made or read.
        """
        place = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            if os.fstat(place).st_size < _BYTES:
                os.ftruncate(place, _BYTES)
            self._numbers = memoryview(mmap.mmap(place, _BYTES)).cast("Q")
        finally:
            os.close(place)

    @property
    def last(self) -> int:
        """The number now; 0 before ``open``."""
        numbers = self._numbers
        return 0 if numbers is None else numbers[0]

    def give(self) -> None:
        """Put another number there."""
        numbers = self._numbers
        if numbers is not None:
            numbers[0] = int.from_bytes(os.urandom(8))

    @property
    def putter(self) -> int:
        """Who put entries last; 0 before ``open``, and where nobody has."""
        numbers = self._numbers
        return 0 if numbers is None else numbers[1]

    @putter.setter
    def putter(self, number: int) -> None:
        numbers = self._numbers
        if numbers is not None:
            numbers[1] = number

    def close(self) -> None:
        """Let go of the file: it is unmapped when the last thread that looks at it is through."""
        self._numbers = None
