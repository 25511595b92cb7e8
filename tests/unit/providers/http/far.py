"""The far end of a connection, told byte by byte what to say."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from kaizen.providers.errors import Origin, Secret
from kaizen.providers.http import HttpTransport, TransportSettings

Answer: TypeAlias = "Callable[[Far, asyncio.StreamWriter, int], Awaitable[None]] | bytes"


@dataclass(frozen=True)
class Ask:
    """Who calls."""

    model: str = "mine/m"
    deadline: float | None = None


ASK = Ask()


def ok(body: bytes = b"hello", *headers: str) -> bytes:
    """A proper answer."""
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body


@dataclass
class Far:
    """A server that answers each request with the next of ``answers``, the last for ever.

    Attributes:
        heads: the heads of the requests that came, in order.
        bodies: their bodies.
        accepted: how many connections there were.
        lost: how many of them the client has closed.
    """

    answers: list[Answer]
    port: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    accepted: int = 0
    lost: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - whatever it is about
                await asyncio.sleep(0.002)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.accepted += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    length = re.search(r"content-length: (\d+)", head)
                    self.heads.append(head)
                    self.bodies.append(b"")
                    number = len(self.heads) - 1
                    if "x-late-body" not in head:
                        self.bodies[number] = await reader.readexactly(int(length[1]) if length else 0)
                    answer = self.answers[min(number, len(self.answers) - 1)]
                    if isinstance(answer, bytes):
                        writer.write(answer)
                        await writer.drain()
                    else:
                        await answer(self, writer, number)
                    if writer.is_closing():
                        return
                    if "x-late-body" in head:
                        while await reader.read(65536):
                            pass
                        break
            self.lost += 1
        finally:
            writer.transport.abort()


@asynccontextmanager
async def far(*answers: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncGenerator[Far]:
    """A server on loopback."""
    end = Far(list(answers))
    server = await asyncio.start_server(end.serve, host, 0, ssl=tls, limit=2**20)
    end.port = server.sockets[0].getsockname()[1]
    try:
        yield end
    finally:
        server.close()
        for task in end.tasks:
            task.cancel()
        await asyncio.gather(*end.tasks, return_exceptions=True)


@asynccontextmanager
async def calling(
    url: str, *, tls: ssl.SSLContext | None = None, headers: dict[str, str] | None = None, **settings: object
) -> AsyncGenerator[HttpTransport]:
    """A transport to it, closed at the end."""
    transport = HttpTransport(
        url,
        headers or {},
        Origin("mine", Secret("sk-1")),
        TransportSettings(**settings),  # type: ignore[arg-type]
        tls=tls,
    )
    try:
        yield transport
    finally:
        await transport.close()


async def call(transport: HttpTransport, body: bytes = b"{}", asked: Ask = ASK) -> bytes:
    """One call, read to the end."""
    async with transport.open("/x", body, asked) as answer:
        return await answer.read()


async def pieces(transport: HttpTransport) -> list[bytes]:
    """One streamed call, piece by piece."""
    found: list[bytes] = []
    async with transport.open("/x", b"{}", ASK, stream=True) as answer:
        while (piece := await answer.pieces()) is not None:
            found.append(piece)
    return found
