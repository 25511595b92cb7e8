"""No test reaches past loopback."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from kaizen.providers.errors import Origin
from kaizen.providers.http import HttpTransport, TransportSettings

ELSEWHERE = "192.0.2.1"  # RFC 5737: an address that is nobody's


def client(url: str) -> HttpTransport:
    return HttpTransport(url, {}, Origin("mine"), TransportSettings())


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_sockets_stay_on_the_machine() -> None:
    with pytest.raises(RuntimeError, match="A test tried to use socket"):
        socket.create_connection((ELSEWHERE, 80), timeout=1)


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
async def test_the_http_client_stays_on_the_machine() -> None:
    with pytest.raises(RuntimeError, match="A test tried to use socket"):
        async with client(f"http://{ELSEWHERE}").get("/"):
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_loopback_is_open(host: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, host, 0)
    address = f"[{host}]" if ":" in host else host
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with client(f"http://{address}:{port}").get("/") as answer:
            assert answer.status == 204
        _reader, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()


def test_unix_sockets_are_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
