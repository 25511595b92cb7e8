"""One HTTP request and its answer, as ASGI brings them. The hot path: one pass, bytes, no framework."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

from kaizen.core.identity import Identity
from kaizen.core.request import Reply
from kaizen.serve.http.problem import Problem, Refused

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
EVENTS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx collects a stream before it hands it on
)
_ID_CHARACTERS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+=")
_ID_LENGTH: Final = 128
_NONE: Final[dict[str, Any]] = {}
_numbers = itertools.count(1)


class Gone(Exception):
    """The caller went away; nobody reads an answer."""


class Call:
    """A request on its way.

    Attributes:
        path, method: what was asked for.
        headers: by lower-case name; of several with one name, the last.
        id: the caller's ``x-request-id``, or one of ours; it is on the answer.
        begun: ``time.perf_counter()`` when it came.
        identity: who calls, once that is known.
        started: whether the answer's head was sent.
        status: of the answer.
        error: the code of the error it ended with.
        reply: what a model answered.
    """

    __slots__ = (
        "_link",
        "_receive",
        "_send",
        "begun",
        "error",
        "headers",
        "id",
        "identity",
        "method",
        "path",
        "query",
        "reply",
        "started",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        extensions = scope.get("extensions") or _NONE
        connection = extensions.get("kaizen.connection")
        self._link = None if connection is None else (connection, extensions["kaizen.cycle"])
        self.begun = time.perf_counter()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = _named(self.headers.get(b"x-request-id"))
        self.identity: Identity | None = None
        self.started = False
        self.status = 0
        self.error: str | None = None
        self.reply: Reply | None = None

    async def body(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            Refused: if it is longer than ``limit`` bytes.
            Gone: if the caller went away before its end.
        """
        announced = self.headers.get(b"content-length")
        # compared by length first: int() of a million digits takes its time
        if announced is not None and (len(announced) > 18 or not announced.isdigit() or int(announced) > limit):
            raise _too_large(limit)
        link = self._link
        data: bytes | None = None if link is None else link[0].whole_body(link[1])
        if data is None:
            data = await self._gathered(limit)
        if len(data) > limit:
            raise _too_large(limit)
        return data

    async def _gathered(self, limit: int) -> bytes:
        """The body as it comes, no more than a piece longer than the limit."""
        pieces: list[bytes] = []
        size, more = 0, True
        while more and size <= limit:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            pieces.append(piece := message.get("body", b""))
            size, more = size + len(piece), message.get("more_body", False)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def answer(self, status: int, data: bytes, headers: Headers = (JSON,)) -> None:
        """Send a whole answer."""
        self.started, self.status = True, status
        head = [*headers, (b"content-length", b"%d" % len(data)), (b"x-request-id", self.id)]
        link = self._link
        if status == 200 and link is not None and link[0].respond(link[1], head, data):
            return
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": data})

    async def open(self, headers: Headers, data: bytes = b"", *, events: bool = True) -> None:
        """Begin an event stream, or another one whose type the headers say, with its first piece."""
        self.started, self.status = True, 200
        head = [*(EVENTS if events else ()), *headers, (b"x-request-id", self.id)]
        link = self._link
        if data and link is not None and link[0].begin(link[1], head, data):
            return
        await self._send({"type": "http.response.start", "status": 200, "headers": head})
        if data:
            await self.write(data)

    async def write(self, data: bytes) -> None:
        """Send a piece of a stream; waits while the caller does not keep up."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of a stream."""
        await self._send({"type": "http.response.body", "body": data})

    async def refuse(self, problem: Problem, data: bytes) -> None:
        """Send an error."""
        headers: list[tuple[bytes, bytes]] = [JSON]
        if problem.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="kaizen"'))
        wait = problem.retry_after
        if wait is not None and math.isfinite(wait):
            headers.append((b"retry-after", b"%d" % math.ceil(max(0.0, wait))))
        if not problem.retryable:
            # the SDKs of both vendors ask again for every 5xx, 409 and 429 unless they are told
            headers.append((b"x-should-retry", b"false"))
        if problem.status in (408, 413):
            headers.append((b"connection", b"close"))  # what is left of the body is not read
        await self.answer(problem.status, data, headers)


def watch(scope: Scope) -> None:
    """Have the task that answers be cancelled when the caller goes away; see ``protocol.Connection``."""
    extensions = scope.get("extensions") or _NONE
    connection = extensions.get("kaizen.connection")
    if connection is not None:
        connection.answering = extensions["kaizen.cycle"].task


def release(scope: Scope) -> None:
    """Let go of what holds the scope: a ring of objects would wait for the collector, and everybody for its run."""
    extensions = scope.get("extensions")
    if extensions is not None:
        extensions.pop("kaizen.cycle", None)


def _named(given: bytes | None) -> bytes:
    if given is not None and 0 < len(given) <= _ID_LENGTH and _ID_CHARACTERS.issuperset(given):
        return given
    return b"%b-%x" % (_process, next(_numbers))


def _name_process() -> None:
    """Tells this process's requests from those of others; anew after a fork."""
    global _process
    _process = os.urandom(8).hex().encode()


_process = b""
_name_process()
os.register_at_fork(after_in_child=_name_process)


def _too_large(limit: int) -> Refused:
    return Refused(413, "too_large", f"the body has more than the {limit} bytes that this gateway takes")
