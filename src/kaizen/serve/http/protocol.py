"""The connection: uvicorn's, with limits on heads and waiting, and a word to the call when the caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, TypeAlias, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

MAX_HEAD: Final = 64 * 1024
MAX_FIELDS: Final = 128
ARRIVAL_S: Final = 60.0
"""Seconds within which a whole request has to arrive once the connection is open or its first byte is there."""

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\ncontent-length: 73\r\n"
    b"connection: close\r\n\r\n"
    b'{"error":{"message":"the request\'s head is too large","code":"too_large"}}'
)


def _head(headers: Headers, keep_alive: bool) -> bytes:
    lines = [STATUS_LINE[200], *[b"%b: %b\r\n" % header for header in headers]]
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    return b"".join(lines)


class _HeadTooLarge(Exception):
    """Ends the parser's work; uvicorn takes it for a request that can't be read."""


class Connection(HttpToolsProtocol):
    """One caller's connection.

    uvicorn bounds neither a head's size nor the time in which a request has to come, and tells an application that
    the caller is gone only if it asks. Here a head has at most 64 KiB and 128 fields, a request that trickles in is cut
    off after a minute, and the task that answers is cancelled when the connection is lost: so is the call upstream.

    Attributes:
        answering: the task that answers the current request; the application says so.
        gone: whether the connection is lost.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.answering: asyncio.Task[Any] | None = None
        self.gone = False
        self._extensions: dict[str, Any] = {}
        self._head = self._fields = 0
        self._arriving = False
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A caller came; it has a while to ask something."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(ARRIVAL_S, self._expire)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller went."""
        self.gone = True
        self._disarm()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        answering, self.answering = self.answering, None
        cycle: Any = self.cycle
        super().connection_lost(exc)
        if answering is not None and not answering.done() and cycle is not None and not cycle.response_complete:
            answering.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        if not self._arriving:
            if self._timer is not None:
                self._disarm()
        elif self._timer is None:
            self._timer = self.loop.call_later(ARRIVAL_S, self._expire)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head = self._fields = 0
        self._arriving = True
        extensions: Any = {"kaizen.connection": self}
        self.scope["extensions"] = self._extensions = extensions

    def on_headers_complete(self) -> None:
        """The head is whole; the task that answers is made here, and runs later."""
        super().on_headers_complete()
        self._extensions["kaizen.cycle"] = self.cycle

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        self._head += len(url)
        if self._head <= MAX_HEAD:
            super().on_url(url)
        else:
            self._refuse()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._head += len(name) + len(value)
        self._fields += 1
        if self._head > MAX_HEAD or self._fields > MAX_FIELDS:
            self._refuse()
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._arriving = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What can't be read is answered so, unless it was refused already."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """The answer is sent. As uvicorn's, but with one timer for a connection's pauses, and not one for each."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        """Close the connection where nothing was asked for long enough; while something is, its end looks again."""
        self._idle_timer = None
        if self._arriving or self.transport.is_closing() or not self.cycle.response_complete:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._look)
        else:
            self.timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # noted on the cycle: to ask which task runs costs more than to be told
        task: asyncio.Task[None] = self.loop.create_task(self._answered(cycle, app))
        cast("Any", cycle).task = task
        self.tasks.add(task)

    async def _answered(self, cycle: RequestResponseCycle, app: Any) -> None:
        """The work on one request; the server waits for it at its end."""
        try:
            await cycle.run_asgi(app)
        finally:
            self.tasks.discard(cast("Any", cycle).task)

    def _refuse(self) -> None:
        self.transport.write(_TOO_LARGE)
        self.transport.close()
        raise _HeadTooLarge  # the parser must not go on to the end of the head, where the application is called

    def respond(self, cycle: RequestResponseCycle, headers: Headers, body: bytes) -> bool:
        """Send a whole answer of status 200 in one write; False if that can't be done now, and nothing was sent.

        uvicorn sends head and body by themselves, and checks each header by two regular expressions: a fifth of a
        cached answer's time. Ours hold nothing of a caller's that was not checked.
        """
        if not self._free(cycle):
            return False
        head = _head(headers, cycle.keep_alive)
        self.transport.write(b"%b\r\n%b" % (head, body))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def begin(self, cycle: RequestResponseCycle, headers: Headers, piece: bytes) -> bool:
        """Send the head of a stream and its first piece in one write; False as in ``respond``."""
        if not self._free(cycle) or not piece:
            return False
        head = _head(headers, cycle.keep_alive)
        self.transport.write(b"%btransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (head, len(piece), piece))
        cycle.response_started = cycle.chunked_encoding = True
        return True

    def _free(self, cycle: RequestResponseCycle) -> bool:
        return not (
            cycle.disconnected or cycle.response_started or cycle.waiting_for_100_continue or self.flow.write_paused
        )

    def _expire(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def whole_body(self, cycle: RequestResponseCycle) -> bytes | None:
        """The request's body if all of it is there and nobody waits for a word before sending it; else None."""
        if cycle.more_body or cycle.disconnected or cycle.response_complete or cycle.waiting_for_100_continue:
            return None
        body = bytes(cycle.body)
        cycle.body = bytearray()
        cycle.message_event.clear()
        self.flow.resume_reading()
        return body

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
