"""JSON over HTTP: the one place where the wire adapters do I/O.

aiohttp's sessions belong to the loop that opened them, so a transport keeps one for each loop it is used
in. An open async generator holds it: ``asyncio.run`` and ``asyncio.Runner`` end the open generators of
their loop (``loop.shutdown_asyncgens``), and with it the session, without anybody closing anything.
"""

from __future__ import annotations

import asyncio
import io
import resource
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, TypeVar

import aiohttp
from yarl import URL

from kaizen.core.errors import ConfigError, ProviderError, Unavailable
from kaizen.core.request import Request
from kaizen.providers.errors import Origin
from kaizen.providers.sse import EventDecoder, EventTooLong

# What is read of an error's body: enough for any message.
_ERROR_BODY: Final = 64 * 1024
# Seconds to wait for the end of a stream whose answer is whole, so that its connection can be used again.
_DRAIN: Final = 0.05
# What a whole stream may hold, in times the limit of one event: far more than any answer, and not all memory.
_STREAM: Final = 8
# From this size on aiohttp warns of bytes as a body, since it writes them at once; a file it writes in pieces.
_LARGE_BODY: Final = 1024 * 1024

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How a provider is reached.

    Args:
        connections: the most calls in the air at once in one loop; the others wait in order. None is the
            smaller of 1,000 and half the process's limit of open files.
        connect_timeout: seconds to make a connection.
        answer_timeout: seconds to wait for an answer that is not streamed; the model writes all of it meanwhile.
            Then as long again for the rest of a body that did not come with its head.
        idle_timeout: seconds to wait for the next piece of a stream.
        max_body: the most bytes of an answer, or of one event of a stream; a stream may have eight times that in all.
        proxy: address of an HTTP proxy, or None. It may hold a password, so it is not shown.
    """

    connections: int | None = None
    connect_timeout: float = 10.0
    answer_timeout: float = 600.0
    idle_timeout: float = 60.0
    max_body: int = 16 * 1024 * 1024
    proxy: str | None = field(default=None, repr=False)


class Gate:
    """At most ``free`` holders at once; the others wait in order.

    Unlike ``asyncio.Semaphore``, neither a burst of releases nor a crowd of cancelled waiters costs time
    that grows with the queue.
    """

    __slots__ = ("_free", "_waiters")

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for a turn."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn had come already: hand it on
                self.leave()
            raise

    def leave(self) -> None:
        """Give the turn to the next who still waits."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


@dataclass(frozen=True, slots=True)
class _Pool:
    """What one loop holds. ``keeper`` is the open generator whose end closes the session."""

    session: aiohttp.ClientSession
    gate: Gate
    keeper: AsyncGenerator[aiohttp.ClientSession, None]
    held: weakref.finalize[..., Any]


class HttpTransport:
    """Posts JSON to one provider: one pool of connections in each event loop that uses it.

    It follows no redirect, keeps no cookie and sends nothing twice.

    Args:
        base_url: where the provider answers, such as ``https://api.openai.com/v1``.
        headers: sent with every request; they may hold the key.
        origin: names the provider in errors and hides its key.
        settings: limits.

    Raises:
        ConfigError: if ``base_url``, a header or the proxy can't be used.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], origin: Origin, settings: TransportSettings) -> None:
        self._url = _checked_url(base_url, origin)
        self._headers = _checked_headers(headers, origin)
        _check_proxy(settings.proxy, origin)
        self._urls: dict[str, URL] = {}
        self._origin = origin
        self._settings = settings
        # sock_read counts from the request to the head as well
        self._whole = _timeout(settings, settings.answer_timeout)
        self._streamed = _timeout(settings, settings.idle_timeout)
        self._pools: dict[Loop, _Pool] = {}

    @property
    def base_url(self) -> str:
        """Where the provider answers, without the query."""
        return str(self._url.with_query(None))

    @property
    def host(self) -> str:
        """The host's name."""
        return self._url.host or ""

    def open(self, path: str, body: bytes, request: Request, *, stream: bool = False) -> HttpAnswer:
        """A call to make with ``async with``: it is sent on entering and, if it is not over, cut on leaving."""
        return HttpAnswer(self, path, body, request, stream=stream)

    async def close(self) -> None:
        """Close the running loop's connections. Not needed where the loop shuts its generators down."""
        pool = self._pools.get(asyncio.get_running_loop())
        if pool is not None:
            await pool.keeper.aclose()

    async def pool(self) -> _Pool:
        """The running loop's session and gate, opened at the first call."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        return pool or await self._open_pool(loop)

    async def _open_pool(self, loop: Loop) -> _Pool:
        for other in [held for held in self._pools if held.is_closed()]:
            # closed without ending its generators; there is nothing left to close its session with
            self.forget(other)
        keeper = _keep(loop, weakref.ref(self), self._headers, self._settings)
        # runs up to its yield without giving way to another task, so no second session is made meanwhile
        session = await anext(keeper)
        # A transport may be dropped while its loop runs on, and be collected in one sweep with all it holds. This
        # keeps the session out of that sweep, where it would be found unclosed; let go after it, the generator
        # is ended by its loop.
        held = weakref.finalize(self, _let_go, keeper)
        held.atexit = False
        pool = self._pools[loop] = _Pool(session, Gate(_connections(self._settings)), keeper, held)
        return pool

    def forget(self, loop: Loop) -> None:
        """This loop's connections are closed."""
        if (pool := self._pools.pop(loop, None)) is not None:
            pool.held.detach()

    async def send(self, path: str, body: bytes, *, stream: bool) -> aiohttp.ClientResponse:
        """Post; the answer's head has come when this returns."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self._url.with_path(self._url.path.rstrip("/") + path, keep_query=True)
        session = (await self.pool()).session
        return await session.post(
            url,
            data=body if len(body) < _LARGE_BODY else io.BytesIO(body),
            allow_redirects=False,
            timeout=self._streamed if stream else self._whole,
        )

    @property
    def origin(self) -> Origin:
        """Whose errors these are."""
        return self._origin

    @property
    def answer_timeout(self) -> float:
        """Seconds that reading an answer may take."""
        return self._settings.answer_timeout

    @property
    def max_body(self) -> int:
        """The most bytes of an answer or an event."""
        return self._settings.max_body


class HttpAnswer:
    """One call and its answer; see ``HttpTransport.open``. ``status`` and ``headers`` are there once entered."""

    def __init__(self, transport: HttpTransport, path: str, body: bytes, request: Request, *, stream: bool) -> None:
        self._transport = transport
        self._path = path
        self._body = body
        self._model = request.model
        self._deadline = request.deadline
        self._stream = stream
        self._gate: Gate | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._decoder: EventDecoder | None = None
        self._streamed = 0
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def __aenter__(self) -> HttpAnswer:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise self._passed()  # before a connection is made for nothing
        try:
            response = self._response = await self._in_time(self._send())
        except BaseException:
            self._leave()
            raise
        self.status = response.status
        self.headers = response.headers
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def read(self) -> bytes:
        """The whole body; of an error (any status but 200) the first 64 KiB.

        Raises:
            Unavailable: if it is longer than the limit or breaks off. Timeout: if it does not come in time.
        """
        # a short answer has come with its head: nothing to wait for, so no deadline to watch
        return await (self._read() if self._opened.content.is_eof() else self._in_time(self._read_on()))

    async def events(self) -> list[bytes] | None:
        """The data of the next events (none to many), or None at the end of the stream.

        Raises:
            Unavailable: if an event is longer than the limit or the connection breaks. Timeout: see ``read``.
        """
        if self._decoder is None:
            self._decoder = EventDecoder(self._transport.max_body)
        response = self._opened
        if response.content.at_eof():
            return None
        chunk = await self._in_time(response.content.readany())
        self._streamed += len(chunk)
        try:
            events = self._decoder.feed(chunk) if chunk else self._decoder.close()
        except EventTooLong:
            raise self._too_long("an event", self._transport.max_body) from None
        if self._streamed > _STREAM * self._transport.max_body:
            raise self._too_long("the stream", _STREAM * self._transport.max_body)
        return events

    async def drain(self) -> None:
        """Wait a moment for the end of the stream: only then can the connection be used again."""
        content = self._opened.content
        try:
            async with asyncio.timeout(_DRAIN):
                while not content.at_eof():
                    await content.readany()
        except (TimeoutError, aiohttp.ClientError):
            return  # the answer is whole; this connection is closed instead

    # -- inside -----------------------------------------------------------------------------------

    @property
    def _opened(self) -> aiohttp.ClientResponse:
        if self._response is None:
            raise RuntimeError("the answer is read inside `async with`")
        return self._response

    async def _send(self) -> aiohttp.ClientResponse:
        gate = (await self._transport.pool()).gate
        await gate.enter()
        self._gate = gate
        return await self._transport.send(self._path, self._body, stream=self._stream)

    def _leave(self) -> None:
        if self._response is not None:
            # a body read to its end has given its connection back already; any other is cut here
            self._response.close()
        if self._gate is not None:
            self._gate.leave()
            self._gate = None

    async def _read_on(self) -> bytes:
        """``_read``, for at most ``answer_timeout`` in all: that of a socket begins anew with every byte."""
        try:
            async with asyncio.timeout(self._transport.answer_timeout):
                return await self._read()
        except TimeoutError:
            raise self._transport.origin.late(self._model, "the answer did not end in time (answer_timeout)") from None

    async def _read(self) -> bytes:
        response = self._opened
        limit = self._transport.max_body
        length = response.content_length
        if response.status != 200:
            return await _first(response.content, _ERROR_BODY)
        if length is not None and length <= limit and "content-encoding" not in response.headers:
            return await response.read()  # cheaper than in pieces
        if length is not None and length > limit:
            raise self._too_long("the answer", limit)
        body = await _first(response.content, limit + 1)
        if len(body) > limit:
            raise self._too_long("the answer", limit)
        return body

    async def _in_time(self, step: Awaitable[T]) -> T:
        """Await a step of the call under its deadline, and turn what goes wrong into our errors."""
        origin, model = self._transport.origin, self._model
        try:
            if self._deadline is None:
                return await step
            async with asyncio.timeout(self._deadline - time.monotonic()):
                return await step
        except aiohttp.ConnectionTimeoutError:
            raise origin.late(model, "no connection within connect_timeout") from None
        except aiohttp.SocketTimeoutError:
            name = "idle_timeout" if self._stream else "answer_timeout"
            raise origin.late(model, f"nothing came within {name}") from None
        except TimeoutError:
            raise self._passed() from None
        except aiohttp.ServerDisconnectedError:
            raise origin.broken(model, "hung up without an answer") from None
        except aiohttp.ClientPayloadError:
            raise origin.broken(model, "the connection broke off in the middle of the answer") from None
        except aiohttp.ClientError as error:
            # the cause is dropped: it can hold the request's headers, and they the key
            raise origin.broken(model, str(error) or type(error).__name__) from None

    def _passed(self) -> ProviderError:
        return self._transport.origin.late(self._model, "the call's deadline has passed")

    def _too_long(self, what: str, limit: int) -> ProviderError:
        origin = self._transport.origin
        return Unavailable(
            f"{origin.name} ({self._model}): {what} is longer than the limit of {limit} bytes",
            provider=origin.name,
            model=self._model,
            retryable=False,
        )


async def _keep(
    loop: Loop, owner: weakref.ref[HttpTransport], headers: Mapping[str, str], settings: TransportSettings
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    session = aiohttp.ClientSession(
        # the gate in front bounds the connections, in order; the connector's own limit would cost twice
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        proxy=settings.proxy,
    )
    try:
        yield session
    finally:
        if (transport := owner()) is not None:
            transport.forget(loop)
        await session.close()


def _let_go(keeper: AsyncGenerator[aiohttp.ClientSession, None]) -> None:
    """Nothing: the reference that was held for this call is what goes."""


async def _first(content: aiohttp.StreamReader, limit: int) -> bytes:
    """The first ``limit`` bytes of a body, or all of it."""
    body = bytearray()
    while len(body) < limit and (chunk := await content.readany()):
        body += chunk
    return bytes(body[:limit])


def _timeout(settings: TransportSettings, read: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout, sock_read=read)


def _connections(settings: TransportSettings) -> int:
    if settings.connections is not None:
        return settings.connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1000 if files == resource.RLIM_INFINITY else max(1, min(1000, files // 2))


def _checked_url(base_url: str, origin: Origin) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"providers.{origin.name}.base_url is no http or https address")
    if url.user or url.password:
        # it would be shown wherever the address is
        raise ConfigError(f"providers.{origin.name}.base_url holds a user or password: use api_key_env")
    return url


def _check_proxy(proxy: str | None, origin: Origin) -> None:
    """Here, since aiohttp's own errors show the address with its password."""
    if proxy is None:
        return
    try:
        url = URL(proxy)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            f"the proxy for providers.{origin.name} (its own, or that of a variable such as HTTPS_PROXY) is no http or "
            "https address"
        )


def _checked_headers(headers: Mapping[str, str], origin: Origin) -> Mapping[str, str]:
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise ConfigError(
                f"providers.{origin.name}: the value of the header {name} has characters no header may hold"
            )
    return {**headers, "content-type": "application/json", "user-agent": "kaizen"}
