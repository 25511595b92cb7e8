"""Server-sent events (WHATWG HTML, section 9.2), the part that model providers use: the data of each event."""

from __future__ import annotations


class EventTooLong(Exception):
    """One event is longer than the limit. The transport turns it into its own error."""


class EventDecoder:
    """Cuts a byte stream into the data payloads of its events, however the bytes were chunked.

    Line ends may be LF, CRLF or CR. Comments and the fields ``event``, ``id`` and ``retry`` are dropped:
    every wire served here repeats the event's type inside its data. Several data lines are joined by LF.

    Args:
        limit: the most bytes one event may hold.
    """

    __slots__ = ("_data", "_limit", "_size", "_tail")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail = bytearray()  # grows in place: a long line may come in thousands of pieces
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that these bytes complete, in order.

        Raises:
            EventTooLong: when an event passes the limit.
        """
        events: list[bytes] = []
        held = self._tail
        if held and b"\n" not in chunk and b"\r" not in chunk and not held.endswith(b"\r"):
            held += chunk
        else:
            lines = (bytes(held + chunk) if held else chunk).splitlines(keepends=True)
            # A line without its end waits for it, and so does one that ends in CR: an LF may follow that belongs to it.
            self._tail = bytearray(lines.pop() if lines and not lines[-1].endswith(b"\n") else b"")
            for line in lines:
                self._line(line, events)
        if self._size + len(self._tail) > self._limit:
            raise EventTooLong
        return events

    def close(self) -> list[bytes]:
        """The data of an event that the stream ended in, if there is one.

        The standard drops it. Some servers end right after ``data: [DONE]``, so it is handed on: whoever reads
        it knows by its contents whether the answer is whole.
        """
        events: list[bytes] = []
        self._line(bytes(self._tail), events)
        self._line(b"", events)
        self._tail = bytearray()
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
            self._data.append(value)
            self._size += len(value) + 1  # and the LF that joins it to the next: empty lines have a size too
            if self._size > self._limit:
                raise EventTooLong
        elif not line and self._data:
            events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data.clear()
            self._size = 0
