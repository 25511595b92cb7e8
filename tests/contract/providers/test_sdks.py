"""The vendors' own SDKs read what the fault server answers, so that its wires are the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from kaizen.testing.answers import TOKENS_CACHED, TOKENS_IN, TOKENS_OUT
from kaizen.testing.fault_server import FaultServer, status

TEXT = "Hello there, dear SDK."
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
USER: Any = [{"role": "user", "content": "hi"}]
CHAT_TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
RESPONSES_TOOLS: Any = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}]
MESSAGES_TOOLS: Any = [{"name": "weather", "input_schema": PARAMETERS}]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(TEXT) as server:
        yield server


@pytest.fixture
def openai_sdk(server: FaultServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_sdk(server: FaultServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.address, api_key="k", max_retries=0) as client:
        yield client


def test_chat(openai_sdk: openai.OpenAI) -> None:
    whole = openai_sdk.chat.completions.create(model="m", messages=USER)
    assert whole.choices[0].message.content == TEXT
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (TOKENS_IN, TOKENS_OUT)
    with openai_sdk.chat.completions.stream(model="m", messages=USER) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == TEXT
    assert completion.usage == whole.usage


def test_chat_tools(openai_sdk: openai.OpenAI) -> None:
    whole = openai_sdk.chat.completions.create(model="m", messages=USER, tools=CHAT_TOOLS)
    with openai_sdk.chat.completions.stream(model="m", messages=USER, tools=CHAT_TOOLS) as stream:
        streamed = stream.get_final_completion()
    for completion in (whole, streamed):
        calls: Any = completion.choices[0].message.tool_calls
        assert [(call.function.name, call.function.arguments) for call in calls] == [("weather", '{"city":"Paris"}')]


def test_responses(openai_sdk: openai.OpenAI) -> None:
    whole = openai_sdk.responses.create(model="m", input="hi")
    with openai_sdk.responses.stream(model="m", input="hi") as stream:
        streamed = stream.get_final_response()
    for response in (whole, streamed):
        assert response.output_text == TEXT
        assert response.usage is not None
        assert response.usage.input_tokens == TOKENS_IN
        assert response.usage.input_tokens_details.cached_tokens == TOKENS_CACHED


def test_responses_tools(openai_sdk: openai.OpenAI) -> None:
    whole = openai_sdk.responses.create(model="m", input="hi", tools=RESPONSES_TOOLS)
    with openai_sdk.responses.stream(model="m", input="hi", tools=RESPONSES_TOOLS) as stream:
        streamed = stream.get_final_response()
    for response in (whole, streamed):
        call = response.output[0]
        assert call.type == "function_call"
        assert (call.name, call.arguments) == ("weather", '{"city":"Paris"}')


def test_messages(anthropic_sdk: anthropic.Anthropic) -> None:
    whole = anthropic_sdk.messages.create(model="m", max_tokens=9, messages=USER)
    with anthropic_sdk.messages.stream(model="m", max_tokens=9, messages=USER) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert [block.text for block in message.content if block.type == "text"] == [TEXT]
        assert message.stop_reason == "end_turn"
        assert message.usage.input_tokens == TOKENS_IN - TOKENS_CACHED
        assert message.usage.cache_read_input_tokens == TOKENS_CACHED
        assert message.usage.output_tokens == TOKENS_OUT


def test_messages_tools(anthropic_sdk: anthropic.Anthropic) -> None:
    whole = anthropic_sdk.messages.create(model="m", max_tokens=9, messages=USER, tools=MESSAGES_TOOLS)
    with anthropic_sdk.messages.stream(model="m", max_tokens=9, messages=USER, tools=MESSAGES_TOOLS) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        call = message.content[0]
        assert call.type == "tool_use"
        assert (call.name, call.input) == ("weather", {"city": "Paris"})


def test_errors(server: FaultServer, openai_sdk: openai.OpenAI, anthropic_sdk: anthropic.Anthropic) -> None:
    server.queue(status(429, message="slow"), status(529, message="slow"), status(401))
    with pytest.raises(openai.RateLimitError, match="slow"):
        openai_sdk.chat.completions.create(model="m", messages=USER)
    with pytest.raises(anthropic.InternalServerError, match="slow"):
        anthropic_sdk.messages.create(model="m", max_tokens=9, messages=USER)
    with pytest.raises(anthropic.AuthenticationError):
        anthropic_sdk.messages.create(model="m", max_tokens=9, messages=USER)
