"""What every Provider has to do, as tests: subclass, give the fixtures, and pytest collects them.

``ProviderSuite`` asks nothing but that a model answers; ``WireSuite`` adds what a provider over HTTP does
when the far side misbehaves, with a ``FaultServer`` on the other end::

    class TestMine(ProviderSuite):
        @pytest.fixture
        def provider(self) -> Provider:
            return MyProvider()

Async tests need a plugin that runs them, such as anyio's with ``anyio_mode = "auto"``.
"""
# ruff: noqa: S101, D102 - these are tests, and their names say what they show

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any, ClassVar, cast

import pytest
from pydantic_core import from_json

from kaizen.core.errors import (
    AuthFailed,
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    RateLimited,
    Timeout,
    Unavailable,
)
from kaizen.core.message import Message
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Decoding, OutputSchema, Reply, Request, ToolSpec
from kaizen.core.scope import LOCAL
from kaizen.testing.fault_server import Fault, FaultServer, status

WEATHER = ToolSpec(
    "weather",
    "The weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
ROUTE = OutputSchema(
    "route",
    {
        "type": "object",
        "properties": {"team": {"enum": ["cards", "transfers"], "type": "string"}, "sure": {"type": "boolean"}},
        "required": ["team", "sure"],
        "additionalProperties": False,
    },
)


async def read(provider: Provider, request: Request) -> tuple[list[str], Reply]:
    """The texts of a stream and the Reply it ends with; a Reply anywhere else fails the test."""
    chunks = [chunk async for chunk in provider.stream(request)]
    assert [chunk.reply is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    last = chunks[-1].reply
    assert last is not None
    assert chunks[-1].text == ""
    return [chunk.text for chunk in chunks[:-1]], last


def ways(provider: Provider) -> tuple[Callable[[Request], Awaitable[object]], ...]:
    """The two ways to ask: whole, and streamed to the end."""
    return provider.complete, lambda request: read(provider, request)


class ProviderSuite:
    """Subclasses give the fixture ``provider`` and, where the defaults do not fit, these.

    Attributes:
        model: ref of a model the provider serves.
        long: how many tokens keep the model busy for more than a tenth of a second, or None where none do.
        bounded: whether ``finish`` is "length" when ``max_tokens`` cut the answer.
        structured: whether an output schema is enforced.
        tools: whether a required tool is called.
        logprobs: whether log-probabilities are offered.
        timed: whether a stream's Reply says when its first token came.
    """

    model: ClassVar[str] = "mine/any"
    long: ClassVar[int | None] = 400
    bounded: ClassVar[bool] = True
    structured: ClassVar[bool] = True
    tools: ClassVar[bool] = True
    logprobs: ClassVar[bool] = True
    timed: ClassVar[bool] = True

    def request(self, *, max_tokens: int = 12, **changes: Any) -> Request:
        """A request to greet, decoded greedily."""
        messages = (Message.of("system", "You are brief."), Message.of("user", "Say hello to the team."))
        request = Request(
            scope=LOCAL,
            model=self.model,
            messages=messages,
            decoding=Decoding(temperature=0, max_tokens=max_tokens),
        )
        return replace(request, **changes)

    async def test_complete_gives_a_reply_with_counted_usage(self, provider: Provider) -> None:
        reply = await provider.complete(self.request())
        assert reply.text
        assert reply.model == self.model
        assert reply.finish in ("stop", "length")
        assert reply.usage.tokens_in > 0
        assert reply.usage.tokens_out > 0
        assert reply.usage.tokens_cached <= reply.usage.tokens_in
        assert not reply.usage.estimated
        assert reply.first_token_ms is None

    async def test_stream_ends_with_the_one_reply_that_complete_gives(self, provider: Provider) -> None:
        whole = await provider.complete(self.request())
        texts, reply = await read(provider, self.request())
        assert all(texts)
        assert "".join(texts) == reply.text == whole.text
        assert (reply.finish, reply.tool_calls) == (whole.finish, whole.tool_calls)
        assert reply.usage.tokens_in == whole.usage.tokens_in
        assert reply.usage.tokens_out == whole.usage.tokens_out
        assert not reply.usage.estimated
        assert not self.timed or (reply.first_token_ms or 0) > 0

    async def test_max_tokens_bounds_the_answer(self, provider: Provider) -> None:
        if not self.bounded:
            pytest.skip("the provider does not say that it was cut")
        reply = await provider.complete(self.request(max_tokens=2))
        assert (reply.finish, reply.usage.tokens_out) == ("length", 2)

    async def test_many_at_once(self, provider: Provider) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(provider.complete(self.request(max_tokens=4))) for _ in range(8)]
        assert len({task.result().text for task in tasks}) == 1

    async def test_an_output_schema_is_enforced(self, provider: Provider) -> None:
        if not self.structured:
            pytest.skip("the provider does not enforce schemas")
        request = self.request(output=ROUTE, max_tokens=100)
        for reply in (await provider.complete(request), (await read(provider, request))[1]):
            answer = from_json(reply.text)
            assert set(answer) == {"team", "sure"}
            assert answer["team"] in ("cards", "transfers")
            assert isinstance(answer["sure"], bool)

    async def test_a_required_tool_is_called(self, provider: Provider) -> None:
        if not self.tools:
            pytest.skip("the provider does not call tools")
        request = self.request(tools=(WEATHER,), tool_choice="required", max_tokens=100)
        for reply in (await provider.complete(request), (await read(provider, request))[1]):
            assert reply.finish == "tool_calls"
            assert [call.name for call in reply.tool_calls] == ["weather"]
            assert reply.tool_calls[0].id
            assert set(from_json(reply.tool_calls[0].arguments)) == {"city"}

    async def test_log_probabilities(self, provider: Provider) -> None:
        if not self.logprobs:
            pytest.skip("the provider has no log-probabilities")
        request = self.request(top_logprobs=2, max_tokens=3)
        for reply in (await provider.complete(request), (await read(provider, request))[1]):
            assert "".join(token.token for token in reply.logprobs) == reply.text
            assert all(token.logprob <= 0 and len(token.top) == 2 for token in reply.logprobs)

    async def test_a_deadline_that_has_passed_is_a_timeout(self, provider: Provider) -> None:
        request = self.request(deadline=time.monotonic() - 1)
        with pytest.raises(Timeout):
            await provider.complete(request)
        with pytest.raises(Timeout):
            await read(provider, request)

    async def test_a_deadline_that_passes_is_a_timeout(self, provider: Provider) -> None:
        if self.long is None:
            pytest.skip("the provider answers at once")
        await provider.complete(self.request(max_tokens=1))  # what is loaded at first use is loaded now
        for call in ways(provider):
            begun = time.monotonic()
            with pytest.raises(Timeout):
                await call(self.request(max_tokens=self.long, deadline=begun + 0.1))
            assert time.monotonic() - begun < 2

    async def test_a_cancelled_call_ends_and_the_next_is_answered(self, provider: Provider) -> None:
        await provider.complete(self.request(max_tokens=1))
        task = asyncio.create_task(provider.complete(self.request(max_tokens=self.long or 12)))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task], timeout=2)
        assert task.done()
        assert (await provider.complete(self.request())).text

    async def test_a_stream_may_be_left(self, provider: Provider) -> None:
        stream = cast("AsyncGenerator[Chunk, None]", provider.stream(self.request(max_tokens=self.long or 12)))
        assert (await anext(stream)).text
        await asyncio.wait_for(stream.aclose(), 2)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert (await provider.complete(self.request())).text

    def test_loops_one_after_another(self, provider: Provider) -> None:
        texts = [asyncio.run(provider.complete(self.request())).text for _ in range(3)]
        assert texts[0]
        assert len(set(texts)) == 1

    def test_loops_at_once(self, provider: Provider) -> None:
        texts: list[str] = []

        async def several() -> None:
            replies = [await provider.complete(self.request(max_tokens=3)) for _ in range(3)]
            texts.extend(reply.text for reply in replies)

        threads = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(texts) == 9
        assert len(set(texts)) == 1


class WireSuite(ProviderSuite):
    """For providers over HTTP: ``provider`` asks the fixture ``server``, with the key ``KEY``."""

    KEY: ClassVar[str] = "sk-a-key-nobody-may-see"
    long: ClassVar[int | None] = None
    bounded: ClassVar[bool] = False
    logprobs: ClassVar[bool] = False

    @pytest.fixture
    def server(self) -> Any:
        """The far side. It answers with a fitting object when it is asked for one."""
        with FaultServer(_greeting_or_route) as server:
            yield server

    @pytest.mark.parametrize(
        ("fault", "error", "retryable"),
        [
            (status(400), ProviderError, False),
            (status(401), AuthFailed, False),
            (status(403), AuthFailed, False),
            (status(404), ProviderError, False),
            (status(408), Timeout, True),
            (status(409), ProviderError, False),
            (status(413), ContextTooLong, False),
            (status(429), RateLimited, True),
            (status(429, error="insufficient_quota"), RateLimited, False),
            (status(500), Unavailable, True),
            (status(502), Unavailable, True),
            (status(503), Unavailable, True),
            (status(504), Unavailable, True),
            (status(529), Unavailable, True),
            (status(307), ProviderError, False),
            (status(400, error="context_length_exceeded"), ContextTooLong, False),
            (status(400, message="prompt is too long: 210000 tokens > 200000 maximum"), ContextTooLong, False),
            (status(400, error="content_filter"), ContentFiltered, False),
            (Fault("broken"), Unavailable, True),
            (Fault("truncated"), Unavailable, True),
            (Fault("html"), Unavailable, True),
            (Fault("huge"), Unavailable, False),
            (Fault("hangup"), Unavailable, True),
            (Fault("headers"), Unavailable, True),
        ],
        ids=lambda value: f"{value.kind}-{value.status}-{value.code}" if isinstance(value, Fault) else None,
    )
    async def test_faults_become_errors(
        self, provider: Provider, server: FaultServer, fault: Fault, error: type[ProviderError], retryable: bool
    ) -> None:
        server.queue(fault, fault)
        for call in ways(provider):
            with pytest.raises(ProviderError) as caught:
                await call(self.request())
            assert type(caught.value) is error
            assert caught.value.retryable is retryable
            assert caught.value.model == self.model
            assert self.model in str(caught.value)
            assert caught.value.provider == self.model.partition("/")[0]
            assert caught.value.upstream_status == (fault.status if fault.kind == "status" else None)
        assert server.count == 2  # one call each: nothing is sent twice here
        assert (await provider.complete(self.request())).text

    async def test_an_error_in_the_middle_of_a_stream(self, provider: Provider, server: FaultServer) -> None:
        server.queue(Fault("error_event"), Fault("error_event", code="rate_limit_error"))
        with pytest.raises(Unavailable):
            await read(provider, self.request())
        with pytest.raises(RateLimited):
            await read(provider, self.request())

    async def test_retry_after_is_told(self, provider: Provider, server: FaultServer) -> None:
        server.queue(status(429, retry_after="7"))
        with pytest.raises(RateLimited) as caught:
            await provider.complete(self.request())
        assert caught.value.retry_after == 7

    async def test_the_key_is_sent_and_never_shown(self, provider: Provider, server: FaultServer) -> None:
        server.queue(status(401, message=f"Incorrect API key provided: {self.KEY}."))
        with pytest.raises(AuthFailed) as caught:
            await provider.complete(self.request())
        assert self.KEY in "".join(server.calls[-1].headers.values())
        shown = f"{caught.value!r} {caught.value} {caught.value.detail} {provider!r} {vars(caught.value)}"
        assert self.KEY not in shown
        assert "Incorrect API key provided: ***." in shown

    async def test_cancelling_closes_upstream(self, provider: Provider, server: FaultServer) -> None:
        server.queue(Fault("never"))
        task = asyncio.create_task(provider.complete(self.request()))
        await server.until(lambda: server.count == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda: server.cuts == 1)
        assert server.calls[-1].cut

    async def test_leaving_a_stream_closes_upstream(self, provider: Provider, server: FaultServer) -> None:
        server.queue(Fault("drip", delay=0.05))
        stream = cast("AsyncGenerator[Chunk, None]", provider.stream(self.request()))
        assert (await anext(stream)).text
        await stream.aclose()
        await server.until(lambda: server.cuts == 1)

    async def test_cancelling_a_stream_closes_upstream(self, provider: Provider, server: FaultServer) -> None:
        server.queue(Fault("never"))
        task = asyncio.create_task(read(provider, self.request()))
        await server.until(lambda: server.count == 1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await server.until(lambda: server.cuts == 1)

    async def test_no_call_is_made_after_its_deadline(self, provider: Provider, server: FaultServer) -> None:
        with pytest.raises(Timeout):
            await provider.complete(self.request(deadline=time.monotonic()))
        assert server.connections == 0

    async def test_a_deadline_closes_upstream(self, provider: Provider, server: FaultServer) -> None:
        server.queue(Fault("never"), Fault("drip", delay=0.2))
        for call in ways(provider):
            with pytest.raises(Timeout):
                await call(self.request(deadline=time.monotonic() + 0.1))
        await server.until(lambda: server.cuts == 2)

    async def test_connections_are_used_again(self, provider: Provider, server: FaultServer) -> None:
        for _ in range(3):
            await provider.complete(self.request())
            await read(provider, self.request())
        assert server.connections == 1

    def test_connections_close_with_their_loop(self, provider: Provider, server: FaultServer) -> None:
        for _ in range(2):
            asyncio.run(provider.complete(self.request()))
            asyncio.run(server.until(lambda: server.open_connections == 0))
        assert server.connections == 2


def _greeting_or_route(body: Any) -> str:
    asked = any(name in body for name in ("response_format", "output_config")) or "format" in body.get("text", {})
    return '{"team":"cards","sure":true}' if asked else "Hello there, dear team of the fault server."
