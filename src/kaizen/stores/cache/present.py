"""Which keys a file that is shared can have: most that are asked for are not there, and need not be looked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final

from kaizen.stores.cache.signal import Signal

_MARKS: Final = 1 << 22
_MASK: Final = _MARKS - 1


class Present:
    """A mark for each key that is in the file, by its hash: one without a mark is not there.

    It takes 4 MiB, however many keys there are: of a million, a fifth of those that are not there look as if they
    were, and the file is asked. What was dropped keeps its mark until all are made anew.

    It answers as long as no other process puts anything. Each that does says so in the signal, inside its transaction,
    so before anybody can find what it put. Hashes are this process's own.

    ``begin``, ``finish`` and ``add`` are called with the lock held under which this process writes, ``begin`` and
    ``add`` inside a transaction, where no other process can write.
    """

    __slots__ = ("_coming", "_marks", "_own", "_signal")

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._own = int.from_bytes(os.urandom(8)) | 1  # never 0
        self._marks: bytearray | None = None
        self._coming: bytearray | None = None

    def lacks(self, key: str) -> bool:
        """Whether the file has no entry of this key, of whichever scope; False where that is not known."""
        if self._signal.putter != self._own:  # first: marks that don't hold any more go before the number is ours
            return False
        marks = self._marks
        return marks is not None and not marks[hash(key) & _MASK]

    def add(self, keys: Sequence[str]) -> None:
        """These keys are about to be put."""
        if self._signal.putter != self._own:
            self._marks = self._coming = None
            self._signal.putter = self._own
        for marks in (self._marks, self._coming):
            if marks is not None:
                mark(marks, keys)

    def begin(self) -> bytearray:
        """New marks, for ``mark`` with every key that is there from now on, and then ``finish``."""
        marks = bytearray(_MARKS)
        self._marks, self._coming = None, marks
        self._signal.putter = self._own
        return marks

    def finish(self, marks: bytearray) -> None:
        """All keys are marked: use the marks, unless another process has put something since ``begin``."""
        if self._coming is marks:
            self._marks = marks
        self._coming = None


def mark(marks: bytearray, keys: Iterable[str]) -> None:
    """Mark keys."""
    for key in keys:
        marks[hash(key) & _MASK] = 1
