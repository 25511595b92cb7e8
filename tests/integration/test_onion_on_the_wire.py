"""The onion round real adapters and a real server that misbehaves: how often it was asked, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kaizen.core.errors import AuthFailed, ProviderError, RateLimited, Timeout, Unavailable
from kaizen.core.message import Message
from kaizen.core.protocols import Provider
from kaizen.core.request import Reply, Request
from kaizen.core.scope import LOCAL
from kaizen.inference.endpoint import Endpoint
from kaizen.inference.onion import build_onion
from kaizen.inference.prices import Price, PriceTable
from kaizen.inference.retry import Retries
from kaizen.providers.anthropic import AnthropicProvider
from kaizen.providers.openai import OpenAIProvider
from kaizen.testing.fault_server import Fault, FaultServer, status

HELLO = Request(scope=LOCAL, model="chat/large", messages=(Message.of("user", "hello"),))
KINDS = ("chat", "responses", "messages")
# An App holds its onion as long as it lives. So do these tests: past their loops, whose end closes the connections.
HELD: list[Provider] = []


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def onion(server: FaultServer, *, attempts: int = 3) -> Provider:
    provider = build_onion(
        {
            "chat": lambda: OpenAIProvider("chat", base_url=server.base_url),
            "responses": lambda: OpenAIProvider("responses", base_url=server.base_url, api="responses"),
            "messages": lambda: AnthropicProvider("messages", base_url=server.base_url),
        },
        prices=PriceTable(
            {"chat/large": Price.per_mtok(10.0, 30.0)}, {"messages": Endpoint("anthropic", server.base_url)}
        ),
        retries=Retries(attempts=attempts, backoff=0.01),
    )
    HELD.append(provider)
    return provider


async def whole(provider: Provider, request: Request, *, stream: bool) -> Reply:
    if not stream:
        return await provider.complete(request)
    chunks = [chunk async for chunk in provider.stream(request)]
    assert all(chunk.reply is None for chunk in chunks[:-1])
    assert chunks[-1].reply is not None
    return chunks[-1].reply


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", KINDS)
async def test_503_twice_then_200(server: FaultServer, kind: str, stream: bool) -> None:
    server.queue(status(503), status(503))
    reply = await whole(onion(server), replace(HELLO, model=f"{kind}/large"), stream=stream)
    assert (reply.attempts, server.count) == (3, 3)
    assert "fault server" in reply.text


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_may_pass_is_asked_three_times(server: FaultServer, kind: str, code: int) -> None:
    server.queue(*[status(code)] * 5)
    with pytest.raises(ProviderError) as caught:
        await onion(server).complete(replace(HELLO, model=f"{kind}/large"))
    assert server.count == 3
    assert caught.value.detail["attempts"] == 3
    assert caught.value.upstream_status == code


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
@pytest.mark.parametrize("kind", KINDS)
async def test_any_other_refusal_is_one_call(server: FaultServer, kind: str, code: int) -> None:
    server.queue(*[status(code)] * 5)
    with pytest.raises(ProviderError) as caught:
        await onion(server).complete(replace(HELLO, model=f"{kind}/large"))
    assert (server.count, caught.value.detail["attempts"]) == (1, 1)
    assert isinstance(caught.value, AuthFailed) == (code in (401, 403))


@pytest.mark.parametrize("kind", ["hangup", "headers", "truncated"])
async def test_a_connection_that_breaks_is_asked_again(server: FaultServer, kind: str) -> None:
    server.queue(Fault(kind))  # type: ignore[arg-type]
    reply = await onion(server).complete(HELLO)
    assert (reply.attempts, server.count) == (2, 2)


async def test_a_stream_that_breaks_after_its_first_chunk_is_not_begun_again(server: FaultServer) -> None:
    server.queue(Fault("truncated"))
    seen: list[str] = []

    async def read() -> None:
        async for chunk in onion(server).stream(HELLO):
            seen.append(chunk.text)  # noqa: PERF401 - what came before the error is what counts

    with pytest.raises(Unavailable) as caught:
        await read()
    assert seen
    assert (server.count, caught.value.detail["attempts"]) == (1, 1)


async def test_the_wait_that_a_provider_asks_for(server: FaultServer) -> None:
    server.queue(status(429, retry_after="1"))
    begun = time.monotonic()
    reply = await onion(server).complete(HELLO)
    assert (reply.attempts, server.count) == (2, 2)
    assert 1.0 <= time.monotonic() - begun < 5.0


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [("61", None), ("20", 10.0)], ids=["beyond bound", "beyond deadline"]
)
async def test_too_long_a_wait_is_not_begun(server: FaultServer, retry_after: str, seconds: float | None) -> None:
    server.queue(status(429, retry_after=retry_after))
    begun = time.monotonic()
    deadline = None if seconds is None else begun + seconds
    with pytest.raises(RateLimited) as caught:
        await onion(server).complete(replace(HELLO, deadline=deadline))
    assert (server.count, caught.value.detail["attempts"]) == (1, 1)
    assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_server_that_never_answers_is_left_at_the_deadline(server: FaultServer, stream: bool) -> None:
    server.queue(*[Fault("never")] * 3)
    begun = time.monotonic()
    with pytest.raises(Timeout):
        await whole(onion(server), replace(HELLO, deadline=begun + 0.3), stream=stream)
    assert 0.25 <= time.monotonic() - begun < 5.0
    assert server.count == 1
    await server.until(lambda: server.cuts == 1)


async def test_cancelling_cuts_the_call(server: FaultServer) -> None:
    server.queue(Fault("never"))
    task = asyncio.create_task(onion(server).complete(HELLO))
    await server.until(lambda: server.count == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.until(lambda: server.cuts == 1)
    assert server.count == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_cost_is_that_of_the_counted_tokens(server: FaultServer, stream: bool) -> None:
    reply = await whole(onion(server), HELLO, stream=stream)
    usage = reply.usage
    assert usage.tokens_in > 0
    assert usage.tokens_out > 0
    assert reply.cost_usd == pytest.approx((usage.tokens_in * 10.0 + usage.tokens_out * 30.0) / 1e6)
    assert (await onion(server).complete(replace(HELLO, model="messages/large"))).cost_usd is None


async def test_switched_off_there_is_one_call(server: FaultServer) -> None:
    server.queue(status(503))
    with pytest.raises(Unavailable):
        await onion(server, attempts=1).complete(HELLO)
    assert server.count == 1
