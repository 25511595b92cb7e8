from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from kaizen.core.errors import ConfigError, RateLimited, Timeout, Unavailable
from kaizen.core.message import Media, Message
from kaizen.core.request import Request
from kaizen.core.scope import LOCAL
from kaizen.providers.anthropic import AnthropicProvider
from kaizen.providers.errors import Origin
from kaizen.providers.http import Gate, HttpTransport, TransportSettings
from kaizen.providers.openai import OpenAIProvider
from kaizen.testing.fault_server import Fault, FaultServer, slow, status
from kaizen.testing.provider_suite import read

REQUEST = Request(scope=LOCAL, model="mine/m", messages=(Message.of("user", "hello"),))


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer("Hey") as server:
        yield server


def provider(server: FaultServer, **settings: object) -> OpenAIProvider:
    return OpenAIProvider("mine", base_url=server.base_url, transport=TransportSettings(**settings))  # type: ignore[arg-type]


@asynccontextmanager
async def served(pieces: list[bytes]) -> AsyncGenerator[int]:
    """A server that sends these, one every 20 ms, to whoever comes; its port."""
    calls: list[asyncio.Task[None]] = []

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.extend(task for task in [asyncio.current_task()] if task)
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(send, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*calls)


# -- the gate -------------------------------------------------------------------------------------


async def test_the_gate_lets_in_no_more_than_it_may_and_in_order() -> None:
    gate, inside, order = Gate(3), 0, list[int]()

    async def pass_through(number: int) -> None:
        nonlocal inside
        await gate.enter()
        inside += 1
        assert inside <= 3
        order.append(number)
        await asyncio.sleep(0)
        inside -= 1
        gate.leave()

    await asyncio.gather(*(pass_through(number) for number in range(50)))
    assert order == list(range(50))


async def test_a_cancelled_waiter_keeps_no_turn() -> None:
    gate = Gate(1)
    await gate.enter()
    waiters = [asyncio.create_task(gate.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()  # while it waits
    gate.leave()
    waiters[1].cancel()  # its turn has come, but it has not run yet
    await asyncio.wait_for(waiters[2], 1)
    assert [waiter.cancelled() for waiter in waiters] == [True, True, False]
    gate.leave()
    await asyncio.wait_for(gate.enter(), 1)


async def test_calls_are_bounded(server: FaultServer) -> None:
    server.default = slow(0.02)
    asked = provider(server, connections=2)
    replies = await asyncio.gather(*(asked.complete(REQUEST) for _ in range(10)))
    assert {reply.text for reply in replies} == {"Hey"}
    assert server.connections == 2


@pytest.mark.parametrize(("files", "expected"), [(100, 50), (1_000_000, 1000), (resource.RLIM_INFINITY, 1000), (1, 1)])
async def test_the_default_bound(monkeypatch: pytest.MonkeyPatch, files: int, expected: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    transport = HttpTransport("http://127.0.0.1:1/v1", {}, Origin("mine"), TransportSettings())
    gate = (await transport.pool()).gate
    for _ in range(expected):
        await asyncio.wait_for(gate.enter(), 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gate.enter(), 0.01)


# -- settings and secrets -------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "localhost:1", "ftp://x/v1", "http://", "http://[::1", "http://u:pw@h/v1"])
def test_a_base_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"providers\.mine\.base_url") as caught:
        OpenAIProvider("mine", base_url=url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-1\n", "sk-\r\nx: y", "ключ"])
def test_a_key_that_no_header_may_hold(key: str) -> None:
    for kind in (OpenAIProvider, AnthropicProvider):
        with pytest.raises(ConfigError, match=r"providers\.mine") as caught:
            kind("mine", base_url="http://127.0.0.1:1", api_key=key)
        assert key not in str(caught.value)


def test_what_is_shown_of_a_provider() -> None:
    shown = repr(OpenAIProvider("mine", base_url="https://example.org/v1?key=sk-secret", api_key="sk-secret"))
    assert shown == "OpenAIProvider('mine', base_url='https://example.org/v1')"
    assert repr(AnthropicProvider("a")) == "AnthropicProvider('a', base_url='https://api.anthropic.com/v1')"
    assert "pw" not in repr(TransportSettings(proxy="http://u:pw@proxy"))


@pytest.mark.parametrize(
    ("base_url", "field"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://127.0.0.1:11434/v1", "max_tokens"),
    ],
)
def test_the_bound_goes_by_the_name_the_host_knows(base_url: str, field: str) -> None:
    request = replace(REQUEST, decoding=replace(REQUEST.decoding, max_tokens=5))
    wire = OpenAIProvider("mine", base_url=base_url)._wire
    assert f'"{field}":5'.encode() in wire.encode(request, stream=False)


# -- on the wire ----------------------------------------------------------------------------------


async def test_the_query_of_the_base_url_is_kept(server: FaultServer) -> None:
    asked = OpenAIProvider("mine", base_url=f"{server.base_url}/?version=1")
    await asked.complete(REQUEST)
    assert server.calls[0].path == "/v1/chat/completions?version=1"


async def test_headers(server: FaultServer) -> None:
    await OpenAIProvider("mine", base_url=server.base_url, api_key="sk-1").complete(REQUEST)
    await AnthropicProvider("mine", base_url=server.base_url, api_key="sk-2").complete(REQUEST)
    await OpenAIProvider("mine", base_url=server.base_url).complete(REQUEST)
    first, second, third = (call.headers for call in server.calls)
    assert (first["authorization"], first["content-type"]) == ("Bearer sk-1", "application/json")
    assert (second["x-api-key"], second["anthropic-version"]) == ("sk-2", "2023-06-01")
    assert "authorization" not in third


async def test_a_large_request(server: FaultServer) -> None:
    image = Media("image", "image/png", data="a" * 3_000_000)
    await provider(server).complete(replace(REQUEST, messages=(Message("user", (image,)),)))
    assert len(server.calls[0].body) > 3_000_000


async def test_nobody_there() -> None:
    asked = OpenAIProvider("mine", base_url="http://127.0.0.1:1/v1")
    for call in (asked.complete(REQUEST), read(asked, REQUEST)):
        with pytest.raises(Unavailable, match="mine/m"):
            await call


async def test_an_answer_that_does_not_come(server: FaultServer) -> None:
    server.queue(Fault("never"), Fault("never"))
    asked = provider(server, answer_timeout=0.1, idle_timeout=0.05)
    with pytest.raises(Timeout, match="answer_timeout"):
        await asked.complete(REQUEST)
    with pytest.raises(Timeout, match="idle_timeout"):
        await read(asked, REQUEST)
    await server.until(lambda: server.cuts == 2)


async def test_a_stream_that_pauses_too_long(server: FaultServer) -> None:
    server.queue(Fault("drip", delay=0.3))
    with pytest.raises(Timeout, match="idle_timeout"):
        await read(provider(server, idle_timeout=0.1), REQUEST)


async def test_a_proxy_is_asked(server: FaultServer) -> None:
    asked = OpenAIProvider(
        "mine", base_url="http://upstream.invalid/v1", transport=TransportSettings(proxy=server.address)
    )
    assert (await asked.complete(REQUEST)).text == "Hey"
    assert server.calls[0].path == "http://upstream.invalid/v1/chat/completions"


@pytest.mark.parametrize(
    "proxy", ["socks5://me:pa55word@p:1", "me:pa55word@p:1", "http://me:pa55word@:99999", "http://me:pa55word@["]
)
def test_a_proxy_of_another_kind_is_refused_without_its_password(proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"proxy for providers\.mine") as caught:
        OpenAIProvider("mine", transport=TransportSettings(proxy=proxy))
    assert "pa55word" not in str(caught.value)


async def test_a_proxy_that_refuses_is_told_without_its_password() -> None:
    async with served([b"HTTP/1.1 407 Who are you?\r\ncontent-length: 0\r\n\r\n"]) as port:
        settings = TransportSettings(proxy=f"http://me:pa55word@127.0.0.1:{port}")
        asked = OpenAIProvider("mine", base_url="https://upstream.invalid/v1", transport=settings)
        with pytest.raises(Unavailable, match="407") as caught:
            await asked.complete(REQUEST)
        assert "pa55word" not in f"{caught.value} {caught.value.detail}"
        await asked._transport.close()


async def test_the_limit_of_a_whole_stream(server: FaultServer) -> None:
    event = 'data: {"choices":[{"delta":{"content":"xxxxxxxxxxxxxxxxxxxx"}}]}\n\n'
    server.queue(Fault("events", message=event * 1000))
    with pytest.raises(Unavailable, match="the stream is longer than the limit of 800 bytes") as caught:
        await read(provider(server, max_body=100), REQUEST)
    assert not caught.value.retryable


async def test_a_body_that_drips_for_ever() -> None:
    async with served([b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", *[b" "] * 500]) as port:
        settings = TransportSettings(answer_timeout=0.3)
        asked = OpenAIProvider("mine", base_url=f"http://127.0.0.1:{port}/v1", transport=settings)
        with pytest.raises(Timeout, match="did not end in time"):
            await asyncio.wait_for(asked.complete(REQUEST), 5)
        await asked._transport.close()


async def test_the_limit_of_a_body(server: FaultServer) -> None:
    asked = provider(server, max_body=100)
    with pytest.raises(Unavailable, match="the answer is longer than the limit of 100 bytes"):
        await asked.complete(REQUEST)
    with pytest.raises(Unavailable, match="an event is longer than the limit of 100 bytes"):
        await read(asked, REQUEST)


async def test_an_error_with_a_huge_body_is_still_told(server: FaultServer) -> None:
    server.queue(status(429, message="x" * 1_000_000, retry_after="3"))
    with pytest.raises(RateLimited) as caught:
        await provider(server, max_body=100).complete(REQUEST)
    assert caught.value.retry_after == 3
    assert len(str(caught.value)) < 400


async def test_closing_by_hand(server: FaultServer) -> None:
    transport = HttpTransport(server.base_url, {}, Origin("mine"), TransportSettings())
    await transport.close()  # nothing is open yet
    async with transport.open("/chat/completions", b"{}", REQUEST) as answer:
        assert answer.status == 200
        assert await answer.read()
    assert server.open_connections == 1
    await transport.close()
    await server.until(lambda: server.open_connections == 0)


async def test_an_answer_is_read_inside_its_block(server: FaultServer) -> None:
    transport = HttpTransport(server.base_url, {}, Origin("mine"), TransportSettings())
    with pytest.raises(RuntimeError, match="async with"):
        await transport.open("/chat/completions", b"{}", REQUEST).read()
