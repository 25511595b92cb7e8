"""One call over HTTP and its answer, as the wire adapters see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol

from kaizen.core.errors import ProviderError, Unavailable
from kaizen.providers.errors import Origin
from kaizen.providers.http.coding import Damaged, Inflater
from kaizen.providers.http.connection import Connection, Exchange
from kaizen.providers.http.limits import TransportSettings
from kaizen.providers.http.pool import Pool
from kaizen.providers.sse import EventDecoder, EventTooLong

# What is read of an error's body: enough for any message.
_ERROR_BODY: Final = 64 * 1024
# Seconds to wait for the end of a stream whose answer is whole, so that its connection can be used again.
_DRAIN: Final = 0.05
# What a whole stream may hold, in times the limit of one event: far more than any answer, and not all memory.
_STREAM: Final = 8
# A larger body goes out in pieces of this size, each when the one before has gone: else all of it would be copied.
_PIECE: Final = 256 * 1024
_OUTSIDE: Final = "the answer is read inside `async with`"


class Asked(Protocol):
    """What is told of a call to whoever makes it; a ``Request`` is one."""

    @property
    def model(self) -> str:
        """The model's ref, for errors."""
        ...

    @property
    def deadline(self) -> float | None:
        """``time.monotonic()`` at which the caller stops waiting, or None."""
        ...


class Line(Protocol):
    """The transport that a call belongs to."""

    @property
    def origin(self) -> Origin:
        """Whose errors these are."""
        ...

    @property
    def settings(self) -> TransportSettings:
        """Limits."""
        ...

    async def pool(self) -> Pool:
        """The running loop's connections."""
        ...


class HttpAnswer:
    """One call and its answer; see ``HttpTransport.open``. ``status`` and ``headers`` are there once entered."""

    __slots__ = (
        "_asked",
        "_body",
        "_decoder",
        "_exchange",
        "_head",
        "_inflater",
        "_line",
        "_pool",
        "_stream",
        "_streamed",
        "status",
    )

    def __init__(self, line: Line, head: bytes, body: bytes, asked: Asked, *, stream: bool) -> None:
        self._line = line
        self._head = head
        self._body = body
        self._asked = asked
        self._stream = stream
        self._pool: Pool | None = None
        self._exchange: Exchange | None = None
        self._decoder: EventDecoder | None = None
        self._inflater: Inflater | None = None
        self._streamed = 0
        self.status = 0

    async def __aenter__(self) -> HttpAnswer:
        deadline = self._asked.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise self._passed()  # before a connection is made for nothing
        pool = await self._line.pool()
        if not pool.gate.take():
            await self._turn(pool, deadline)
        self._pool = pool
        try:
            connection = pool.idle() or await self._connect(pool)
            exchange = self._exchange = Exchange()
            if len(self._body) <= _PIECE:
                connection.send(exchange, self._head + self._body)
            else:
                await self._send_in_pieces(connection, exchange)
            while not exchange.status:
                await self._wait(exchange, time.monotonic() + self._patience)
        except BaseException:
            self._leave()
            raise
        self.status = exchange.status
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def sent(self) -> bool:
        """Whether any of the request may have left: before that, asking again is asking once."""
        return self._exchange is not None

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, by names in lower case; several of one name become a list with commas."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in self._opened.raw:
            name, value = raw_name.decode("latin-1").lower(), raw_value.strip().decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    async def read(self) -> bytes:
        """The whole body; of an error (any status but 200) the first 64 KiB.

        Raises:
            Unavailable: if it is longer than the limit or breaks off. Timeout: if it does not come in time.
        """
        exchange = self._opened
        limit = self._line.settings.max_body if self.status == 200 else _ERROR_BODY
        if exchange.ended and exchange.encoding is None and exchange.held <= limit:
            return exchange.take()  # it came with its head: nothing to wait for
        if self.status != 200:
            return await self._first(exchange, limit)
        if exchange.encoding is None and (exchange.length or 0) > limit:
            raise self._too_long("the answer", limit)
        body = await self._first(exchange, limit + 1)
        if len(body) > limit:
            raise self._too_long("the answer", limit)
        return body

    async def events(self) -> list[bytes] | None:
        """The data of the next events (none to many), or None at the end of the stream.

        Raises:
            Unavailable: if an event is longer than the limit or the connection breaks. Timeout: see ``read``.
        """
        limit = self._line.settings.max_body
        if self._decoder is None:
            self._decoder = EventDecoder(limit)
        piece = await self._piece()
        if piece is None:
            return self._decoder.close() or None
        try:
            events = self._decoder.feed(piece)
        except EventTooLong:
            raise self._too_long("an event", limit) from None
        self._count(piece)
        return events

    async def pieces(self) -> bytes | None:
        """What has come of the body since the last call, at least a byte of it; None at its end.

        For who hands a stream on as it is. While nobody asks, the server has to wait.

        Raises:
            Unavailable: if the stream is longer than the limit or the connection breaks. Timeout: see ``read``.
        """
        piece = await self._piece()
        if piece is not None:
            self._count(piece)
        return piece

    async def drain(self) -> None:
        """Wait a moment for the end of the stream: only then can the connection be used again."""
        exchange = self._opened
        until = time.monotonic() + _DRAIN
        # the answer is whole; where the end does not come in time the connection is closed instead
        with suppress(ProviderError):
            exchange.take()
            while not exchange.ended:
                await self._wait(exchange, until)
                exchange.take()

    # -- inside -----------------------------------------------------------------------------------

    @property
    def _opened(self) -> Exchange:
        if self._exchange is None:
            raise RuntimeError(_OUTSIDE)
        return self._exchange

    @property
    def _patience(self) -> float:
        """Seconds to wait: for the next piece of a stream, or for all of an answer."""
        settings = self._line.settings
        return settings.idle_timeout if self._stream else settings.answer_timeout

    @property
    def _limit(self) -> str:
        return "idle_timeout" if self._stream else "answer_timeout"

    async def _turn(self, pool: Pool, deadline: float | None) -> None:
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await pool.gate.enter()
        except TimeoutError:
            raise self._passed() from None

    async def _connect(self, pool: Pool) -> Connection:
        seconds = self._line.settings.connect_timeout
        deadline = self._asked.deadline
        left = seconds if deadline is None else deadline - time.monotonic()
        origin, model = self._line.origin, self._asked.model
        try:
            async with asyncio.timeout(min(seconds, left)):
                return await pool.connect()
        except TimeoutError:
            if left < seconds:
                raise self._passed() from None
            raise origin.late(model, "no connection within connect_timeout") from None
        except OSError as error:
            raise origin.broken(model, f"can't connect to {pool.server}: {error.strerror or error}") from None

    async def _send_in_pieces(self, connection: Connection, exchange: Exchange) -> None:
        """A server that answers before it has all of it is heard; then its connection is not used again."""
        connection.send(exchange, self._head, whole=False)
        rest = memoryview(self._body)
        while rest and not exchange.status:
            connection.more(rest[:_PIECE], last=len(rest) <= _PIECE)
            rest = rest[_PIECE:]
            while connection.blocked and not exchange.status:
                await self._wait(exchange, time.monotonic() + self._patience)

    async def _wait(self, exchange: Exchange, due: float, late: str = "nothing came within") -> None:
        """Until there is something new of the answer."""
        if exchange.failure is None:
            if self._pool is None:
                raise RuntimeError(_OUTSIDE)
            deadline = self._asked.deadline
            await self._pool.wait(exchange, due if deadline is None else min(due, deadline))
            if exchange.late:
                if deadline is not None and deadline <= due:
                    raise self._passed()
                raise self._line.origin.late(self._asked.model, f"{late} {self._limit}") from None
        # what came before it is read first
        if exchange.failure is not None and not exchange.held:
            raise self._line.origin.broken(self._asked.model, exchange.failure) from None

    async def _piece(self) -> bytes | None:
        exchange = self._opened
        exchange.eager = True
        piece = self._decoded(exchange, _PIECE)
        while not piece:
            if exchange.ended and not exchange.held:
                return None
            await self._wait(exchange, time.monotonic() + self._patience)
            piece = self._decoded(exchange, _PIECE)
        return piece

    def _count(self, piece: bytes) -> None:
        self._streamed += len(piece)
        limit = _STREAM * self._line.settings.max_body
        if self._streamed > limit:
            raise self._too_long("the stream", limit)

    async def _first(self, exchange: Exchange, limit: int) -> bytes:
        """The first ``limit`` bytes of a body, or all of it; a drop now and then does not prolong the time for it."""
        until = time.monotonic() + self._patience
        exchange.eager = False
        body = bytearray()
        while True:
            body += self._decoded(exchange, limit - len(body))
            if len(body) >= limit:
                return bytes(body[:limit])
            if exchange.ended and not exchange.held:
                return bytes(body)
            await self._wait(exchange, until, "the answer did not end in time:")

    def _decoded(self, exchange: Exchange, room: int) -> bytes:
        """What has come and was not taken yet, all of it or, where it is compressed, at most ``room`` bytes."""
        if exchange.encoding is None or exchange.encoding == b"identity":
            return exchange.take()
        try:
            if self._inflater is None:
                self._inflater = Inflater(exchange.encoding)
            data = self._inflater.feed(exchange.take(), room)
            if exchange.ended and not self._inflater.rest:
                self._inflater.close()
        except Damaged as error:
            raise self._line.origin.broken(self._asked.model, str(error)) from None
        return data

    def _leave(self) -> None:
        if self._exchange is not None and self._exchange.connection is not None:
            # a body read to its end has given its connection back already; any other is cut here
            self._exchange.connection.abort()
        if self._pool is not None:
            self._pool.gate.leave()
            self._pool = None

    def _passed(self) -> ProviderError:
        return self._line.origin.late(self._asked.model, "the call's deadline has passed")

    def _too_long(self, what: str, limit: int) -> ProviderError:
        origin = self._line.origin
        return Unavailable(
            f"{origin.name} ({self._asked.model}): {what} is longer than the limit of {limit} bytes",
            provider=origin.name,
            model=self._asked.model,
            retryable=False,
        )
