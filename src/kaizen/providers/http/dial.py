"""Making a connection: names to addresses, several addresses tried in turn, tunnels through proxies, encryption."""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import ssl
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final, TypeAlias

from kaizen.providers.http.address import Address, tunnel_request
from kaizen.providers.http.connection import Connection, Home

# Seconds until the next address is tried beside those that have not answered (RFC 8305, section 5).
_STAGGER: Final = 0.25
# Seconds for which a name's addresses are used again: a burst of calls asks for them once.
_REMEMBERED: Final = 10.0
_TUNNEL_HEAD: Final = 64 * 1024
_TUNNEL_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*")

Found: TypeAlias = tuple[int, int, int, str, Any]
"""An item of ``socket.getaddrinfo``."""


@functools.cache
def default_tls() -> ssl.SSLContext:
    """The process's one context: reading the certificates of all authorities takes some 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dial:
    """Makes connections to one server in one loop.

    Args:
        target: the server.
        proxy: what stands between, or None.
        tls: how to encrypt, or None for ``default_tls``.
    """

    __slots__ = ("_found", "_found_at", "_looking", "_next", "_proxy", "_target", "_tls")

    def __init__(self, target: Address, proxy: Address | None, tls: ssl.SSLContext | None) -> None:
        self._target = target
        self._proxy = proxy
        self._next = proxy or target
        self._tls = tls
        self._found: list[Found] = []
        self._found_at = 0.0
        self._looking: asyncio.Future[list[Found]] | None = None

    @property
    def server(self) -> str:
        """Who is connected to, for errors."""
        return self._next.server if self._proxy is None else f"the proxy {self._next.server}"

    async def __call__(self, home: Home) -> Connection:
        """A connection on which calls can be sent.

        Raises:
            OSError: if there is none to be had.
        """
        loop = asyncio.get_running_loop()
        sock = await _connect(_alternated(await self._look_up()))
        if self._proxy is not None and self._target.tls:
            return await self._through(self._proxy, sock, home)
        _, connection = await loop.create_connection(
            lambda: Connection(home), sock=sock, ssl=self._context(self._next), server_hostname=_name(self._next)
        )
        return connection

    async def _through(self, proxy: Address, sock: socket.socket, home: Home) -> Connection:
        loop = asyncio.get_running_loop()
        transport, tunnel = await loop.create_connection(
            lambda: Tunnel(loop), sock=sock, ssl=self._context(proxy), server_hostname=_name(proxy)
        )
        try:
            transport.write(tunnel_request(self._target, proxy))
            await tunnel.opened
            connection = Connection(home)
            context = self._context(self._target) or default_tls()
            inner = await loop.start_tls(transport, connection, context, server_hostname=_name(self._target))
            if inner is None:
                raise ConnectionError("the proxy hung up")
        except BaseException:
            transport.abort()
            raise
        connection.connection_made(inner)  # which `start_tls` leaves to its caller
        return connection

    def _context(self, server: Address) -> ssl.SSLContext | None:
        return (self._tls or default_tls()) if server.tls else None

    async def _look_up(self) -> list[Found]:
        """The addresses of the server's name. Calls at once share one question, whoever of them is cancelled."""
        if self._found and time.monotonic() - self._found_at < _REMEMBERED:
            return self._found
        host, port = self._next.host, self._next.port
        if ":" in host or host.replace(".", "").isdigit():  # numbers: nobody to ask, so it does not block
            self._found, self._found_at = _numeric(host, port), float("inf")
            return self._found
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.run_in_executor(None, _resolve, host, port)
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def _looked(self, looking: asyncio.Future[list[Found]]) -> None:
        self._looking = None
        # asked for here, so that it is no complaint when all who waited were cancelled
        if not looking.cancelled() and looking.exception() is None:
            self._found, self._found_at = looking.result(), time.monotonic()


class Tunnel(asyncio.Protocol):
    """The proxy's answer to CONNECT; ``opened`` is done when it is a yes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.opened: asyncio.Future[None] = loop.create_future()
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self.opened.done():
            return
        self._head += data
        while (end := self._head.find(b"\r\n\r\n")) >= 0:
            status = _TUNNEL_STATUS.match(self._head)
            if status is not None and status[1][:1] == b"1":  # a hint
                del self._head[: end + 4]
                continue
            if status is None or status[1][:1] != b"2":
                said = status[0][9:].decode("latin-1") if status else "what is no HTTP/1.1"
                self._refuse(f"the proxy answered {said}")
            elif len(self._head) > end + 4:
                # the server waits for us to begin: whoever speaks now is not the server
                self._refuse("the proxy sent more than its answer")
            else:
                self.opened.set_result(None)
            return
        if len(self._head) > _TUNNEL_HEAD:
            self._refuse("the proxy's answer is too long")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._refuse("the proxy hung up")

    def _refuse(self, why: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(why))
            self.opened.exception()  # looked at, so that it is no complaint when the caller was cancelled


def _resolve(host: str, port: int, flags: int = 0) -> list[Found]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def _numeric(host: str, port: int) -> list[Found]:
    """An address in numbers; the plain kind without the resolver, which costs a new process half a millisecond."""
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return _resolve(host, port, socket.AI_NUMERICHOST)
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]


def _name(server: Address) -> str | None:
    """Whom the certificate has to name."""
    return server.host.partition("%")[0] if server.tls else None


def _alternated(found: Sequence[Found]) -> list[Found]:
    """The addresses with the families in turn, the resolver's first choice first (RFC 8305, section 4)."""
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    return [one for pair in zip_longest(first, others) for one in pair if one is not None]


async def _connect(found: Sequence[Found]) -> socket.socket:
    """A socket connected to the first of these that answers; each gets a moment's start before the next."""
    if len(found) == 1:
        return await _connected(found[0])
    tasks: list[asyncio.Task[socket.socket]] = []
    waiting = list(reversed(found))
    chosen: socket.socket | None = None
    try:
        while chosen is None:
            if waiting:
                tasks.append(asyncio.create_task(_connected(waiting.pop())))
            trying = [task for task in tasks if not task.done()]
            if trying:
                timeout = _STAGGER if waiting else None
                await asyncio.wait(trying, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            done = [task for task in tasks if task.done()]
            chosen = next((task.result() for task in done if task.exception() is None), None)
            if chosen is None and not waiting and len(done) == len(tasks):
                raise OSError("; ".join(dict.fromkeys(str(task.exception()) for task in done)))
        return chosen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and task.exception() is None and task.result() is not chosen:
                task.result().close()


async def _connected(found: Found) -> socket.socket:
    family, kind, protocol, _, address = found
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        # a model may think for minutes: what lies between must not take the connection for dead, nor we a dead one
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
