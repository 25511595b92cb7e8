from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import from_json

from kaizen.core.errors import ContentFiltered, InvalidInput, Unavailable, Unsupported
from kaizen.core.message import Message, ToolCall
from kaizen.core.request import Decoding, Reply, Request, Spare, Usage
from kaizen.providers.anthropic import MessagesWire
from kaizen.providers.errors import Origin
from tests.unit.providers.conversation import (
    AUDIO,
    EVERYTHING,
    FILE,
    FILE_URL,
    FREE,
    SMALL,
    TOOL,
    with_media,
)

WIRE = MessagesWire(Origin("mine"), 4096)
TEXT = {"type": "text", "text": "Hey"}


def answer(*content: dict[str, Any], stop: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"content": list(content), "stop_reason": stop, "usage": {"input_tokens": 9, "output_tokens": 3, **usage}}


@pytest.mark.parametrize(
    ("param", "asked"),
    [
        ("seed", replace(SMALL, decoding=Decoding(seed=0))),
        ("logprobs", replace(SMALL, top_logprobs=0)),
    ],
)
def test_what_this_api_has_not_is_refused_by_name_unless_nobody_asked_for_it(param: str, asked: Request) -> None:
    with pytest.raises(Unsupported, match="the messages wire has no place for") as caught:
        WIRE.encode(asked, stream=False)
    assert caught.value.detail == {"param": param}
    ours = replace(SMALL, decoding=Decoding(seed=Spare(0)), top_logprobs=Spare(0))
    assert WIRE.encode(ours, stream=False) == WIRE.encode(SMALL, stream=False)


def test_everything_is_encoded() -> None:
    asked = replace(EVERYTHING, decoding=replace(EVERYTHING.decoding, seed=None), top_logprobs=None)
    assert from_json(WIRE.encode(asked, stream=False)) == {
        "model": "org/large",
        "max_tokens": 64,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look: "},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aW1n"}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I ask."},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bern"}},
                    {"type": "tool_use", "id": "c2", "name": "weather", "input": {"arguments": "oops"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "no city", "is_error": True},
                ],
            },
            {"role": "user", "content": "And now?"},
        ],
        "output_config": {
            "format": {
                "type": "json_schema",
                "schema": {
                    "type": "object",
                    "properties": {"n": {"type": "integer"}},
                    "required": [],
                    "additionalProperties": False,
                },
            }
        },
        "tools": [
            {
                "name": "weather",
                "description": "The weather.",
                "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
            }
        ],
        "tool_choice": {"type": "any"},
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
    }


def test_a_small_request_says_no_more_than_it_has_to() -> None:
    small = {"model": "small", "max_tokens": 4096, "messages": [{"role": "user", "content": "hello"}]}
    assert from_json(WIRE.encode(SMALL, stream=False)) == small
    assert from_json(WIRE.encode(SMALL, stream=True)) == {**small, "stream": True}


def test_system_messages_are_joined() -> None:
    messages = (Message.of("system", "a"), *SMALL.messages, Message.of("system", "b"))
    assert from_json(WIRE.encode(replace(SMALL, messages=messages), stream=False))["system"] == "a\n\nb"


def test_media() -> None:
    body = from_json(WIRE.encode(with_media(FILE, FILE_URL), stream=False))
    source = {"type": "base64", "media_type": "application/pdf", "data": "cGRm"}
    assert body["messages"][0]["content"] == [
        {"type": "document", "source": source, "title": "a.pdf"},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    ]
    with pytest.raises(InvalidInput, match="audio"):
        WIRE.encode(with_media(AUDIO), stream=False)


def test_a_schema_that_cannot_be_said_goes_as_a_tool() -> None:
    request = replace(SMALL, output=FREE)
    body = from_json(WIRE.encode(request, stream=False))
    assert "output_config" not in body
    assert body["tools"] == [{"name": "free", "description": "Give the answer.", "input_schema": FREE.schema}]
    assert body["tool_choice"] == {"type": "tool", "name": "free"}
    tool = {"type": "tool_use", "id": "c1", "name": "free", "input": {"a": 1}}
    reply = WIRE.decode(answer(tool, stop="tool_use"), request)
    assert (reply.text, reply.tool_calls, reply.finish) == ('{"a":1}', (), "stop")
    assert WIRE.decode(answer(tool, stop="max_tokens"), request).finish == "length"


def test_such_a_tool_beside_others() -> None:
    request = replace(SMALL, output=FREE, tools=(TOOL,))
    body = from_json(WIRE.encode(request, stream=False))
    assert [tool["name"] for tool in body["tools"]] == ["weather", "free"]
    assert body["tool_choice"] == {"type": "any"}
    call = {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}
    reply = WIRE.decode(answer(call, stop="tool_use"), request)
    assert (reply.text, reply.tool_calls, reply.finish) == ("", (ToolCall("c1", "weather", "{}"),), "tool_calls")


def test_the_answer_of_such_a_tool_is_streamed_as_text() -> None:
    reading = WIRE.reading(replace(SMALL, output=FREE))
    start = {"type": "tool_use", "id": "c1", "name": "free", "input": {}}
    reading.feed({"type": "content_block_start", "index": 0, "content_block": start})
    delta = {"type": "input_json_delta", "partial_json": '{"a":1}'}
    assert reading.feed({"type": "content_block_delta", "index": 0, "delta": delta}) == '{"a":1}'
    reading.feed({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}})
    assert reading.reply().text == '{"a":1}'


def test_a_whole_answer_is_decoded() -> None:
    body = answer(
        {"type": "thinking", "thinking": "hm"},
        TEXT,
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        stop="tool_use",
        cache_read_input_tokens=4,
        cache_creation_input_tokens=2,
        output_tokens_details={"thinking_tokens": 1},
    )
    assert WIRE.decode(body, SMALL) == Reply(
        model="mine/small",
        text="Hey",
        tool_calls=(ToolCall("c1", "f", '{"a":1}'),),
        finish="tool_calls",
        usage=Usage(tokens_in=15, tokens_out=3, tokens_cached=4, tokens_cache_write=2, tokens_reasoning=1),
    )


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        (None, "stop"),
    ],
)
def test_finish(stop: str | None, finish: str) -> None:
    assert WIRE.decode(answer(TEXT, stop=stop), SMALL).finish == finish


def test_a_guess_is_marked() -> None:
    body = answer(TEXT)
    del body["usage"]
    assert WIRE.decode(body, SMALL).usage == Usage(tokens_in=2, tokens_out=1, estimated=True)


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(ContentFiltered):
        WIRE.decode(answer(stop="refusal"), SMALL)


def test_a_stream_is_put_together() -> None:
    reading = WIRE.reading(SMALL)
    usage = {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 1}
    use = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"usage": usage}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hey"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_start", "index": 1, "content_block": use},
        {"type": "content_block_stop", "index": 1},
    ]
    assert "".join(reading.feed(event) for event in events) == "Hey"
    assert not reading.whole
    delta = {"stop_reason": "tool_use", "stop_sequence": None}
    reading.feed({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3, "input_tokens": None}})
    assert reading.whole
    assert not reading.done
    reading.feed({"type": "message_stop"})
    assert reading.done
    assert reading.reply() == Reply(
        model="mine/small",
        text="Hey",
        tool_calls=(ToolCall("c1", "f", "{}"),),
        finish="tool_calls",
        usage=Usage(tokens_in=13, tokens_out=3, tokens_cached=4),
    )


def test_a_streamed_error_is_raised() -> None:
    event = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(Unavailable, match="Overloaded"):
        WIRE.reading(SMALL).feed(event)
