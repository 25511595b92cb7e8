"""Making connections: names, several addresses, encryption, proxies."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trustme

from kaizen.core.errors import Timeout, Unavailable
from kaizen.providers.http import dial
from tests.unit.providers.http.far import Ask, Far, call, calling, far, ok


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def shown(authority: trustme.CA) -> ssl.SSLContext:
    """What a server shows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1", "upstream.invalid").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client trusts."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# -- encryption -----------------------------------------------------------------------------------


async def test_an_encrypted_connection_is_kept_and_closed(shown: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async with far(ok(), tls=shown) as end:
        async with calling(f"https://127.0.0.1:{end.port}/v1", tls=trusting) as transport:
            assert [await call(transport) for _ in range(3)] == [b"hello"] * 3
            body = bytes(1_000_000)
            assert await call(transport, body) == b"hello"
            assert end.bodies[-1] == body
            assert end.accepted == 1
        await end.until(lambda: end.lost == 1)


async def test_a_large_encrypted_answer(shown: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    body = bytes(range(256)) * 20_000
    async with (
        far(ok(body), tls=shown) as end,
        calling(f"https://localhost:{end.port}", tls=trusting) as transport,
    ):
        assert await call(transport) == body
        assert await call(transport) == body
        assert end.accepted == 1


async def test_a_certificate_that_nobody_trusts(shown: ssl.SSLContext) -> None:
    async with far(ok(), tls=shown) as end, calling(f"https://127.0.0.1:{end.port}") as transport:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await call(transport)
        assert "\n" not in str(caught.value)
        assert end.heads == []


async def test_a_certificate_of_another(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(other)
    async with far(ok(), tls=other) as end, calling(f"https://127.0.0.1:{end.port}", tls=trusting) as transport:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await call(transport)


def test_one_context_a_process() -> None:
    assert dial.default_tls() is dial.default_tls()
    assert dial.default_tls().verify_mode == ssl.CERT_REQUIRED
    assert dial.default_tls().check_hostname


@asynccontextmanager
async def mute() -> AsyncGenerator[tuple[int, list[str]]]:
    """A server that takes connections and never says a word; its port, and what it saw."""
    seen: list[str] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append("came")
        with suppress(ConnectionError):
            while await reader.read(1000):
                pass
        seen.append("went")
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], seen


async def test_a_handshake_that_does_not_end_is_a_timeout() -> None:
    async with mute() as (port, seen), calling(f"https://127.0.0.1:{port}", connect_timeout=0.1) as transport:
        with pytest.raises(Timeout, match="connect_timeout"):
            await call(transport)
        with pytest.raises(Timeout, match="the call's deadline"):
            await call(transport, asked=Ask(deadline=time.monotonic() + 0.03))
        await Far([]).until(lambda: seen.count("went") == 2)


@pytest.mark.parametrize("through", [False, True])
async def test_a_call_cancelled_while_it_connects_closes_its_connection(through: bool) -> None:
    async with mute() as (port, seen):
        far_away: dict[str, Any] = {"proxy": f"http://127.0.0.1:{port}"} if through else {}
        url = "https://upstream.invalid" if through else f"https://127.0.0.1:{port}"
        async with calling(url, **far_away) as transport:
            task = asyncio.create_task(call(transport))
            await Far([]).until(lambda: seen == ["came"])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await Far([]).until(lambda: seen == ["came", "went"])


# -- names and addresses --------------------------------------------------------------------------


async def test_an_ipv6_server() -> None:
    async with far(ok(), host="::1") as end, calling(f"http://[::1]:{end.port}/v1") as transport:
        assert await call(transport) == b"hello"
        assert f"host: [::1]:{end.port}\r\n" in end.heads[0]


def answers(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int]) -> list[str]:
    """Have every name resolve to these; the names asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        time.sleep(0.02)
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address, _ in found]
        return [(family, socket.SOCK_STREAM, 6, "", one) for family, one in zip(families, found, strict=True)]

    monkeypatch.setattr(dial.socket, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_burst_asks_for_a_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with far(ok()) as end, calling("http://name.invalid") as transport:
        asked = answers(monkeypatch, ("127.0.0.1", end.port))
        first = asyncio.create_task(call(transport))
        others = [asyncio.create_task(call(transport)) for _ in range(20)]
        await asyncio.sleep(0.005)
        first.cancel()  # who asked goes; the others still get what he asked for
        assert await asyncio.gather(*others) == [b"hello"] * 20
        assert asked == ["name.invalid"]
        with suppress(asyncio.CancelledError):
            await first


async def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(dial.socket, "getaddrinfo", unknown)
    async with calling("http://name.invalid") as transport:
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"can't connect to name\.invalid:80: Name or service not known"):
                await call(transport)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


async def test_an_address_that_refuses_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with far(ok()) as end, calling("http://name.invalid") as transport:
        answers(monkeypatch, ("::1", free_port()), ("127.0.0.1", free_port()), ("127.0.0.1", end.port))
        assert await call(transport) == b"hello"


async def test_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with calling("http://name.invalid") as transport:
        answers(monkeypatch, ("::1", free_port()), ("127.0.0.1", free_port()))
        with pytest.raises(Unavailable, match="can't connect to name"):
            await call(transport)


@pytest.mark.alone
async def test_an_address_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, socket.socket | None]] = []
    connected = dial._connected

    async def slow(found: dial.Found) -> socket.socket:
        made.append((found[4][0], None))
        await asyncio.sleep(60 if ":" in found[4][0] else 0)
        return await connected(found)

    monkeypatch.setattr(dial, "_connected", slow)
    async with far(ok()) as end, calling("http://name.invalid") as transport:
        answers(monkeypatch, ("::1", 1), ("::1", 2), ("127.0.0.1", end.port))
        begun = time.monotonic()
        assert await call(transport) == b"hello"
        assert 0.2 < time.monotonic() - begun < 1
        assert [address for address, _ in made] == ["::1", "127.0.0.1"]  # the families in turn


async def test_who_comes_second_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets: list[socket.socket] = []
    connected = dial._connected

    async def together(found: dial.Found) -> socket.socket:
        await asyncio.sleep(0.3 if not sockets else 0.05)
        sock = await connected(found)
        sockets.append(sock)
        return sock

    monkeypatch.setattr(dial, "_connected", together)
    monkeypatch.setattr(dial, "_STAGGER", 0.0)
    async with far(ok()) as end, calling("http://name.invalid") as transport:
        answers(monkeypatch, ("127.0.0.1", end.port), ("127.0.0.1", end.port))
        assert await call(transport) == b"hello"
        assert sum(sock.fileno() != -1 for sock in sockets) <= 1


# -- proxies --------------------------------------------------------------------------------------


async def relay(end: Far, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a proxy does after its yes."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", end.port)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    try:
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
    finally:
        far_writer.transport.abort()


@asynccontextmanager
async def proxy(end: Far, answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncGenerator[tuple[int, list[str]]]:
    """A proxy that answers CONNECT so; its port, and the heads it got."""
    heads: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.extend(task for task in [asyncio.current_task()] if task)
        try:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(answer)
            await writer.drain()
            if b" 200 " in answer:
                await relay(end, reader, writer)
            writer.close()
            await writer.wait_closed()
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], heads
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


YES = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_tunnel(scheme: str, shown: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async with (
        far(ok(), tls=shown) as end,
        proxy(end, YES, shown if scheme == "https" else None) as (port, heads),
        calling(
            "https://upstream.invalid/v1",
            tls=trusting,
            headers={"authorization": "Bearer k"},
            proxy=f"{scheme}://me:pa55word@127.0.0.1:{port}",
        ) as transport,
    ):
        assert [await call(transport) for _ in range(2)] == [b"hello"] * 2
        assert len(heads) == end.accepted == 1
        assert heads[0].startswith("CONNECT upstream.invalid:443 HTTP/1.1\r\n")
        token = base64.b64encode(b"me:pa55word").decode()
        assert f"proxy-authorization: Basic {token}\r\n" in heads[0]
        assert "Bearer" not in heads[0]
        assert "proxy-authorization" not in end.heads[0]
        assert end.heads[0].startswith("POST /v1/x HTTP/1.1\r\n")
        assert "\r\nhost: upstream.invalid\r\n" in end.heads[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Who are you?\r\n\r\n", "the proxy answered 407 Who are you"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "the proxy answered 302"),
        (b"SSH-2.0\r\n\r\n", r"what is no HTTP/1\.1"),
        (b"HTTP/1.1 204 OK\r\n\r\nearly", "more than its answer"),
        (b"HTTP/1.1 204 OK\r\nx: " + b"a" * 70_000, "too long"),
        (b"HTTP/1.1 2", "the proxy hung up"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(answer: bytes, words: str) -> None:
    async with (
        far(ok()) as end,
        proxy(end, answer) as (port, _),
        calling("https://upstream.invalid", proxy=f"http://me:pa55word@127.0.0.1:{port}") as transport,
    ):
        with pytest.raises(Unavailable, match=words) as caught:
            await call(transport)
        assert "pa55word" not in f"{caught.value} {caught.value.detail}"
        assert end.heads == []


async def test_a_plain_proxy_is_told_who_asks() -> None:
    async with (
        far(ok()) as end,
        calling("http://upstream.invalid/v1", proxy=f"http://me:pw@127.0.0.1:{end.port}") as transport,
    ):
        assert await call(transport) == b"hello"
        assert end.heads[0].startswith("POST http://upstream.invalid/v1/x HTTP/1.1\r\n")
        assert "proxy-authorization: Basic bWU6cHc=\r\n" in end.heads[0]


async def test_a_proxy_that_is_not_there_is_named_without_its_password() -> None:
    async with calling("https://upstream.invalid", proxy=f"http://me:pw@127.0.0.1:{free_port()}") as transport:
        with pytest.raises(Unavailable, match=r"can't connect to the proxy 127\.0\.0\.1") as caught:
            await call(transport)
        assert "pw" not in str(caught.value)


# -- loops ----------------------------------------------------------------------------------------


def test_loops_in_threads_share_a_transport_and_no_connection() -> None:
    async def serve_and_call() -> None:
        async with far(ok()) as end, calling(end.url) as transport:
            failed: list[BaseException] = []

            async def several() -> None:
                assert await asyncio.gather(*(call(transport) for _ in range(5))) == [b"hello"] * 5

            def elsewhere() -> None:
                try:
                    asyncio.run(several())
                except BaseException as error:  # noqa: BLE001 - told by the thread that asks
                    failed.append(error)

            threads = [threading.Thread(target=elsewhere) for _ in range(3)]
            for thread in threads:
                thread.start()
            await several()
            await end.until(lambda: not any(thread.is_alive() for thread in threads))
            assert not failed
            await end.until(lambda: end.lost == 15)  # those of the loops that ended
            assert end.accepted == 20

    asyncio.run(serve_and_call())
