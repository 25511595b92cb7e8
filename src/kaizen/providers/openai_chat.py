"""OpenAI's chat completions, as its API and many others speak it: Request to JSON and back. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias, assert_never, cast

from pydantic_core import to_json

from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.request import Finish, OutputSchema, Reply, Request, ToolSpec, Usage
from kaizen.providers.errors import Origin
from kaizen.providers.schema import OPENAI, closed
from kaizen.providers.wire import (
    PLAIN,
    Memo,
    audio_format,
    data_url,
    estimated,
    log_probs,
    model_name,
    no_place,
    result_text,
    schema_name,
)

MaxTokensField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]

# What others than OpenAI write, too. Anything else, null included, is a stop.
_FINISH: Final[dict[str, Finish]] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class ChatWire:
    """The dialect of ``/chat/completions``.

    Args:
        origin: names the provider in errors.
        max_tokens_field: the name under which the bound on written tokens goes.
    """

    path = "/chat/completions"

    def __init__(self, origin: Origin, max_tokens_field: MaxTokensField = "max_tokens") -> None:
        self._origin = origin
        self._max_tokens = f',"{max_tokens_field}":'.encode()
        self._format: Memo[OutputSchema] = Memo(_response_format)
        self._tools: Memo[tuple[ToolSpec, ...]] = Memo(_tools)

    def encode(self, request: Request, *, stream: bool) -> bytes:
        """The body to post; see ``Wire.encode``."""
        if request.plain:
            raise no_place("chat completions", PLAIN)
        messages: list[dict[str, Any]] = []
        for message in request.messages:
            parts = message.parts
            if len(parts) == 1 and type(part := parts[0]) is Text:  # nearly always
                messages.append({"role": message.role, "content": part.text})
            else:
                messages += _messages(message)
        out = [b'{"model":', to_json(model_name(request.model)), b',"messages":', to_json(messages)]
        if request.output is not None:
            out += b',"response_format":', self._format(request.output)
        elif request.json_object:
            out.append(b',"response_format":{"type":"json_object"}')
        if request.tools:
            out += b',"tools":', self._tools(request.tools)
            if request.tool is not None:
                out += b',"tool_choice":', to_json({"type": "function", "function": {"name": request.tool}})
            elif request.tool_choice != "auto":
                out += b',"tool_choice":', to_json(request.tool_choice)
            if request.parallel_tools is not None:
                out += b',"parallel_tool_calls":', to_json(request.parallel_tools)
        if request.user is not None:
            out += b',"user":', to_json(request.user)
        out += self._decoding(request)
        out.append(b',"stream":true,"stream_options":{"include_usage":true}}' if stream else b"}")
        return b"".join(out)

    def _decoding(self, request: Request) -> list[bytes]:
        """How tokens are chosen."""
        out: list[bytes] = []
        decoding = request.decoding
        if decoding.max_tokens is not None:
            out += self._max_tokens, to_json(decoding.max_tokens)
        if decoding.temperature is not None:
            out += b',"temperature":', to_json(decoding.temperature)
        if decoding.top_p is not None:
            out += b',"top_p":', to_json(decoding.top_p)
        if decoding.seed is not None:
            out += b',"seed":', to_json(decoding.seed)
        if decoding.stop:
            out += b',"stop":', to_json(decoding.stop)
        if request.top_logprobs is not None:
            out += b',"logprobs":true,"top_logprobs":', to_json(request.top_logprobs)
        if decoding.top_k is not None:
            # not OpenAI's own, but vLLM, llama.cpp, OpenRouter and others take it; OpenAI refuses it by name
            out += b',"top_k":', to_json(decoding.top_k)
        if decoding.presence_penalty is not None:
            out += b',"presence_penalty":', to_json(decoding.presence_penalty)
        if decoding.frequency_penalty is not None:
            out += b',"frequency_penalty":', to_json(decoding.frequency_penalty)
        if decoding.logit_bias:
            out += b',"logit_bias":', to_json(dict(decoding.logit_bias))
        if decoding.effort is not None:
            out += b',"reasoning_effort":', to_json(decoding.effort)
        return out

    def decode(self, body: Any, request: Request) -> Reply:
        """The Reply of a whole answer's JSON; see ``Wire.decode``."""
        choice = body["choices"][0]
        message = choice["message"]
        logprobs = choice.get("logprobs")
        return _reply(
            self._origin,
            request,
            text=_text(message.get("content")),
            refusal=message.get("refusal") or "",
            calls=tuple(_call(call) for call in message.get("tool_calls") or ()),
            finish=choice.get("finish_reason"),
            usage=body.get("usage"),
            logprobs=logprobs.get("content") if logprobs else None,
        )

    def reading(self, request: Request) -> ChatReading:
        """Begin to read a streamed answer."""
        return ChatReading(self._origin, request)


class ChatReading:
    """Puts the chunks of a chat completion together."""

    # The counts follow after the finish, and [DONE] after them: only that mark ends the stream.
    done = False

    def __init__(self, origin: Origin, request: Request) -> None:
        self._origin = origin
        self._request = request
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._logprobs: list[Any] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None

    @property
    def whole(self) -> bool:
        """Whether the finish has come."""
        return self._finish is not None

    def feed(self, event: Any) -> str:
        """Take one chunk; see ``Reading.feed``."""
        if event.get("error"):
            raise self._origin.reported(self._request.model, event)
        if event.get("usage"):
            self._usage = event["usage"]
        if not event.get("choices"):
            return ""
        choice = event["choices"][0]
        self._finish = choice.get("finish_reason") or self._finish
        if logprobs := choice.get("logprobs"):
            self._logprobs += logprobs.get("content") or ()
        delta: Any = choice.get("delta") or {}
        if delta.get("refusal"):
            self._refusal.append(delta["refusal"])
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        text = _text(delta.get("content"))
        if text:
            self._text.append(text)
        return text

    def reply(self) -> Reply:
        """The answer; see ``Reading.reply``."""
        return _reply(
            self._origin,
            self._request,
            text="".join(self._text),
            refusal="".join(self._refusal),
            calls=tuple(ToolCall(*call) for _, call in sorted(self._calls.items())),
            finish=self._finish,
            usage=self._usage,
            logprobs=self._logprobs,
        )

    def _add_call(self, delta: Any) -> None:
        """A call comes in pieces: its id and name once, its arguments bit by bit."""
        call = self._calls.setdefault(delta.get("index", 0), ["", "", ""])
        function: Any = delta.get("function") or {}
        call[0] = delta.get("id") or call[0]
        call[1] = function.get("name") or call[1]
        call[2] += function.get("arguments") or ""


def _reply(
    origin: Origin,
    request: Request,
    *,
    text: str,
    refusal: str,
    calls: tuple[ToolCall, ...],
    finish: str | None,
    usage: Any,
    logprobs: list[Any] | None,
) -> Reply:
    if refusal or finish == "content_filter":
        raise origin.filtered(request.model, refusal)
    return Reply(
        model=request.model,
        text=text,
        tool_calls=calls,
        finish="tool_calls" if calls else _FINISH.get(finish or "", "stop"),
        usage=_usage(usage) if usage else estimated(request, text),
        logprobs=log_probs(logprobs) if logprobs else (),
    )


def _usage(usage: Any) -> Usage:
    prompt: Any = usage.get("prompt_tokens_details") or {}
    completion: Any = usage.get("completion_tokens_details") or {}
    return Usage(
        tokens_in=usage["prompt_tokens"],
        tokens_out=usage.get("completion_tokens") or 0,
        tokens_cached=prompt.get("cached_tokens") or 0,
        tokens_cache_write=prompt.get("cache_write_tokens") or 0,
        tokens_reasoning=completion.get("reasoning_tokens") or 0,
    )


def _text(content: Any) -> str:
    """The text of a message or delta; some vendors send a list of parts."""
    if isinstance(content, list):
        parts = cast("list[Any]", content)
        return "".join(part.get("text") or "" for part in parts if part.get("type") == "text")
    return content or ""


def _call(call: Any) -> ToolCall:
    return ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])


def _messages(message: Message) -> Iterator[dict[str, Any]]:
    """A message as this wire has it: tool results stand alone, one message each, before what else is said."""
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text(text):
                content.append({"type": "text", "text": text})
            case Media():
                content.append(_media(part))
            case ToolCall(call_id, name, arguments):
                calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}})
            case ToolResult(call_id):
                yield {"role": "tool", "tool_call_id": call_id, "content": result_text(part)}
            case _:
                assert_never(part)
    if content or calls:
        # one text goes as a plain string, which servers with small templates require
        plain = len(content) == 1 and content[0]["type"] == "text"
        out: dict[str, Any] = {"role": message.role, "content": content[0]["text"] if plain else content or None}
        yield {**out, "tool_calls": calls} if calls else out


def _media(media: Media) -> dict[str, Any]:
    if media.kind == "image":
        detail = {"detail": media.detail} if media.detail else {}
        return {"type": "image_url", "image_url": {"url": data_url(media), **detail}}
    if media.data is None:
        raise no_place("chat completions", f"{media.kind} by address; give its bytes")
    if media.kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": media.data, "format": audio_format(media)}}
    return {"type": "file", "file": {"filename": media.name or "file", "file_data": data_url(media)}}


def _response_format(output: OutputSchema) -> bytes:
    strict = closed(output.schema, OPENAI)
    schema = {
        "name": schema_name(output.name),
        "schema": output.schema if strict is None else strict,
        "strict": strict is not None,
        **({"description": output.description} if output.description else {}),
    }
    return to_json({"type": "json_schema", "json_schema": schema})


def _tools(tools: tuple[ToolSpec, ...]) -> bytes:
    return to_json(
        [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.schema,
                    **({} if tool.strict is None else {"strict": tool.strict}),
                },
            }
            for tool in tools
        ]
    )
