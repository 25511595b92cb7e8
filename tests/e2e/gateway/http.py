"""A plain HTTP client over one socket, so that a test sees what is sent."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.e2e.gateway.conftest import Running


@dataclass(frozen=True)
class Answer:
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @classmethod
    def read(cls, connection: socket.socket) -> Answer:
        """The whole answer; the connection is closed."""
        with connection:
            data = b""
            while piece := connection.recv(65_536):
                data += piece
                head, mark, body = data.partition(b"\r\n\r\n")
                if mark and (whole := cls._whole(head, body)) is not None:
                    return whole
        raise AssertionError(f"the answer is cut: {data!r}")

    @classmethod
    def _whole(cls, head: bytes, body: bytes) -> Answer | None:
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        if headers.get("transfer-encoding") == "chunked":
            return cls(status, headers, _joined(body)) if body.endswith(b"\r\n0\r\n\r\n") else None
        return cls(status, headers, body) if len(body) >= int(headers.get("content-length", 0)) else None


def ask(
    here: Running,
    path: str,
    body: Any = None,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> socket.socket:
    """Send a request."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {**({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
    if "transfer-encoding" not in given:
        given["content-length"] = str(len(data))
    given.setdefault("content-type", "application/json")
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", *(f"{name}: {value}" for name, value in given.items())]
    host, _, port = here.address.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    return connection


def post(here: Running, path: str, body: Any = None, **options: Any) -> Answer:
    """Send a request and read its answer."""
    return Answer.read(ask(here, path, body, **options))


def _joined(chunked: bytes) -> bytes:
    out = b""
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        length = int(size, 16)
        out, chunked = out + rest[:length], rest[length + 2 :]
    return out
