"""Bodies that come compressed, though none is asked for: undone within a bound."""

from __future__ import annotations

import zlib
from typing import Final

# zlib tells gzip and zlib by their first bytes; `deflate` without the zlib frame is what some servers mean by it.
_EITHER: Final = 47
_BARE: Final = -15
_KNOWN: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})


class Damaged(Exception):
    """The body can't be undone. Its words are for the error that the transport makes of it."""


class Inflater:
    """Undoes gzip or deflate, a bounded piece at a time.

    Args:
        encoding: the ``content-encoding``, in lower case.

    Raises:
        Damaged: if it is another one.
    """

    __slots__ = ("_begun", "_encoding", "_full", "_rest", "_stream")

    def __init__(self, encoding: bytes) -> None:
        if encoding not in _KNOWN:
            raise Damaged(f"the answer came encoded as {encoding.decode('latin-1')}, which was not asked for")
        self._encoding = encoding
        self._stream = zlib.decompressobj(_EITHER)
        self._begun = False
        self._full = False
        self._rest: bytes = b""

    @property
    def rest(self) -> bool:
        """Whether there may be more of what was fed."""
        return self._full or bool(self._rest)

    def feed(self, data: bytes, room: int) -> bytes:
        """At most ``room`` (over 0) bytes of what these and those before hold.

        Raises:
            Damaged: if they are of another format.
        """
        data = self._rest + data
        self._rest = b""
        out = b""
        try:
            while (data or self._full) and len(out) < room:
                if self._stream.eof:  # gzip may be several in a row
                    self._stream = zlib.decompressobj(_EITHER)
                if not self._begun:
                    self._begin(data)
                asked = room - len(out)
                piece = self._stream.decompress(data, asked)
                # all input may be taken and some output not yet given
                self._full = len(piece) == asked and not self._stream.eof
                out += piece
                data = self._stream.unconsumed_tail or self._stream.unused_data
        except zlib.error:
            raise Damaged("the answer's compression is damaged") from None
        self._rest = data
        return out

    def close(self) -> None:
        """The body has ended.

        Raises:
            Damaged: if it stopped in the middle.
        """
        if self._begun and not self._stream.eof:
            raise Damaged("the answer's compression stops in the middle")

    def _begin(self, data: bytes) -> None:
        self._begun = True
        # the first byte of a zlib frame holds 8, its method, in its lower half
        if self._encoding == b"deflate" and data[0] & 0x0F != 8:
            self._stream = zlib.decompressobj(_BARE)
