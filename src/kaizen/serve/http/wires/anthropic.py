"""``POST /v1/messages``, as Anthropic's clients speak it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, assert_never, cast

import msgspec

from kaizen.core.message import Mark, Media, Message, Part, Text, ToolCall, ToolResult
from kaizen.core.request import Finish, Reply, Request, ToolChoice, ToolSpec, Usage
from kaizen.serve.http.problem import Problem, Refused, unsupported
from kaizen.serve.http.wires.messages_body import (
    BODY,
    Block,
    Choice,
    DocumentBlock,
    ImageBlock,
    MessagesBody,
    Source,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    mark_of,
    output_of,
    tools_of,
)
from kaizen.serve.http.wires.wire import (
    Asked,
    Caller,
    Parsed,
    checked_request,
    decoded,
    decoding,
    given,
    named_tool,
    summary,
    to_text,
)

_STOP: Final[dict[Finish, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_CHARACTERS_A_TOKEN: Final = 4


class Messages:
    """The wire. ``Asked.echo`` is not used."""

    name = "messages"

    def __init__(self) -> None:
        self._tools = Parsed(tools_of)
        self._outputs = Parsed(output_of)

    def decode(self, body: bytes, caller: Caller) -> Asked:
        """See ``Wire.decode``."""
        said = decoded(BODY, body)
        if not said.max_tokens:
            raise Refused(400, "invalid_request", "max_tokens is missing", param="max_tokens")
        tools = self._tools(said.tools) if given(said.tools) else ()
        choice, tool = _choice_of(said.tool_choice, tools)
        parallel = None
        if tools and said.tool_choice is not None and said.tool_choice.disable_parallel_tool_use is not None:
            parallel = not said.tool_choice.disable_parallel_tool_use
        stop = said.stop_sequences
        request = Request(
            scope=caller.scope,
            model=caller.resolve(said.model, "anthropic"),
            messages=_messages(said),
            output=self._outputs(said.output_config) if given(said.output_config) else None,
            tools=tools,
            tool_choice=choice,
            tool=tool,
            parallel_tools=parallel,
            decoding=decoding(
                said.temperature, said.top_p, said.max_tokens, None, tuple(stop) if stop else (), said.top_k
            ),
            options=caller.options,
            user=said.metadata.user_id if said.metadata else None,
        )
        return Asked(checked_request(request, "messages"), bool(said.stream))

    def encode(self, asked: Asked, replies: Sequence[Reply]) -> bytes:
        """See ``Wire.encode``."""
        reply = replies[0]
        content: list[dict[str, Any]] = []
        if reply.text or not reply.tool_calls:
            content.append({"type": "text", "text": reply.text, "citations": None})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in reply.tool_calls
        ]
        return to_text(
            {
                "id": f"msg_{asked.id}",
                "type": "message",
                "role": "assistant",
                "model": reply.model,
                "content": content,
                "stop_reason": _STOP[reply.finish],
                "stop_sequence": None,
                "usage": _usage(reply.usage),
            }
        )

    def writing(self, asked: Asked) -> MessagesWriting:
        """See ``Wire.writing``."""
        return MessagesWriting(asked)

    def error(self, problem: Problem, call_id: str) -> bytes:
        """See ``Wire.error``."""
        return to_text({"type": "error", "error": _error(problem), "request_id": call_id})

    def count(self, body: bytes, caller: Caller) -> bytes:
        """An estimate of a prompt's tokens, one for every four characters begun: no provider is asked."""
        said = decoded(BODY, body)
        characters = sum(_size(message) for message in _messages(said))
        characters += len(bytes(said.tools)) if given(said.tools) else 0
        caller.resolve(said.model, "anthropic")
        return to_text({"input_tokens": -(-characters // _CHARACTERS_A_TOKEN)})


class MessagesWriting:
    """A streamed message. The prompt's tokens are known at its end; clients take the last count they are given."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._open = False

    def begin(self) -> bytes:
        """Who speaks."""
        message: dict[str, Any] = {
            "id": f"msg_{self._asked.id}",
            "type": "message",
            "role": "assistant",
            "model": self._asked.request.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(Usage()),
        }
        return _event("message_start", message=message)

    def text(self, text: str) -> bytes:
        """A piece of the text."""
        head = b"" if self._open else self._start(0, {"type": "text", "text": "", "citations": None})
        self._open = True
        return b"%b%b%b}}\n\n" % (head, _PIECE, to_text(text))

    def end(self, reply: Reply) -> bytes:
        """The calls, why it stopped, the usage, and the mark of the end."""
        out: list[bytes] = []
        at = 0
        if not self._open and not reply.tool_calls:
            out.append(self.text(reply.text))
        if self._open:
            out.append(_event("content_block_stop", index=0))
            at = 1
        for index, call in enumerate(reply.tool_calls, at):
            block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": to_text(_input(call)).decode()}
            out += (
                self._start(index, block),
                _event("content_block_delta", index=index, delta=delta),
                _event("content_block_stop", index=index),
            )
        stop = {"stop_reason": _STOP[reply.finish], "stop_sequence": None}
        out += (
            _event("message_delta", delta=stop, usage=_usage(reply.usage)),
            b": kaizen %b\n\n" % to_text(summary(reply)),
            _event("message_stop"),
        )
        return b"".join(out)

    def fail(self, problem: Problem) -> bytes:
        """The error, and no mark of the end."""
        return _event("error", error=_error(problem))

    def _start(self, index: int, block: dict[str, Any]) -> bytes:
        return _event("content_block_start", index=index, content_block=block)


_PIECE: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":'
)
_KINDS: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _event(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), to_text({"type": name, **fields}))


def _error(problem: Problem) -> dict[str, str]:
    kind = _KINDS.get(problem.status) or ("invalid_request_error" if problem.status < 500 else "api_error")
    return {"type": kind, "message": problem.message, "code": problem.code}


def _usage(usage: Usage) -> dict[str, Any]:
    """This wire counts what was read from and written to the cache beside the input."""
    return {
        "input_tokens": max(0, usage.tokens_in - usage.tokens_cached - usage.tokens_cache_write),
        "cache_read_input_tokens": usage.tokens_cached,
        "cache_creation_input_tokens": usage.tokens_cache_write,
        "output_tokens": usage.tokens_out,
    }


def _choice_of(said: Choice | None, tools: Sequence[ToolSpec]) -> tuple[ToolChoice, str | None]:
    match said:
        case None | Choice(type="auto"):
            return "auto", None
        case Choice(type="none"):
            return "none", None
        case Choice(type="any"):
            return "required", None
        case _:
            return "required", named_tool(tools, said.name or "", "tool_choice.name")


def _input(call: ToolCall) -> Any:
    """A call's arguments as an object; what is none is shown as the model wrote it."""
    try:
        value: Any = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError):
        value = None
    return cast("Any", value) if isinstance(value, dict) else {"arguments": call.arguments}


def _messages(said: MessagesBody) -> tuple[Message, ...]:
    messages: list[Message] = []
    if isinstance(said.system, str):
        messages.append(Message.of("system", said.system))
    elif said.system:
        messages.append(Message("system", tuple([Text(one.text, mark_of(one.cache_control)) for one in said.system])))
    for at, turn in enumerate(said.messages):
        if isinstance(turn.content, str):
            messages.append(Message.of(turn.role, turn.content))
        else:
            parts = [
                part for n, block in enumerate(turn.content) for part in _parts(block, f"messages[{at}].content[{n}]")
            ]
            messages.append(Message(turn.role, tuple(parts)))
    return tuple(messages)


def _parts(block: Block, param: str) -> list[Part]:
    mark = mark_of(block.cache_control)
    match block:
        case TextBlock(text):
            return [Text(text, mark)]
        case ImageBlock(source):
            return [_media("image", source, None, mark, param)]
        case DocumentBlock(source, title):
            return [_media("file", source, title, mark, param)]
        case ToolUseBlock(call_id, name, arguments):
            return [ToolCall(call_id, name, bytes(arguments).decode())]
        case ToolResultBlock(call_id, content, is_error):
            if content is None or isinstance(content, str):
                return [ToolResult(call_id, content or "", bool(is_error), mark)]
            text = "".join([one.text for one in content if isinstance(one, TextBlock)])
            # core's results are text: what was shown beside it stands right behind the result, in the same turn
            shown = [part for one in content if not isinstance(one, TextBlock) for part in _parts(one, param)]
            return [ToolResult(call_id, text, bool(is_error), mark), *shown]
        case _:
            assert_never(block)


def _media(kind: Literal["image", "file"], source: Source, name: str | None, mark: Mark | None, param: str) -> Part:
    match source:
        case Source(type="url", url=str(url)):
            return Media(kind, "image/*" if kind == "image" else "application/pdf", url=url, name=name, mark=mark)
        case Source(type="base64", media_type=str(media_type), data=str(data)):
            return Media(kind, media_type, data=data, name=name, mark=mark)
        case Source(type="text", data=str(data)) if kind == "file":
            return Text(f"{name}\n\n{data}" if name else data, mark)
        case _:
            raise unsupported(f"{param}.source", "has to be base64 with media_type and data, or a url")


def _size(message: Message) -> int:
    size = 0
    for part in message.parts:
        match part:
            case Text(text):
                size += len(text)
            case ToolCall(_, name, arguments):
                size += len(name) + len(arguments)
            case ToolResult(_, content):
                size += len(content)
            case Media():
                pass  # no provider counts them by their bytes
            case _:
                assert_never(part)
    return size
