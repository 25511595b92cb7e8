"""Answers of status 200 that are none, and streams that end oddly, on all three wires."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from kaizen.core.errors import ProviderError, RateLimited, Unavailable
from kaizen.core.message import Message
from kaizen.core.request import Request
from kaizen.core.scope import LOCAL
from kaizen.providers.anthropic import AnthropicProvider
from kaizen.providers.http import TransportSettings
from kaizen.providers.openai import OpenAIProvider
from kaizen.providers.wire import WireProvider, model_name, schema_name
from kaizen.testing.fault_server import Fault, FaultServer
from kaizen.testing.provider_suite import read

REQUEST = Request(scope=LOCAL, model="mine/m", messages=(Message.of("user", "hello"),))


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer("Hey") as server:
        yield server


@pytest.fixture(params=["chat", "responses", "messages"])
def provider(request: pytest.FixtureRequest, server: FaultServer) -> WireProvider:
    if request.param == "messages":
        return AnthropicProvider("mine", base_url=server.base_url)
    return OpenAIProvider("mine", base_url=server.base_url, api=request.param)


@pytest.mark.parametrize("body", ["{}", "[]", "null", '"x"', '{"choices":[]}', '{"status":1}', '{"content":[{}]}'])
async def test_json_of_another_shape(server: FaultServer, provider: WireProvider, body: str) -> None:
    server.queue(Fault("body", message=body), Fault("body", message=body))
    with pytest.raises(Unavailable, match="JSON of another shape"):
        await provider.complete(REQUEST)
    with pytest.raises(Unavailable, match="JSON of another shape"):
        await read(provider, REQUEST)


_COUNTS = ("-1", "NaN", "1e400", "10000000000000000000000", '"12"', "1.5", "true", "[]")
_BODIES: dict[str, str] = {
    "chat": '{"choices":[{"message":{"content":%s}}],"usage":{"prompt_tokens":%s,"completion_tokens":1}}',
    "responses": '{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":%s}]}],'
    '"usage":{"input_tokens":1,"output_tokens":%s}}',
    "messages": '{"content":[{"type":"text","text":%s}],"stop_reason":"end_turn",'
    '"usage":{"input_tokens":1,"output_tokens":%s}}',
}


@pytest.mark.parametrize("count", _COUNTS)
async def test_counts_that_are_none_lift_no_budget(
    request: pytest.FixtureRequest, server: FaultServer, provider: WireProvider, count: str
) -> None:
    body = _BODIES[request.node.callspec.params["provider"]]
    server.queue(Fault("body", message=body % ('"a"', 7)), Fault("body", message=body % ('"a"', count)))
    assert 7 in ((usage := (await provider.complete(REQUEST)).usage).tokens_in, usage.tokens_out)
    with pytest.raises(Unavailable, match="JSON of another shape"):
        await provider.complete(REQUEST)


@pytest.mark.parametrize("text", ["5", '{"a":1}', "true"])
async def test_a_text_that_is_none(
    request: pytest.FixtureRequest, server: FaultServer, provider: WireProvider, text: str
) -> None:
    server.queue(Fault("body", message=_BODIES[request.node.callspec.params["provider"]] % (text, 1)))
    with pytest.raises(Unavailable, match="JSON of another shape"):
        await provider.complete(REQUEST)


@pytest.mark.parametrize(
    "call",
    [
        '{"id":1,"function":{"name":"f","arguments":"{}"}}',
        '{"id":"1","function":{"name":["f"],"arguments":"{}"}}',
        '{"id":"1","function":{"name":"f","arguments":{}}}',
    ],
)
async def test_a_call_that_is_none(server: FaultServer, call: str) -> None:
    asked = OpenAIProvider("mine", base_url=server.base_url)
    server.queue(Fault("body", message=f'{{"choices":[{{"message":{{"content":"","tool_calls":[{call}]}}}}]}}'))
    with pytest.raises(Unavailable, match="JSON of another shape"):
        await asked.complete(REQUEST)


async def test_a_piece_of_text_that_is_none(server: FaultServer) -> None:
    server.queue(Fault("events", message='data: {"choices":[{"delta":{"content":5}}]}\n\n'))
    with pytest.raises(Unavailable, match="an event that can't be read"):
        await read(OpenAIProvider("mine", base_url=server.base_url), REQUEST)


async def test_an_error_with_status_200(server: FaultServer, provider: WireProvider) -> None:
    body = '{"error":{"code":429,"message":"slow down"}}'
    server.queue(Fault("body", message=body), Fault("body", message=body))
    for call in (provider.complete(REQUEST), read(provider, REQUEST)):
        with pytest.raises(RateLimited, match="slow down"):
            await call


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ("", "cut before the answer was whole"),
        (": nothing\n\n", "cut before the answer was whole"),
        ("data: []\n\n", "an event that can't be read"),
        ("data: {\n\n", "an event that can't be read"),
    ],
)
async def test_streams_of_another_shape(server: FaultServer, provider: WireProvider, events: str, words: str) -> None:
    server.queue(Fault("events", message=events))
    with pytest.raises(Unavailable, match=words):
        await read(provider, REQUEST)


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        ("chat", 'data: {"choices":[],"usage":{"total_tokens":3}}\n\ndata: [DONE]\n\n'),
        ("responses", 'data: {"type":"response.completed","response":{}}\n\n'),
        ("messages", 'data: {"type":"message_delta","delta":{},"usage":{"x":1}}\n\ndata: {"type":"message_stop"}\n\n'),
    ],
)
async def test_a_whole_of_another_shape(server: FaultServer, kind: Any, events: str) -> None:
    server.queue(Fault("events", message=events))
    asked = (
        AnthropicProvider("mine", base_url=server.base_url)
        if kind == "messages"
        else OpenAIProvider("mine", base_url=server.base_url, api=kind)
    )
    with pytest.raises(Unavailable, match="the streamed answer can't be read"):
        await read(asked, REQUEST)


async def test_a_stream_without_its_last_mark_or_counts(server: FaultServer) -> None:
    server.queue(Fault("events", message='data: {"choices":[{"delta":{"content":"Hey"},"finish_reason":"stop"}]}\n\n'))
    texts, reply = await read(OpenAIProvider("mine", base_url=server.base_url), REQUEST)
    assert (texts, reply.text, reply.finish) == (["Hey"], "Hey", "stop")
    assert reply.usage.estimated


async def test_a_stream_that_stays_open_after_its_end_is_left(server: FaultServer, provider: WireProvider) -> None:
    server.queue(Fault("endless"))
    _, reply = await asyncio.wait_for(read(provider, REQUEST), 2)
    assert reply.text == "Hey"
    await server.until(lambda: server.cuts == 1)
    assert (await provider.complete(REQUEST)).text == "Hey"


async def test_an_answer_of_unknown_length(server: FaultServer) -> None:
    body = '{"choices":[{"message":{"content":"Hey"}}]}'
    asked = OpenAIProvider("mine", base_url=server.base_url, transport=TransportSettings(max_body=len(body)))
    server.queue(Fault("events", message=body), Fault("events", message=body + " "))
    assert (await asked.complete(REQUEST)).text == "Hey"
    with pytest.raises(Unavailable, match="longer than the limit"):
        await asked.complete(REQUEST)


def test_a_loop_closed_without_its_generators_is_forgotten(server: FaultServer) -> None:
    asked = OpenAIProvider("mine", base_url=server.base_url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asked.complete(REQUEST))
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nobody could close that connection
        assert asyncio.run(asked.complete(REQUEST)).text == "Hey"
        gc.collect()
    assert server.count == 2


async def test_a_provider_that_is_dropped_while_the_loop_runs(server: FaultServer) -> None:
    asked = OpenAIProvider("mine", base_url=server.base_url)
    await asked.complete(REQUEST)
    vars(asked)["myself"] = asked  # so that only the collector frees it, and everything it holds at once
    assert server.open_connections == 1
    del asked
    gc.collect()
    await server.until(lambda: server.open_connections == 0)


async def test_a_canceled_call_in_the_queue_sends_nothing(server: FaultServer, provider: WireProvider) -> None:
    server.queue(Fault("never"))
    task = asyncio.create_task(provider.complete(REQUEST))
    await server.until(lambda: server.count == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.count == 1


def test_names() -> None:
    assert [model_name(ref) for ref in ("mine/m", "mine/org/m", "m")] == ["m", "org/m", "m"]
    assert schema_name("") == "output"
    assert schema_name("a.b c" + "x" * 90) == "a_b_c" + "x" * 59


async def test_errors_keep_no_trace_of_the_request(server: FaultServer, provider: WireProvider) -> None:
    server.queue(Fault("hangup"))
    with pytest.raises(ProviderError) as caught:
        await provider.complete(REQUEST)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
