from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from kaizen.core.errors import ContentFiltered, InvalidInput, Unavailable
from kaizen.core.message import Message, Text, ToolCall, ToolResult
from kaizen.core.request import Reply, TokenLogprob, Usage
from kaizen.providers.errors import Origin
from kaizen.providers.openai_chat import ChatWire
from tests.unit.providers.conversation import AUDIO, AUDIO_URL, EVERYTHING, FILE, FILE_URL, FREE, SMALL, with_media

WIRE = ChatWire(Origin("mine"))
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def answer(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop", **more}], "usage": USAGE}


def test_everything_is_encoded() -> None:
    assert from_json(WIRE.encode(EVERYTHING, stream=False)) == {
        "model": "org/large",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look: "},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aW1n"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": "I ask.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}},
                    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "oops"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "c2", "content": "Error: no city"},
            {"role": "user", "content": "And now?"},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "bank_Triage_outputs",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"n": {"type": "integer"}},
                    "required": ["n"],
                    "additionalProperties": False,
                },
            },
        },
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "The weather.",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                },
            }
        ],
        "tool_choice": "required",
        "max_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "logprobs": True,
        "top_logprobs": 2,
    }


def test_a_small_request_says_no_more_than_it_has_to() -> None:
    small = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
    assert from_json(WIRE.encode(SMALL, stream=False)) == small
    streamed = {**small, "stream": True, "stream_options": {"include_usage": True}}
    assert from_json(WIRE.encode(SMALL, stream=True)) == streamed


def test_encoding_twice_gives_the_same_bytes() -> None:
    assert WIRE.encode(EVERYTHING, stream=True) == WIRE.encode(EVERYTHING, stream=True)


def test_the_bound_goes_by_the_name_it_is_given() -> None:
    wire = ChatWire(Origin("mine"), "max_completion_tokens")
    body = from_json(wire.encode(EVERYTHING, stream=False))
    assert body["max_completion_tokens"] == 64
    assert "max_tokens" not in body


def test_a_schema_that_strict_mode_cannot_say_goes_as_it_is() -> None:
    body = from_json(WIRE.encode(replace(SMALL, output=FREE), stream=False))
    schema = body["response_format"]["json_schema"]
    assert schema == {"name": "free", "strict": False, "schema": FREE.schema}


def test_media() -> None:
    body = from_json(WIRE.encode(with_media(AUDIO, FILE, replace(FILE, name=None)), stream=False))
    assert body["messages"][0]["content"] == [
        {"type": "input_audio", "input_audio": {"data": "YXVk", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"}},
        {"type": "file", "file": {"filename": "file", "file_data": "data:application/pdf;base64,cGRm"}},
    ]
    for media in (AUDIO_URL, FILE_URL):
        with pytest.raises(InvalidInput, match="by address"):
            WIRE.encode(with_media(media), stream=False)


def test_calls_without_text() -> None:
    message = Message("assistant", (ToolCall("c1", "f", "{}"),))
    body = from_json(WIRE.encode(replace(SMALL, messages=(message,)), stream=False))
    assert body["messages"][0]["content"] is None


def test_a_whole_answer_is_decoded() -> None:
    top = [("Hi", -0.5), ("Yo", -1)]
    body = answer(
        {"role": "assistant", "content": "Hi", "refusal": None},
        logprobs={
            "content": [
                {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": t, "logprob": p} for t, p in top]}
            ]
        },
    )  # fmt: skip
    body["usage"] = {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    assert WIRE.decode(body, SMALL) == Reply(
        model="mine/small",
        text="Hi",
        finish="stop",
        usage=Usage(tokens_in=9, tokens_out=3, tokens_cached=4, tokens_cache_write=2, tokens_reasoning=1),
        logprobs=(TokenLogprob("Hi", -0.5, (("Hi", -0.5), ("Yo", -1))),),
    )


@pytest.mark.parametrize(
    ("reason", "finish"), [("stop", "stop"), ("length", "length"), ("eos", "stop"), (None, "stop")]
)
def test_finish(reason: str | None, finish: str) -> None:
    assert WIRE.decode(answer({"content": "x"}, finish_reason=reason), SMALL).finish == finish


def test_tool_calls_are_decoded_even_if_the_finish_does_not_say_so() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    reply = WIRE.decode(answer({"content": None, "tool_calls": [call]}), SMALL)
    assert (reply.text, reply.tool_calls, reply.finish) == ("", (ToolCall("c1", "f", "{}"),), "tool_calls")


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert WIRE.decode(answer({"content": parts}), SMALL).text == "ab"


def test_a_guess_is_marked() -> None:
    body = answer({"content": "12345"})
    del body["usage"]
    request = replace(
        SMALL,
        messages=(
            Message("user", (Text("12345678"), AUDIO)),
            Message("assistant", (ToolCall("c1", "f", "123"),)),
            Message("tool", (ToolResult("c1", "1"),)),
        ),
    )
    assert WIRE.decode(body, request).usage == Usage(tokens_in=4, tokens_out=2, estimated=True)


@pytest.mark.parametrize(
    ("message", "more"),
    [({"content": None, "refusal": "I can't."}, {}), ({"content": ""}, {"finish_reason": "content_filter"})],
)
def test_a_refusal_is_an_error(message: dict[str, Any], more: dict[str, Any]) -> None:
    with pytest.raises(ContentFiltered):
        WIRE.decode(answer(message, **more), SMALL)


def chunk(delta: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, **more}]}


def test_a_stream_is_put_together() -> None:
    reading = WIRE.reading(SMALL)
    events = [
        chunk({"role": "assistant", "content": None}),
        chunk({"content": "He"}, logprobs={"content": [{"token": "He", "logprob": -1.0}]}),
        chunk({"content": "y"}, logprobs={"content": None}),
        chunk(None, finish_reason="length"),
        {"choices": [], "usage": USAGE},
    ]
    assert [reading.feed(event) for event in events[:3]] == ["", "He", "y"]
    assert not reading.whole
    assert [reading.feed(event) for event in events[3:]] == ["", ""]
    assert reading.whole
    assert reading.reply() == Reply(
        model="mine/small",
        text="Hey",
        finish="length",
        usage=Usage(tokens_in=9, tokens_out=3),
        logprobs=(TokenLogprob("He", -1.0),),
    )


def test_streamed_calls_are_put_together_by_their_index() -> None:
    reading = WIRE.reading(SMALL)
    pieces = [
        {"index": 1, "id": "c2", "function": {"name": "g", "arguments": ""}},
        {"index": 0, "id": "c1", "function": {"name": "f"}},
        {"index": 1, "function": {"arguments": '{"a":'}},
        {"index": 1, "function": {"arguments": "1}"}},
        {"index": 0},
    ]
    for piece in pieces:
        assert reading.feed(chunk({"tool_calls": [piece]})) == ""
    reply = reading.reply()
    assert reply.tool_calls == (ToolCall("c1", "f", ""), ToolCall("c2", "g", '{"a":1}'))
    assert reply.usage.estimated


def test_a_streamed_refusal_is_an_error() -> None:
    reading = WIRE.reading(SMALL)
    reading.feed(chunk({"refusal": "I "}))
    reading.feed(chunk({"refusal": "can't."}, finish_reason="stop"))
    with pytest.raises(ContentFiltered, match="I can't"):
        reading.reply()


def test_a_streamed_error_is_raised() -> None:
    with pytest.raises(Unavailable, match="sorry"):
        WIRE.reading(SMALL).feed({"error": {"message": "sorry", "code": 503}})


def test_schemas_are_forgotten_in_time() -> None:
    wire = ChatWire(Origin("mine"))
    for number in range(600):
        output = replace(FREE, name=f"n{number}")
        assert f'"n{number}"'.encode() in wire.encode(replace(SMALL, output=output), stream=False)
    assert to_json(FREE.schema) in wire.encode(replace(SMALL, output=FREE), stream=False)
