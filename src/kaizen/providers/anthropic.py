"""Anthropic's messages API, and others who speak it. The dialect first, which does no I/O; the provider last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never, cast

from pydantic_core import from_json, to_json

from kaizen.core.message import Mark, Media, Message, Text, ToolCall, ToolResult
from kaizen.core.request import Finish, OutputSchema, Reply, Request, Spare, ToolSpec, Usage
from kaizen.providers.errors import Origin, Secret
from kaizen.providers.http import HttpTransport, TransportSettings
from kaizen.providers.schema import ANTHROPIC, closed
from kaizen.providers.wire import (
    PLAIN,
    Memo,
    WireProvider,
    count,
    estimated,
    model_name,
    no_place,
    schema_name,
)

_ANTHROPIC: Final = "https://api.anthropic.com/v1"
_VERSION: Final = "2023-06-01"
_AUTO: Final = {"type": "auto"}

_FINISH: Final[dict[str, Finish]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


class MessagesWire:
    """The dialect of ``/messages``.

    A schema goes as ``output_config.format``; one that this can't say (free keys, tuples) as a tool the model
    has to call, whose arguments are then the text. There is no seed and there are no log-probabilities: who asks for
    them is refused, and what nobody asked for (``Spare``) is left out.

    Args:
        origin: names the provider in errors.
        max_tokens: the bound on written tokens where a request has none; this API requires one.
    """

    path = "/messages"

    def __init__(self, origin: Origin, max_tokens: int) -> None:
        self._origin = origin
        self._max_tokens = max_tokens
        self._format: Memo[OutputSchema] = Memo(_output_config)
        self._tools: Memo[tuple[ToolSpec, ...]] = Memo(_tools)

    def encode(self, request: Request, *, stream: bool) -> bytes:
        """The body to post; see ``Wire.encode``."""
        decoding = request.decoding
        _check(request)
        system = _system(request.messages)
        turns = [_turn(message) for message in request.messages if message.role != "system"]
        out = [
            b'{"model":',
            to_json(model_name(request.model)),
            b',"max_tokens":',
            to_json(self._max_tokens if decoding.max_tokens is None else decoding.max_tokens),
            b',"messages":',
            to_json(turns),
        ]
        if system:
            out += b',"system":', to_json(system)
        out += self._offers(request)
        if decoding.temperature is not None:
            out += b',"temperature":', to_json(decoding.temperature)
        if decoding.top_p is not None:
            out += b',"top_p":', to_json(decoding.top_p)
        if decoding.top_k is not None:
            out += b',"top_k":', to_json(decoding.top_k)
        if decoding.stop:
            out += b',"stop_sequences":', to_json(decoding.stop)
        if request.user is not None:
            out += b',"metadata":', to_json({"user_id": request.user})
        out.append(b',"stream":true}' if stream else b"}")
        return b"".join(out)

    def decode(self, body: Any, request: Request) -> Reply:
        """The Reply of a whole answer's JSON; see ``Wire.decode``."""
        text: list[str] = []
        calls: list[ToolCall] = []
        for block in body["content"]:
            if block["type"] == "text":
                text.append(block["text"])
            elif block["type"] == "tool_use":
                calls.append(ToolCall(block["id"], block["name"], to_json(block["input"]).decode()))
        return self.reply(request, "".join(text), calls, body["stop_reason"], body.get("usage"))

    def reading(self, request: Request) -> MessagesReading:
        """Begin to read a streamed answer."""
        return MessagesReading(self, self._origin, request)

    def output_tool(self, request: Request) -> str | None:
        """The tool whose arguments are the answer's text, where the schema goes as one."""
        if request.output is None or self._format(request.output):
            return None
        return schema_name(request.output.name)

    def reply(self, request: Request, text: str, calls: list[ToolCall], stop: str | None, usage: Any) -> Reply:
        """The Reply of an answer's parts.

        Raises:
            ContentFiltered: if the model refused.
        """
        if stop == "refusal":
            raise self._origin.filtered(request.model, "")
        finish = _FINISH.get(stop or "", "stop")
        if (name := self.output_tool(request)) is not None:
            for call in calls:
                if call.name == name:
                    text, finish = call.arguments, "length" if finish == "length" else "stop"
            calls = [call for call in calls if call.name != name]
        return Reply(
            model=request.model,
            text=text,
            tool_calls=tuple(calls),
            finish="tool_calls" if calls and finish == "stop" else finish,
            usage=_usage(usage) if usage else estimated(request, text),
        )

    def _offers(self, request: Request) -> list[bytes]:
        """The schema and the tools."""
        out: list[bytes] = []
        tools = request.tools
        choice: dict[str, Any] = {"type": {"auto": "auto", "required": "any", "none": "none"}[request.tool_choice]}
        if request.tool is not None:
            choice = {"type": "tool", "name": request.tool}
        if request.output is not None:
            if config := self._format(request.output):
                out += b',"output_config":', config
            else:
                name = schema_name(request.output.name)
                choice = {"type": "any"} if tools else {"type": "tool", "name": name}
                tools = (*tools, ToolSpec(name, "Give the answer.", request.output.schema))
        if tools:
            out += b',"tools":', self._tools(tools) if tools is request.tools else _tools(tools)
            if request.parallel_tools is False and choice["type"] != "none":
                choice["disable_parallel_tool_use"] = True
            if choice != _AUTO:
                out += b',"tool_choice":', to_json(choice)
        return out


class MessagesReading:
    """Puts the events of a streamed message together."""

    def __init__(self, wire: MessagesWire, origin: Origin, request: Request) -> None:
        self._wire = wire
        self._origin = origin
        self._request = request
        self._output_tool = wire.output_tool(request)
        self._text: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._usage: dict[str, Any] = {}
        self._stop: str | None = None
        self.done = False

    @property
    def whole(self) -> bool:
        """Whether the stop reason has come."""
        return self._stop is not None

    def feed(self, event: Any) -> str:
        """Take one event; see ``Reading.feed``."""
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event["index"], event["delta"])
            case "content_block_start":
                block = event["content_block"]
                if block["type"] == "tool_use":
                    self._calls[event["index"]] = [block["id"], block["name"], ""]
            case "message_start":
                self._count(event["message"].get("usage"))
            case "message_delta":
                self._stop = event["delta"].get("stop_reason") or self._stop
                self._count(event.get("usage"))
            case "message_stop":
                self.done = True
            case _ if "error" in event:
                raise self._origin.reported(self._request.model, event)
            case _:
                pass
        return ""

    def reply(self) -> Reply:
        """The answer; see ``Reading.reply``."""
        calls = [ToolCall(id_, name, arguments or "{}") for id_, name, arguments in self._calls.values()]
        return self._wire.reply(self._request, "".join(self._text), calls, self._stop, self._usage)

    def _delta(self, index: int, delta: Any) -> str:
        match delta["type"]:
            case "text_delta":
                self._text.append(delta["text"])
                return delta["text"]
            case "input_json_delta":
                call = self._calls[index]
                call[2] += delta["partial_json"]
                return delta["partial_json"] if call[1] == self._output_tool else ""
            case _:
                return ""

    def _count(self, usage: Any) -> None:
        """Later counts replace earlier ones: they are sums so far."""
        counts: dict[str, Any] = usage or {}
        self._usage |= {name: value for name, value in counts.items() if value is not None}


class AnthropicProvider(WireProvider):
    """A Provider that speaks Anthropic's messages API.

    Args:
        name: its name in the settings, and the first segment of its models' refs.
        base_url: up to and with ``/v1``.
        api_key: sent as ``x-api-key``; None sends none.
        max_tokens: the bound on written tokens where a request has none; this API requires one.
        transport: timeouts and limits.

    Raises:
        ConfigError: if ``base_url`` or ``api_key`` can't be used.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str = _ANTHROPIC,
        api_key: str | None = None,
        max_tokens: int = 4096,
        transport: TransportSettings | None = None,
    ) -> None:
        origin = Origin(name, Secret(api_key) if api_key else None)
        headers = {"anthropic-version": _VERSION, **({"x-api-key": api_key} if api_key else {})}
        http = HttpTransport(base_url, headers, origin, transport or TransportSettings())
        super().__init__(MessagesWire(origin, max_tokens), http, origin)


def _check(request: Request) -> None:
    """Refuse what this API has no place for."""
    decoding = request.decoding
    if request.plain:
        raise no_place("messages", PLAIN)
    if decoding.seed is not None and not isinstance(decoding.seed, Spare):
        raise no_place("messages", "a seed", "seed")
    if request.top_logprobs is not None and not isinstance(request.top_logprobs, Spare):
        raise no_place("messages", "log-probabilities", "logprobs")
    if decoding.presence_penalty is not None or decoding.frequency_penalty is not None or decoding.logit_bias:
        raise no_place("messages", "penalties and logit_bias")
    if decoding.effort not in (None, "none"):
        raise no_place("messages", "a reasoning effort")
    if request.json_object and request.output is None:
        raise no_place("messages", "JSON without a schema; give a JSON schema")


def _system(messages: Sequence[Message]) -> str | list[dict[str, Any]]:
    """The instructions: one text, or blocks where any of them is marked."""
    said = [message for message in messages if message.role == "system"]
    parts = [part for message in said for part in message.parts if isinstance(part, Text)]
    if not any(part.mark for part in parts):
        return "\n\n".join(message.text for message in said)
    return [_block(part) for part in parts]


def _marked(block: dict[str, Any], mark: Mark | None) -> dict[str, Any]:
    """A block up to which the prompt is kept in the provider's cache, where that is asked for."""
    if mark is None:
        return block
    return {**block, "cache_control": {"type": "ephemeral", **({"ttl": mark} if mark != "5m" else {})}}


def _usage(usage: Any) -> Usage:
    """Anthropic counts what was read from and written to the cache beside the input; we count it in."""
    read, written = count(usage, "cache_read_input_tokens"), count(usage, "cache_creation_input_tokens")
    return Usage(
        tokens_in=count(usage, "input_tokens") + read + written,
        tokens_out=usage["output_tokens"],
        tokens_cached=read,
        tokens_cache_write=written,
        tokens_reasoning=count(usage, "output_tokens_details", "thinking_tokens"),
    )


def _turn(message: Message) -> dict[str, Any]:
    role = "assistant" if message.role == "assistant" else "user"
    if len(message.parts) == 1 and isinstance(part := message.parts[0], Text) and part.mark is None:
        return {"role": role, "content": part.text}
    return {"role": role, "content": [_block(part) for part in message.parts]}


def _block(part: Text | Media | ToolCall | ToolResult) -> dict[str, Any]:
    match part:
        case Text(text):
            return _marked({"type": "text", "text": text}, part.mark)
        case Media():
            return _marked(_media(part), part.mark)
        case ToolCall(call_id, name, arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": _input(arguments)}
        case ToolResult(call_id, content, is_error):
            block = {"type": "tool_result", "tool_use_id": call_id, "content": content}
            return _marked({**block, "is_error": True} if is_error else block, part.mark)
        case _:
            assert_never(part)


def _input(arguments: str) -> Any:
    """A call's arguments as the object that this wire wants; what is none is shown to the model as it wrote it."""
    try:
        value = from_json(arguments)
    except ValueError:
        value = None
    return cast("Any", value) if isinstance(value, dict) else {"arguments": arguments}


def _media(media: Media) -> dict[str, Any]:
    if media.kind == "audio":
        raise no_place("messages", "audio")
    source = (
        {"type": "url", "url": media.url}
        if media.url is not None
        else {"type": "base64", "media_type": media.media_type, "data": media.data}
    )
    if media.kind == "image":
        return {"type": "image", "source": source}
    return {"type": "document", "source": source, **({"title": media.name} if media.name else {})}


def _output_config(output: OutputSchema) -> bytes:
    """Empty where the schema can't be said so."""
    schema = closed(output.schema, ANTHROPIC)
    return to_json({"format": {"type": "json_schema", "schema": schema}}) if schema is not None else b""


def _tools(tools: tuple[ToolSpec, ...]) -> bytes:
    return to_json(
        [
            _marked({"name": tool.name, "description": tool.description, "input_schema": tool.schema}, tool.mark)
            | ({"strict": True} if tool.strict else {})
            for tool in tools
        ]
    )
