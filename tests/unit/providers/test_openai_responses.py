from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import from_json

from kaizen.core.errors import ContentFiltered, InvalidInput, RateLimited, Unavailable, Unsupported
from kaizen.core.message import ToolCall
from kaizen.core.request import Decoding, Reply, Spare, TokenLogprob, Usage
from kaizen.providers.errors import Origin
from kaizen.providers.openai_responses import ResponsesWire
from tests.unit.providers.conversation import AUDIO, AUDIO_URL, EVERYTHING, FILE, FILE_URL, FREE, SMALL, with_media

WIRE = ResponsesWire(Origin("mine"))
USAGE = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}


def response(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"object": "response", "status": status, "output": list(output), "usage": USAGE, "error": None, **more}


def message(*content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(content)}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": value, "annotations": [], **more}


def test_a_seed_is_refused_by_name_unless_nobody_asked_for_it() -> None:
    with pytest.raises(Unsupported, match="the responses wire has no place for a seed") as caught:
        WIRE.encode(replace(SMALL, decoding=Decoding(seed=7)), stream=False)
    assert caught.value.detail == {"param": "seed"}
    ours = replace(SMALL, decoding=Decoding(seed=Spare(7)))
    assert WIRE.encode(ours, stream=False) == WIRE.encode(SMALL, stream=False)


def test_everything_is_encoded() -> None:
    request = replace(EVERYTHING, decoding=replace(EVERYTHING.decoding, stop=(), seed=None))
    assert from_json(WIRE.encode(request, stream=False)) == {
        "model": "org/large",
        "store": False,
        "input": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look: "},
                    {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aW1n"},
                    {"type": "input_image", "detail": "auto", "image_url": "https://example.org/a.png"},
                ],
            },
            {"role": "assistant", "content": "I ask."},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Bern"}'},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "oops"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
            {"type": "function_call_output", "call_id": "c2", "output": "Error: no city"},
            {"role": "user", "content": "And now?"},
        ],
        "text": {
            "format": {
                "type": "json_schema",
                "name": "bank_Triage_outputs",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"n": {"type": "integer"}},
                    "required": ["n"],
                    "additionalProperties": False,
                },
            }
        },
        "tools": [
            {
                "type": "function",
                "name": "weather",
                "description": "The weather.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                "strict": False,
            }
        ],
        "tool_choice": "required",
        "max_output_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }


def test_a_small_request_says_no_more_than_it_has_to() -> None:
    small = {"model": "small", "store": False, "input": [{"role": "user", "content": "hello"}]}
    assert from_json(WIRE.encode(SMALL, stream=False)) == small
    assert from_json(WIRE.encode(SMALL, stream=True)) == {**small, "stream": True}


def test_what_it_has_no_place_for_is_refused() -> None:
    with pytest.raises(InvalidInput, match='api = "chat"'):
        WIRE.encode(replace(SMALL, decoding=Decoding(stop=("END",))), stream=False)
    with pytest.raises(InvalidInput, match="audio by address"):
        WIRE.encode(with_media(AUDIO_URL), stream=False)


def test_a_schema_that_strict_mode_cannot_say_goes_as_it_is() -> None:
    body = from_json(WIRE.encode(replace(SMALL, output=FREE), stream=False))
    assert body["text"]["format"]["strict"] is False
    assert body["text"]["format"]["schema"] == FREE.schema


def test_media() -> None:
    tools = replace(with_media(AUDIO, FILE, FILE_URL), tools=EVERYTHING.tools)
    body = from_json(WIRE.encode(tools, stream=False))
    assert body["input"][0]["content"] == [
        {"type": "input_audio", "input_audio": {"data": "YXVk", "format": "mp3"}},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
    ]
    assert "tool_choice" not in body


def test_a_whole_answer_is_decoded() -> None:
    body = response(
        {"type": "reasoning", "summary": []},
        message(text("He", logprobs=[{"token": "He", "logprob": -0.5, "top_logprobs": []}]), text("y")),
    )
    body["usage"] = {
        **USAGE,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    assert WIRE.decode(body, SMALL) == Reply(
        model="mine/small",
        text="Hey",
        usage=Usage(tokens_in=9, tokens_out=3, tokens_cached=4, tokens_cache_write=2, tokens_reasoning=1),
        logprobs=(TokenLogprob("He", -0.5),),
    )


def test_calls_are_decoded() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    reply = WIRE.decode(response(call), SMALL)
    assert (reply.tool_calls, reply.finish) == ((ToolCall("c1", "f", "{}"),), "tool_calls")


def test_a_cut_answer() -> None:
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    reply = WIRE.decode(response(message(text("Hey")), **cut, usage=None), SMALL)
    assert reply.finish == "length"
    assert reply.usage == Usage(tokens_in=2, tokens_out=1, estimated=True)
    assert WIRE.decode(response(status="incomplete"), SMALL).finish == "length"


@pytest.mark.parametrize(
    "body",
    [
        response(message({"type": "refusal", "refusal": "I can't."})),
        response(status="incomplete", incomplete_details={"reason": "content_filter"}),
    ],
)
def test_a_refusal_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(ContentFiltered):
        WIRE.decode(body, SMALL)


def test_a_failed_answer_is_an_error() -> None:
    with pytest.raises(RateLimited, match="slow down"):
        WIRE.decode(response(status="failed", error={"code": "rate_limit_exceeded", "message": "slow down"}), SMALL)


def test_a_stream_is_put_together() -> None:
    reading = WIRE.reading(SMALL)
    assert reading.feed({"type": "response.created", "response": {}}) == ""
    assert reading.feed({"type": "response.output_text.delta", "delta": "Hey"}) == "Hey"
    assert not reading.whole
    assert not reading.done
    assert reading.feed({"type": "response.completed", "response": response(message(text("Hey")))}) == ""
    assert reading.whole
    assert reading.done
    assert reading.reply().text == "Hey"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "sorry"},
        {"error": {"code": 503, "message": "sorry"}},
    ],
)
def test_a_streamed_error_is_raised(event: dict[str, Any]) -> None:
    with pytest.raises(Unavailable, match="sorry"):
        WIRE.reading(SMALL).feed(event)


def test_a_streamed_failure_is_raised() -> None:
    reading = WIRE.reading(SMALL)
    failed = response(status="failed", error={"code": "server_error", "message": "sorry"})
    reading.feed({"type": "response.failed", "response": failed})
    with pytest.raises(Unavailable, match="sorry"):
        reading.reply()
