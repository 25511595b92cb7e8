"""The real Anthropic client against the gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from tests.e2e.gateway.conftest import Running

Make = Callable[..., Running]
HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PIXEL = "iVBORw0KGgo="
MODELS = pytest.mark.parametrize("model", ["claude/large", "mine/large", "answers/large"])


@pytest.fixture
def here(gateway: Make) -> Running:
    return gateway()


@pytest.fixture
def client(here: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=here.address, api_key=here.key(), max_retries=0) as client:
        yield client


@MODELS
def test_a_message_reaches_any_wire(client: anthropic.Anthropic, here: Running, model: str) -> None:
    answer = client.messages.with_raw_response.create(
        model=model,
        max_tokens=50,
        messages=HELLO,
        system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        extra_body={"temperature": 0.5},
        metadata={"user_id": "u-1"},
    )
    message = answer.parse()
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello from the far side."
    assert message.stop_reason == "end_turn"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (15, 5, 7)
    assert answer.headers["x-kaizen-record"] == here.records()[0].id
    sent = here.upstream.calls[-1].body.decode()
    assert "be brief" in sent
    assert "u-1" in sent
    assert ("cache_control" in sent) == (model == "claude/large")


@MODELS
def test_a_streamed_message_is_put_together(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == "Hello from the far side."
    assert (final.usage.output_tokens, final.stop_reason) == (7, "end_turn")


@MODELS
def test_tools_go_there_and_calls_come_back(client: anthropic.Anthropic, here: Running, model: str) -> None:
    choice: Any = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    message = client.messages.create(model=model, max_tokens=50, messages=HELLO, tools=[TOOL], tool_choice=choice)
    call: Any = message.content[-1]
    assert (call.type, call.name, call.input, message.stop_reason) == (
        "tool_use",
        "weather",
        {"city": "Paris"},
        "tool_use",
    )
    result: Any = [
        {"type": "text", "text": "sunny"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    ]
    answer: Any = {"type": "tool_result", "tool_use_id": call.id, "content": result, "is_error": False}
    again: Any = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": [answer]}]
    client.messages.create(model=model, max_tokens=50, messages=again, tools=[TOOL], tool_choice={"type": "any"})
    sent = here.upstream.calls[-1].body.decode()
    assert all(word in sent for word in ("sunny", PIXEL, call.id))


def test_streamed_tool_use_is_put_together(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="mine/large", max_tokens=50, messages=HELLO, tools=[TOOL]) as stream:
        final = stream.get_final_message()
    call: Any = final.content[-1]
    assert (call.type, call.name, call.input, final.stop_reason) == (
        "tool_use",
        "weather",
        {"city": "Paris"},
        "tool_use",
    )


@MODELS
def test_images_and_documents_pass_through(client: anthropic.Anthropic, here: Running, model: str) -> None:
    blocks: Any = [
        {"type": "text", "text": "what is it?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
    ]
    client.messages.create(model=model, max_tokens=50, messages=[{"role": "user", "content": blocks}])
    sent = here.upstream.calls[-1].body.decode()
    assert PIXEL in sent
    assert "plain" in sent


def test_a_schema_is_enforced(client: anthropic.Anthropic, here: Running) -> None:
    here.upstream.reply = '{"team":"cards"}'
    schema = {"type": "object", "properties": {"team": {"type": "string"}}, "required": ["team"]}
    config: Any = {"format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}}
    message = client.messages.create(model="mine/large", max_tokens=50, messages=HELLO, output_config=config)
    assert message.content[0].type == "text"
    assert message.content[0].text == '{"team":"cards"}'
    assert here.upstream.calls[-1].json["response_format"]["type"] == "json_schema"


def test_tokens_are_estimated_without_a_call(client: anthropic.Anthropic, here: Running) -> None:
    counted = client.messages.count_tokens(model="claude/large", messages=[{"role": "user", "content": "x" * 40}])
    assert counted.input_tokens == 10
    assert here.upstream.count == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ({"extra_body": {"container": "c"}}, "container"),
        ({"extra_body": {"temperature": 2}}, "temperature"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
    ],
)
def test_what_is_not_supported_is_named(
    client: anthropic.Anthropic, here: Running, body: dict[str, Any], param: str
) -> None:
    given: Any = {"model": "claude/large", "max_tokens": 50, "messages": HELLO, **body}
    with pytest.raises(anthropic.BadRequestError, match=param):
        client.messages.create(**given)
    assert here.upstream.count == 0


@pytest.mark.parametrize(
    ("model", "error", "kind"),
    [
        ("claude/429", anthropic.RateLimitError, "rate_limit_error"),
        ("mine/503", anthropic.InternalServerError, "overloaded_error"),
        ("no/such", anthropic.NotFoundError, "not_found_error"),
    ],
)
def test_errors_have_this_wires_shape(
    client: anthropic.Anthropic, model: str, error: type[anthropic.APIStatusError], kind: str
) -> None:
    with pytest.raises(error) as caught:
        client.messages.create(model=model, max_tokens=50, messages=HELLO)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)


def test_models_are_listed_for_this_client(client: anthropic.Anthropic) -> None:
    assert {"mine/large", "claude/large"} <= {model.id for model in client.models.list()}


def test_a_wrong_key_is_told_so(here: Running) -> None:
    client = anthropic.Anthropic(base_url=here.address, api_key="kz_x")
    with client, pytest.raises(anthropic.AuthenticationError):
        client.messages.create(model="claude/large", max_tokens=5, messages=HELLO)
