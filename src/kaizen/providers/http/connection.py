"""One connection to a server, and the call that is on it: bytes out, an answer in.

The parser is llhttp (by httptools). What a server sends is bounded here whatever it is: a body waits in the kernel
while nobody reads it, and bytes that are no body (heads, hints of status 1xx, trailers, chunk extensions) are counted.
"""

from __future__ import annotations

import asyncio
import select
import time
from typing import Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

# The most bytes without one of the body among them, before it as after it: the head of an honest answer has 2 KiB.
_SILENT: Final = 64 * 1024
# From so many unread bytes of a body on the server has to wait. What one read brings, 256 KiB, may come on top.
_HELD: Final = 256 * 1024
# A connection that lay unused for longer (seconds) is looked at before it is used: its loop may have been busy, and
# not have seen yet that the server closed it. A fresh one is not worth the system call.
_FRESH: Final = 1.0

_CUT: Final = "the connection broke off in the middle of the answer"
_HUNG_UP: Final = "hung up without an answer"


class Exchange:
    """One call: what has come of its answer, and who waits for more of it.

    Attributes:
        status: of the answer, 0 until its head has come.
        raw: the headers as they came.
        encoding: the ``content-encoding``, in lower case, or None.
        ended: whether the whole answer has come.
        failure: what broke it off, or None.
        eager: whether the reader takes any piece, or waits for the end.
        connection: where it happens, None from its end on.
        due: ``time.monotonic()`` at which the waiting ends, and ``late`` whether it has.
    """

    __slots__ = (
        "connection",
        "due",
        "eager",
        "encoding",
        "ended",
        "failure",
        "held",
        "late",
        "pieces",
        "raw",
        "received",
        "status",
        "waiter",
    )

    def __init__(self) -> None:
        self.status = 0
        self.raw: list[tuple[bytes, bytes]] = []
        self.encoding: bytes | None = None
        self.pieces: list[bytes] = []
        self.held = 0
        self.received = 0
        self.ended = False
        self.failure: str | None = None
        self.eager = True
        self.connection: Connection | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.due = 0.0
        self.late = False

    def take(self) -> bytes:
        """What of the body has come and was not taken yet."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.held = 0
        if self.connection is not None:
            self.connection.resume_reading()
        return data

    def wake(self) -> None:
        """Let the reader look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def header(self, name: bytes) -> bytes | None:
        """A header's value, None where there is none; several become one list."""
        found = [value.strip() for key, value in self.raw if key.lower() == name]
        return b", ".join(found) if found else None

    @property
    def length(self) -> int | None:
        """The body's length, where the head told it."""
        length = self.header(b"content-length")
        return int(length) if length is not None and length.isdigit() else None

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body has no other end than the connection's (RFC 9112, section 6.3)."""
        coding = self.header(b"transfer-encoding")
        if coding is not None:
            return not coding.lower().endswith(b"chunked")
        return self.header(b"content-length") is None


class Home(Protocol):
    """Who keeps the connections."""

    def give_back(self, connection: Connection, /) -> None:
        """The answer has been read to its end, and the connection can be used again."""
        ...

    def lost(self, connection: Connection, /) -> None:
        """The connection is closed."""
        ...


class Connection(asyncio.Protocol):
    """A connection; its loop calls the methods that are not documented."""

    __slots__ = (
        "_clean",
        "_closed",
        "_exchange",
        "_home",
        "_interim",
        "_parser",
        "_paused",
        "_sent",
        "_silent",
        "_transport",
        "blocked",
        "idle_since",
    )

    def __init__(self, home: Home) -> None:
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._exchange: Exchange | None = None
        self._clean = True
        self._closed = False
        self._interim = False
        self._paused = False
        self._sent = True
        self._silent = 0
        self.blocked = False
        self.idle_since = 0.0

    # -- for the caller ---------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether nobody has closed it, as far as the loop knows."""
        return not self._closed and self._transport is not None and not self._transport.is_closing()

    def usable(self) -> bool:
        """Whether another call can be sent on it: nothing has come since the last answer, not even the end."""
        if not self.open:
            return False
        if time.monotonic() - self.idle_since < _FRESH:
            return True
        look = select.poll()
        look.register(self._out.get_extra_info("socket").fileno(), select.POLLIN)
        return not look.poll(0)

    def send(self, exchange: Exchange, data: bytes, *, whole: bool = True) -> None:
        """Begin a call; ``more`` gives the rest of it unless this is the whole."""
        self._exchange = exchange
        exchange.connection = self
        self._sent = whole
        self._silent = 0
        self._out.write(data)

    def more(self, data: memoryview, *, last: bool) -> None:
        """The next bytes of the call."""
        self._sent = last
        self._out.write(data)

    def resume_reading(self) -> None:
        """The reader has taken what there was."""
        if self._paused:
            self._paused = False
            self._out.resume_reading()

    def abort(self) -> None:
        """Close it at once, whatever is on it."""
        self._closed = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.connection = None
            exchange.failure = exchange.failure or "the connection was closed on this side"
            exchange.wake()
        if self._transport is not None:
            self._transport.abort()

    @property
    def _out(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("the connection is not made")
        return self._transport

    # -- for the loop -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        # other loops have transports that are no subclasses, so this can't be checked
        self._transport = cast("asyncio.Transport", transport)
        self._parser = HttpResponseParser(self)
        # What other clients forgive, too: bare LF, blanks round a chunk's size, odd characters in a value. One server
        # is at the other end and each answer is parsed once, so nothing can be smuggled past anybody.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def data_received(self, data: bytes) -> None:  # noqa: D102
        exchange, parser = self._exchange, self._parser
        if exchange is None or parser is None:
            # nobody asked: what it says from here on can't be told apart from an answer
            self.abort()
            return
        before = exchange.received
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._clean = False
            if not exchange.ended:
                self._break(exchange, "sent what is no HTTP/1.1 answer")
                return
        if exchange.ended:
            self._end(exchange)
        elif exchange.received == before:
            self._silent += len(data)
            if self._silent > _SILENT:
                self._break(exchange, f"sent more than {_SILENT} bytes of headers")
                return
        else:
            self._silent = 0
            if exchange.held > _HELD and not self._paused:
                self._paused = True
                self._out.pause_reading()
        if exchange.ended or (exchange.status and exchange.eager) or exchange.held > _HELD:
            exchange.wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._closed = True
        self._parser = None  # it holds this connection's methods: a cycle
        exchange, self._exchange = self._exchange, None
        self._home.lost(self)
        if exchange is None:
            return
        exchange.connection = None
        if exchange.status and exc is None and exchange.ends_with_connection:
            exchange.ended = True
        else:
            exchange.failure = _CUT if exchange.status else _HUNG_UP
        exchange.wake()

    def pause_writing(self) -> None:  # noqa: D102
        self.blocked = True

    def resume_writing(self) -> None:  # noqa: D102
        self.blocked = False
        if self._exchange is not None:
            self._exchange.wake()

    # -- for the parser ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Of an answer, or of something after it."""
        if self._exchange is not None and self._exchange.ended:
            self._clean = False
            self._exchange = Exchange()  # takes what the parser finds in these bytes, and goes with them

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the head, or a trailer, which nobody here asks for."""
        exchange = self._exchange
        if exchange is not None and not exchange.status:
            exchange.raw.append((name, value))
            if len(name) == 16 and name.lower() == b"content-encoding":
                exchange.encoding = value.strip().lower()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        exchange, parser = self._exchange, self._parser
        if exchange is None or parser is None:
            return
        status = parser.get_status_code()
        if status < 200:  # a hint; the answer is still to come
            self._interim = True
            exchange.raw.clear()
            exchange.encoding = None
        else:
            exchange.status = status

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        exchange = self._exchange
        if exchange is not None:
            exchange.pieces.append(data)
            exchange.held += len(data)
            exchange.received += len(data)

    def on_message_complete(self) -> None:
        """The answer is whole, or a hint was."""
        if self._interim:
            self._interim = False
        elif self._exchange is not None and self._parser is not None:
            self._exchange.ended = True
            if not self._parser.should_keep_alive():
                self._clean = False

    # -- inside -----------------------------------------------------------------------------------

    def _end(self, exchange: Exchange) -> None:
        """The answer is whole: the connection goes home, unless something is left on it."""
        exchange.connection = None
        self._exchange = None
        self.resume_reading()
        if self._clean and self._sent:
            self._home.give_back(self)
        else:
            self.abort()

    def _break(self, exchange: Exchange, failure: str) -> None:
        exchange.failure = failure
        self.abort()
