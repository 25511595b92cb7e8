"""Answers as the three wires write them, whole and as event streams: what the fault server sends when nothing is wrong.

The vendors' own SDKs parse them; a test has them do it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, assert_never

from pydantic_core import from_json, to_json

WireName: TypeAlias = Literal["chat", "responses", "messages"]

# The counts of every answer. Cached and reasoning tokens are part of the first two.
TOKENS_IN: Final = 20
TOKENS_OUT: Final = 7
TOKENS_CACHED: Final = 5
TOKENS_REASONING: Final = 2

_CALL_ID: Final = "call_1"
_CREATED: Final = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model would say: some text, or a call of a tool.

    Args:
        model: its name.
        text: what it writes.
        tool: the tool it calls instead, or None.
        arguments: the call's arguments, JSON text of an object without spaces.
    """

    model: str
    text: str
    tool: str | None = None
    arguments: str = "{}"

    def pieces(self) -> list[str]:
        """The text, or the call's arguments, in pieces of about four characters."""
        whole = self.text if self.tool is None else self.arguments
        return [whole[at : at + 4] for at in range(0, len(whole), 4)]


def wire_of(path: str) -> WireName | None:
    """The wire that a path belongs to, or None."""
    match path.partition("?")[0].rpartition("/")[2]:
        case "completions":
            return "chat"
        case "responses":
            return "responses"
        case "messages":
            return "messages"
        case _:
            return None


def whole(wire: WireName, answer: Answer) -> bytes:
    """The body of an answer that is not streamed."""
    match wire:
        case "chat":
            return to_json(_chat(answer))
        case "responses":
            return to_json(_response(answer))
        case "messages":
            return to_json(_message(answer))
        case _:
            assert_never(wire)


def events(wire: WireName, answer: Answer) -> list[bytes]:
    """The events of a streamed answer, each with its blank line, in order."""
    match wire:
        case "chat":
            return [*(_event(None, event) for event in _chat_events(answer)), b"data: [DONE]\n\n"]
        case "responses":
            numbered = enumerate(_response_events(answer))
            return [_event(event["type"], {**event, "sequence_number": number}) for number, event in numbered]
        case "messages":
            return [_event(event["type"], event) for event in _message_events(answer)]
        case _:
            assert_never(wire)


def error(wire: WireName | None, status: int, code: str, message: str) -> bytes:
    """The body of an error."""
    if wire == "messages":
        return to_json({"type": "error", "error": {"type": code, "message": message}, "request_id": "req_1"})
    return to_json({"error": {"message": message, "type": code, "param": None, "code": code}})


def error_event(wire: WireName, code: str, message: str) -> bytes:
    """An error in the middle of a stream."""
    match wire:
        case "chat":
            return _event(None, {"error": {"message": message, "type": code, "code": code}})
        case "responses":
            event = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 9}
            return _event("error", event)
        case "messages":
            return _event("error", {"type": "error", "error": {"type": code, "message": message}})
        case _:
            assert_never(wire)


def _event(name: str | None, data: Mapping[str, Any]) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + to_json(data) + b"\n\n"


# -- chat completions -----------------------------------------------------------------------------


def _chat(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool is not None:
        function = {"name": answer.tool, "arguments": answer.arguments}
        message |= {"content": None, "tool_calls": [{"id": _CALL_ID, "type": "function", "function": function}]}
    finish = "stop" if answer.tool is None else "tool_calls"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": _CREATED,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _chat_usage(),
    }


def _chat_usage() -> dict[str, Any]:
    return {
        "prompt_tokens": TOKENS_IN,
        "completion_tokens": TOKENS_OUT,
        "total_tokens": TOKENS_IN + TOKENS_OUT,
        "prompt_tokens_details": {"cached_tokens": TOKENS_CACHED},
        "completion_tokens_details": {"reasoning_tokens": TOKENS_REASONING},
    }


def _chat_events(answer: Answer) -> Iterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**head, "choices": [choice], "usage": None}

    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": _CREATED, "model": answer.model}
    yield chunk({"role": "assistant", "content": None if answer.tool else ""})
    if answer.tool is None:
        for piece in answer.pieces():
            yield chunk({"content": piece})
    else:
        start = {"index": 0, "id": _CALL_ID, "type": "function"}
        yield chunk({"tool_calls": [{**start, "function": {"name": answer.tool, "arguments": ""}}]})
        for piece in answer.pieces():
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    yield chunk({}, "stop" if answer.tool is None else "tool_calls")
    yield {**head, "choices": [], "usage": _chat_usage()}


# -- responses ------------------------------------------------------------------------------------


def _response(answer: Answer, status: str = "completed") -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": answer.model,
        "output": [_response_item(answer)] if status == "completed" else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": TOKENS_IN,
            "input_tokens_details": {"cached_tokens": TOKENS_CACHED, "cache_write_tokens": 0},
            "output_tokens": TOKENS_OUT,
            "output_tokens_details": {"reasoning_tokens": TOKENS_REASONING},
            "total_tokens": TOKENS_IN + TOKENS_OUT,
        }
        if status == "completed"
        else None,
    }


def _response_item(answer: Answer) -> dict[str, Any]:
    if answer.tool is not None:
        call = {"call_id": _CALL_ID, "name": answer.tool, "arguments": answer.arguments}
        return {"id": "fc_1", "type": "function_call", "status": "completed", **call}
    part: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _response_events(answer: Answer) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": _response(answer, "in_progress")}
    yield {"type": "response.in_progress", "response": _response(answer, "in_progress")}
    item = _response_item(answer)
    if answer.tool is None:
        yield from _response_text_events(answer, item)
    else:
        at = {"output_index": 0, "item_id": "fc_1"}
        started = {**item, "status": "in_progress", "arguments": ""}
        yield {"type": "response.output_item.added", "output_index": 0, "item": started}
        for piece in answer.pieces():
            yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
        done = {"name": answer.tool, "arguments": answer.arguments}
        yield {"type": "response.function_call_arguments.done", **at, **done}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": _response(answer)}


def _response_text_events(answer: Answer, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    at = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    part = item["content"][0]
    started: dict[str, Any] = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": started}
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for piece in answer.pieces():
        yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": answer.text, "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}


# -- messages -------------------------------------------------------------------------------------


def _message_head(answer: Answer) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": answer.model}


def _message_usage() -> dict[str, Any]:
    # the input is counted beside what was read from the cache
    return {
        "input_tokens": TOKENS_IN - TOKENS_CACHED,
        "cache_read_input_tokens": TOKENS_CACHED,
        "cache_creation_input_tokens": 0,
        "output_tokens": TOKENS_OUT,
        "output_tokens_details": {"thinking_tokens": TOKENS_REASONING},
    }


def _message(answer: Answer) -> dict[str, Any]:
    block = {"type": "text", "text": answer.text} if answer.tool is None else _tool_use(answer, answer.arguments)
    return {
        **_message_head(answer),
        "content": [block],
        "stop_reason": "end_turn" if answer.tool is None else "tool_use",
        "stop_sequence": None,
        "usage": _message_usage(),
    }


def _tool_use(answer: Answer, arguments: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": _CALL_ID, "name": answer.tool, "input": from_json(arguments)}


def _message_events(answer: Answer) -> Iterator[dict[str, Any]]:
    usage = {**_message_usage(), "output_tokens": 1, "output_tokens_details": None}
    head: dict[str, Any] = {**_message_head(answer), "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**head, "usage": usage}}
    block = {"type": "text", "text": ""} if answer.tool is None else _tool_use(answer, "{}")
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "ping"}
    for piece in answer.pieces():
        text = {"type": "text_delta", "text": piece}
        delta = text if answer.tool is None else {"type": "input_json_delta", "partial_json": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": "end_turn" if answer.tool is None else "tool_use", "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": _message_usage()}
    yield {"type": "message_stop"}
