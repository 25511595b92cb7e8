"""OpenAI's Responses API: Request to JSON and back. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_never

from pydantic_core import to_json

from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.request import Finish, OutputSchema, Reply, Request, Spare, ToolSpec, Usage
from kaizen.providers.errors import Origin
from kaizen.providers.schema import OPENAI, closed
from kaizen.providers.wire import (
    PLAIN,
    Memo,
    audio_format,
    count,
    data_url,
    estimated,
    log_probs,
    model_name,
    no_place,
    result_text,
    schema_name,
)


class ResponsesWire:
    """The dialect of ``/responses``. Nothing is kept on the far side (``store`` is false).

    It takes no stop strings and no seed: both are refused, but for a seed that nobody asked for (``Spare``).

    Args:
        origin: names the provider in errors.
    """

    path = "/responses"

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._format: Memo[OutputSchema] = Memo(_text_format)
        self._tools: Memo[tuple[ToolSpec, ...]] = Memo(_tools)

    def encode(self, request: Request, *, stream: bool) -> bytes:
        """The body to post; see ``Wire.encode``."""
        if request.plain:
            raise no_place("responses", PLAIN)
        items = [item for message in request.messages for item in _items(message)]
        out = [b'{"model":', to_json(model_name(request.model)), b',"store":false,"input":', to_json(items)]
        if request.output is not None:
            out += b',"text":', self._format(request.output)
        elif request.json_object:
            out.append(b',"text":{"format":{"type":"json_object"}}')
        if request.tools:
            out += b',"tools":', self._tools(request.tools)
            if request.tool is not None:
                out += b',"tool_choice":', to_json({"type": "function", "name": request.tool})
            elif request.tool_choice != "auto":
                out += b',"tool_choice":', to_json(request.tool_choice)
            if request.parallel_tools is not None:
                out += b',"parallel_tool_calls":', to_json(request.parallel_tools)
        if request.user is not None:
            out += b',"user":', to_json(request.user)
        out += _decoding(request)
        out.append(b',"stream":true}' if stream else b"}")
        return b"".join(out)

    def decode(self, body: Any, request: Request) -> Reply:
        """The Reply of a whole answer's JSON; see ``Wire.decode``."""
        if body["status"] == "failed":
            raise self._origin.reported(request.model, body)
        text: list[str] = []
        calls: list[ToolCall] = []
        logprobs: list[Any] = []
        for item in body["output"]:
            if item["type"] == "function_call":
                calls.append(ToolCall(item["call_id"], item["name"], item["arguments"]))
            elif item["type"] == "message":
                for part in item["content"]:
                    if part["type"] == "refusal":
                        raise self._origin.filtered(request.model, part["refusal"])
                    text.append(part["text"])
                    logprobs += part.get("logprobs") or ()
        joined = "".join(text)
        usage = body.get("usage")
        return Reply(
            model=request.model,
            text=joined,
            tool_calls=tuple(calls),
            finish=self._finish(body, request, has_calls=bool(calls)),
            usage=_usage(usage) if usage else estimated(request, joined),
            logprobs=log_probs(logprobs),
        )

    def reading(self, request: Request) -> ResponsesReading:
        """Begin to read a streamed answer."""
        return ResponsesReading(self, self._origin, request)

    def _finish(self, body: Any, request: Request, *, has_calls: bool) -> Finish:
        if body["status"] != "incomplete":
            return "tool_calls" if has_calls else "stop"
        details: Any = body.get("incomplete_details") or {}
        if details.get("reason") == "content_filter":
            raise self._origin.filtered(request.model, "")
        return "length"


class ResponsesReading:
    """Reads the events of a response; its last one repeats the whole."""

    def __init__(self, wire: ResponsesWire, origin: Origin, request: Request) -> None:
        self._wire = wire
        self._origin = origin
        self._request = request
        self._response: Any = None

    @property
    def whole(self) -> bool:
        """Whether the last event has come."""
        return self._response is not None

    done = whole

    def feed(self, event: Any) -> str:
        """Take one event; see ``Reading.feed``."""
        match event.get("type"):
            case "response.output_text.delta":
                return event["delta"]
            case "response.completed" | "response.incomplete" | "response.failed":
                self._response = event["response"]
            case "error":
                raise self._origin.reported(self._request.model, event)
            case None if "error" in event:
                raise self._origin.reported(self._request.model, event)
            case _:
                pass
        return ""

    def reply(self) -> Reply:
        """The answer; see ``Reading.reply``."""
        return self._wire.decode(self._response, self._request)


def _decoding(request: Request) -> list[bytes]:
    """How tokens are chosen."""
    decoding = request.decoding
    if decoding.stop:
        raise no_place("responses", 'stop strings; use api = "chat"')
    if decoding.seed is not None and not isinstance(decoding.seed, Spare):
        raise no_place("responses", 'a seed; use api = "chat"', "seed")
    if decoding.top_k is not None:
        raise no_place("responses", "top_k")
    if decoding.presence_penalty is not None or decoding.frequency_penalty is not None or decoding.logit_bias:
        raise no_place("responses", 'penalties and logit_bias; use api = "chat"')
    out: list[bytes] = []
    if decoding.max_tokens is not None:
        out += b',"max_output_tokens":', to_json(decoding.max_tokens)
    if decoding.temperature is not None:
        out += b',"temperature":', to_json(decoding.temperature)
    if decoding.top_p is not None:
        out += b',"top_p":', to_json(decoding.top_p)
    if decoding.effort is not None:
        out += b',"reasoning":', to_json({"effort": decoding.effort})
    if request.top_logprobs is not None:
        out += b',"include":["message.output_text.logprobs"],"top_logprobs":', to_json(request.top_logprobs)
    return out


def _usage(usage: Any) -> Usage:
    return Usage(
        tokens_in=usage["input_tokens"],
        tokens_out=usage["output_tokens"],
        tokens_cached=count(usage, "input_tokens_details", "cached_tokens"),
        tokens_cache_write=count(usage, "input_tokens_details", "cache_write_tokens"),
        tokens_reasoning=count(usage, "output_tokens_details", "reasoning_tokens"),
    )


def _items(message: Message) -> Iterator[dict[str, Any]]:
    """A message as this wire has it: calls and results are items beside the messages."""
    content: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text(text):
                content.append({"type": "output_text" if message.role == "assistant" else "input_text", "text": text})
            case Media():
                content.append(_media(part))
            case ToolCall(call_id, name, arguments):
                beside.append({"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})
            case ToolResult(call_id):
                yield {"type": "function_call_output", "call_id": call_id, "output": result_text(part)}
            case _:
                assert_never(part)
    if content:
        plain = len(content) == 1 and "text" in content[0]
        yield {"role": message.role, "content": content[0]["text"] if plain else content}
    yield from beside


def _media(media: Media) -> dict[str, Any]:
    match media.kind:
        case "image":
            return {"type": "input_image", "detail": media.detail or "auto", "image_url": data_url(media)}
        case "audio":
            if media.data is None:
                raise no_place("responses", "audio by address; give its bytes")
            return {"type": "input_audio", "input_audio": {"data": media.data, "format": audio_format(media)}}
        case "file":
            if media.url is not None:
                return {"type": "input_file", "file_url": media.url}
            return {"type": "input_file", "filename": media.name or "file", "file_data": data_url(media)}
        case _:
            assert_never(media.kind)


def _text_format(output: OutputSchema) -> bytes:
    strict = closed(output.schema, OPENAI)
    schema = {
        "type": "json_schema",
        "name": schema_name(output.name),
        "schema": output.schema if strict is None else strict,
        "strict": strict is not None,
        **({"description": output.description} if output.description else {}),
    }
    return to_json({"format": schema})


def _tools(tools: tuple[ToolSpec, ...]) -> bytes:
    return to_json(
        [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.schema,
                # the default is strict, which refuses schemas with optional arguments
                "strict": bool(tool.strict),
            }
            for tool in tools
        ]
    )
