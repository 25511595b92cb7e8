"""A provider that misbehaves on command: real sockets, three wires, and a count of what it was asked.

    with FaultServer() as server:
        provider = OpenAIProvider("mine", base_url=server.base_url, api_key="k")
        server.queue(status(503), status(503))   # the next two calls fail, then all is well again
        ...
        assert server.count == 3

It answers ``/v1/chat/completions``, ``/v1/responses`` and ``/v1/messages``, whole or streamed. A model whose
name is that of a fault (``never``, ``429``, ``slow-0.5``; see ``named``) is answered with it, so that a
server in a process of its own can be told as well: ``python -m kaizen.testing.fault_server --port 0``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from pydantic_core import from_json, to_json

from kaizen.testing import answers
from kaizen.testing.answers import Answer, WireName
from kaizen.testing.faults import OK, Fault, named, slow, status

__all__ = ["HUGE", "OK", "Call", "Fault", "FaultServer", "main", "named", "slow", "status"]

HUGE: Final = 50 * 1024 * 1024
_SPOKEN: Final = frozenset({"ok", "drip", "endless", "broken", "truncated", "error_event"})
_MODEL: Final = re.compile(rb'"model":\s*"([^"]*)"')
_STREAM: Final = re.compile(rb'"stream":\s*true')
_TOOL: Final = re.compile(rb'"tools":\s*\[')
_REASONS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    408: "Request Timeout",
    429: "Too Many Requests",
}
_CODES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(slots=True)
class Call:
    """One request that came.

    Attributes:
        path: such as ``/v1/messages``.
        headers: by lower-case name.
        body: its bytes.
        cut: whether the client went away before the answer was whole.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    cut: bool = False

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return from_json(self.body)


class FaultServer:
    """The server, in a thread of its own while the ``with`` block lasts.

    Args:
        reply: what a proper answer says; or a function from the request's JSON to it.
        arguments: the arguments with which it calls the first tool it is offered, JSON text without spaces.
        default: how calls are answered for which nothing is queued.
        keep: of how many calls, the latest, the contents are kept.
    """

    def __init__(
        self,
        reply: str | Callable[[Any], str] = "Hello there, this is the fault server.",
        *,
        arguments: str = '{"city":"Paris"}',
        default: Fault = OK,
        keep: int = 1000,
    ) -> None:
        self.reply = reply
        self.arguments = arguments
        self.default = default
        self.calls: deque[Call] = deque(maxlen=keep)
        self.count = 0
        self.cuts = 0
        self.connections = 0
        self.port = 0
        self._queued: deque[Fault] = deque()
        self._made: dict[tuple[WireName, str], bytes] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[asyncio.Transport] = set()
        self._thread = threading.Thread(target=self._run, name="fault-server", daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()

    @property
    def address(self) -> str:
        """Such as ``http://127.0.0.1:49152``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The address with ``/v1``."""
        return f"{self.address}/v1"

    @property
    def open_connections(self) -> int:
        """How many connections there are now."""
        return len(self._open)

    def queue(self, *faults: Fault) -> None:
        """Answer the next calls so, in this order; the model's name is not looked at then."""
        self._queued.extend(faults)

    async def until(self, condition: Callable[[], bool], *, within: float = 5.0) -> None:
        """Wait until something is so, such as ``lambda: server.cuts == 1``.

        Raises:
            AssertionError: if it is not so in time (seconds).
        """
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {within} s; {self.count} calls, {self.cuts} cut")
            await asyncio.sleep(0.005)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # -- inside, on the server's own thread -------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self.serve(0))

    async def serve(self, port: int, announce: Callable[[str], object] | None = None) -> None:
        """Answer until told to stop. ``with`` does this in a thread; a process of its own does it itself."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        if announce is not None:
            announce(self.address)
        try:
            await self._stop.wait()
        finally:
            server.close()
            # A connection takes three turns of the loop from being accepted to being known here, and an aborted
            # one takes one to close its socket.
            for _ in range(5):
                for transport in list(self._open):
                    transport.abort()
                await asyncio.sleep(0)

    def opened(self, transport: asyncio.Transport) -> None:
        """A connection came."""
        self.connections += 1
        self._open.add(transport)

    def closed(self, transport: asyncio.Transport, call: Call | None) -> None:
        """A connection went, with the call that was still being answered on it."""
        self._open.discard(transport)
        if call is not None:
            call.cut = True
            self.cuts += 1

    def received(self, call: Call) -> Fault:
        """A call came: how it is answered."""
        self.calls.append(call)
        self.count += 1
        if self._queued:
            return self._queued.popleft()
        return named(_model(call)) or self.default

    def whole(self, wire: WireName, call: Call) -> bytes:
        """A proper answer's body; made once for each model where it depends on nothing else."""
        if callable(self.reply) or _TOOL.search(call.body):
            return answers.whole(wire, self.answer(call))
        key = (wire, _model(call))
        if key not in self._made:
            self._made[key] = answers.whole(wire, self.answer(call))
        return self._made[key]

    def answer(self, call: Call) -> Answer:
        """What a proper answer says."""
        text = self.reply(call.json) if callable(self.reply) else self.reply
        tools = call.json.get("tools") if _TOOL.search(call.body) else None
        if not tools:
            return Answer(_model(call), text)
        return Answer(_model(call), text, tools[0].get("function", tools[0])["name"], self.arguments)


class _Connection(asyncio.Protocol):
    """One client, one call after another."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._buffer = b""
        self._call: Call | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._server.opened(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.closed(self._transport, self._call)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        path = first.split(" ")[1]
        if path == "/stats":
            self._send(to_json({"calls": self._server.count, "cuts": self._server.cuts}))
            return
        self._call = call = Call(path, headers, rest[:length])
        fault = self._server.received(call)
        if fault.delay and fault.kind != "drip":
            asyncio.get_running_loop().call_later(fault.delay, self._answer, call, fault)
        else:
            self._answer(call, fault)

    def _answer(self, call: Call, fault: Fault) -> None:
        wire = answers.wire_of(call.path)
        if self._transport.is_closing():
            return
        if fault.kind == "status":
            self._fail(wire, fault)
        elif wire is None and fault.kind in _SPOKEN:
            self._fail(wire, status(404))
        elif wire is not None and _STREAM.search(call.body) and fault.kind in _SPOKEN:
            events = answers.events(wire, self._server.answer(call))
            if fault.kind in ("broken", "truncated", "error_event"):
                events = _spoiled(wire, fault, events)
            self._stream(events, delay=fault.delay, end=fault.kind != "endless")
        elif wire is not None and fault.kind in _SPOKEN:
            body = self._server.whole(wire, call)
            half = len(body) // 2
            if fault.kind in ("truncated", "error_event"):
                self._send(body[:half], missing=len(body) - half)
            else:
                self._send(body[:half] if fault.kind == "broken" else body)
        else:
            self._answer_otherwise(fault)

    def _answer_otherwise(self, fault: Fault) -> None:
        """What has nothing to do with the wire."""
        match fault.kind:
            case "html":
                self._send(b"<html><title>Welcome to the portal</title></html>", kind="text/html")
            case "huge":
                self._send(b'{"text":"' + b"x" * HUGE + b'"}')
            case "hangup":
                self._hang_up()
            case "headers":
                self._send(b"", missing=100)
            case "body":
                self._send(fault.message.encode())
            case "events":
                self._stream([fault.message.encode()])
            case _:
                pass  # "never"

    def _send(
        self,
        body: bytes,
        *,
        code: int = 200,
        headers: Mapping[str, str] | None = None,
        kind: str = "application/json",
        missing: int = 0,
    ) -> None:
        """Write an answer. With ``missing`` bytes it announces more than it sends, and hangs up."""
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 {code} {_REASONS.get(code, 'OK')}\r\ncontent-type: {kind}\r\n{extra}"
        head += f"content-length: {len(body) + missing}\r\n\r\n"
        self._transport.write(head.encode() + body)
        if missing:
            self._hang_up()
        elif self._transport.get_write_buffer_size() == 0:
            self._call = None
        # else the client has still to take it: a large body that is not read stays a call in the air

    def _fail(self, wire: WireName | None, fault: Fault) -> None:
        code = fault.code or _CODES.get(fault.status, "server_error" if wire != "messages" else "api_error")
        body = answers.error(wire, fault.status, code, fault.message)
        self._send(body, code=fault.status, headers=fault.headers)

    def _stream(self, events: list[bytes], *, delay: float = 0.0, end: bool = True) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        if delay:
            self._drip(deque(events), delay)
        else:
            # an empty chunk is the end of the body
            self._transport.write(b"".join(_chunk(event) for event in events if event))
            if end:
                self._transport.write(_chunk(b""))
                self._call = None

    def _drip(self, events: deque[bytes], delay: float) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_chunk(events.popleft()))
        if events:
            asyncio.get_running_loop().call_later(delay, self._drip, events, delay)
        else:
            self._transport.write(_chunk(b""))
            self._call = None

    def _hang_up(self) -> None:
        self._call = None  # not the client's doing
        self._transport.close()


def _spoiled(wire: WireName, fault: Fault, events: list[bytes]) -> list[bytes]:
    """The first half of a stream, and what goes wrong then. The HTTP body itself ends in good order."""
    half = events[: len(events) // 2]
    match fault.kind:
        case "broken":
            return [*half, events[len(events) // 2][:-20] + b"\n\n"]
        case "error_event":
            code = fault.code or ("overloaded_error" if wire == "messages" else "server_error")
            return [*half, answers.error_event(wire, code, fault.message)]
        case _:
            return half


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _model(call: Call) -> str:
    found = _MODEL.search(call.body)
    return found[1].decode() if found else ""


def main(argv: list[str] | None = None) -> None:
    """Run until the process is ended; the first line of output is the address."""
    parser = argparse.ArgumentParser(prog="python -m kaizen.testing.fault_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--reply", default="Hello there, this is the fault server.", help="what proper answers say")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    given = parser.parse_args(argv)
    server = FaultServer(given.reply, default=slow(given.delay) if given.delay else OK, keep=1)

    def announce(address: str) -> None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()

    asyncio.run(server.serve(given.port, announce))


if __name__ == "__main__":
    main()
