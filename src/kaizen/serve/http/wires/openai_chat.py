"""``POST /v1/chat/completions``, as OpenAI's clients speak it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, assert_never

from msgspec import UNSET, Struct, UnsetType

from kaizen.core.message import Media, Message, Part, Text, ToolCall, ToolResult
from kaizen.core.request import Decoding, Reply, Request, Usage
from kaizen.serve.http.problem import Problem, unsupported
from kaizen.serve.http.wires.chat_body import (
    BODY,
    Assistant,
    AudioPart,
    ChatBody,
    Developer,
    FileData,
    FilePart,
    FunctionCall,
    ImagePart,
    ImageUrl,
    InputAudio,
    System,
    TextPart,
    Tool,
    User,
    choice_of,
    format_of,
    tools_of,
)
from kaizen.serve.http.wires.wire import (
    Asked,
    Caller,
    Parsed,
    checked_request,
    data_url,
    decoded,
    decoding,
    given,
    logprob_items,
    named_tool,
    summary,
    to_text,
)

_AUDIO: Final = {"mp3": "audio/mpeg", "wav": "audio/wav"}


class Called(Struct):
    """A call of a tool."""

    id: str
    function: FunctionCall
    type: str = "function"


class Answered(Struct):
    """A message."""

    content: str | None
    role: str = "assistant"
    refusal: str | None = None
    tool_calls: list[Called] | UnsetType = UNSET
    annotations: tuple[()] = ()


class Choice(Struct):
    """One of the answers."""

    index: int
    message: Answered
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class PromptDetails(Struct):
    """What of the prompt was cached."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionDetails(Struct):
    """What of the answer was not shown."""

    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class UsageOut(Struct):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Completion(Struct):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: UsageOut
    object: str = "chat.completion"
    system_fingerprint: str | None = None


class ChatCompletions:
    """The wire. ``Asked.echo`` is not used."""

    name = "chat"

    def __init__(self) -> None:
        self._tools = Parsed(tools_of)
        self._choices = Parsed(choice_of)
        self._formats = Parsed(format_of)

    def decode(self, body: bytes, caller: Caller) -> Asked:
        """See ``Wire.decode``."""
        said = decoded(BODY, body)
        tools = self._tools(said.tools) if given(said.tools) else ()
        choice, tool = self._choices(said.tool_choice) if given(said.tool_choice) else ("auto", None)
        if tool is not None:
            named_tool(tools, tool, "tool_choice.function.name")
        output, json_object = (None, False)
        if given(said.response_format):
            output, json_object = self._formats(said.response_format)
        top = said.top_logprobs
        if top is not None and not said.logprobs:
            raise unsupported("top_logprobs", "needs logprobs to be true")
        count = said.n or 1
        if count > 1 and said.stream:
            raise unsupported("n", "is not supported for streams")
        request = Request(
            scope=caller.scope,
            model=caller.resolve(said.model, "openai"),
            messages=tuple([message_of(one, at) for at, one in enumerate(said.messages)]),
            output=output,
            tools=tools,
            tool_choice=choice,
            tool=tool,
            parallel_tools=said.parallel_tool_calls if tools else None,
            json_object=json_object,
            decoding=_decoding(said),
            top_logprobs=(top or 0) if said.logprobs else None,
            options=caller.options,
            user=said.user if said.safety_identifier is None else said.safety_identifier,
        )
        usage = bool(said.stream_options and said.stream_options.include_usage)
        return Asked(checked_request(request, "messages"), bool(said.stream), count, usage)

    def encode(self, asked: Asked, replies: Sequence[Reply]) -> bytes:
        """See ``Wire.encode``."""
        if len(replies) == 1 and not (replies[0].tool_calls or replies[0].logprobs):
            return _plainly(asked, replies[0])
        choices = [_choice_out(at, reply) for at, reply in enumerate(replies)]
        usage = usage_out(replies[0].usage) if len(replies) == 1 else _summed(replies)
        return to_text(Completion(f"chatcmpl-{asked.id}", asked.created, replies[0].model, choices, usage))

    def writing(self, asked: Asked) -> ChatWriting:
        """See ``Wire.writing``."""
        return ChatWriting(asked)

    def error(self, problem: Problem, call_id: str) -> bytes:
        """See ``Wire.error``."""
        return error_body(problem)


def _plainly(asked: Asked, reply: Reply) -> bytes:
    """One answer that is a text: what ``Completion`` would be encoded to, without making it first."""
    usage = reply.usage
    return _PLAIN % (
        asked.id.encode(),
        asked.created,
        to_text(reply.model),
        to_text(reply.text),
        reply.finish.encode(),
        usage.tokens_in,
        usage.tokens_out,
        usage.tokens_in + usage.tokens_out,
        usage.tokens_cached,
        usage.tokens_reasoning,
    )


_PLAIN: Final = (
    b'{"id":"chatcmpl-%b","created":%d,"model":%b,"choices":[{"index":0,"message":{"content":%b,"role":"assistant",'
    b'"refusal":null,"annotations":[]},"finish_reason":"%b","logprobs":null}],"usage":{"prompt_tokens":%d,'
    b'"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,"accepted_prediction_tokens":0,'
    b'"rejected_prediction_tokens":0}},"object":"chat.completion","system_fingerprint":null}'
)


class ChatWriting:
    """A streamed chat completion. Tool calls and log-probabilities come with the last piece, when they are known."""

    def __init__(self, asked: Asked) -> None:
        self._usage = asked.usage
        head = f'data: {{"id":"chatcmpl-{asked.id}","object":"chat.completion.chunk","created":{asked.created},"model":'
        self._head = head.encode() + to_text(asked.request.model)
        self._delta = self._head + b',"choices":[{"index":0,"delta":'
        self._piece = self._delta + b'{"content":'
        self._tail = b'},"logprobs":null,"finish_reason":null}]' + (b',"usage":null}\n\n' if asked.usage else b"}\n\n")

    def begin(self) -> bytes:
        """Who speaks."""
        return self._delta + b'{"role":"assistant","content":"","refusal":null' + self._tail

    def text(self, text: str) -> bytes:
        """A piece of the text."""
        return b"%b%b%b" % (self._piece, to_text(text), self._tail)

    def end(self, reply: Reply) -> bytes:
        """The calls, the finish, the usage if it was asked for, a comment on the record, and the mark of the end."""
        out: list[bytes] = []
        if reply.tool_calls:
            calls = [
                {"index": at, "id": call.id, "type": "function", "function": _function(call)}
                for at, call in enumerate(reply.tool_calls)
            ]
            out += self._delta, b'{"tool_calls":', to_text(calls), self._tail
        logprobs = {"content": logprob_items(reply.logprobs), "refusal": None} if reply.logprobs else None
        finish = b'{},"logprobs":%b,"finish_reason":"%b"}]' % (to_text(logprobs), reply.finish.encode())
        out += self._delta, finish, b',"usage":null}\n\n' if self._usage else b"}\n\n"
        if self._usage:
            out += self._head, b',"choices":[],"usage":', to_text(usage_out(reply.usage)), b"}\n\n"
        out += b": kaizen ", to_text(summary(reply)), b"\n\ndata: [DONE]\n\n"
        return b"".join(out)

    def fail(self, problem: Problem) -> bytes:
        """The error, and no mark of the end."""
        return b"data: %b\n\n" % error_body(problem)


def error_body(problem: Problem) -> bytes:
    """An error as OpenAI's wires have it."""
    kind = _KINDS.get(problem.status) or ("invalid_request_error" if problem.status < 500 else "server_error")
    error = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
    return to_text({"error": error})


_KINDS: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


def usage_out(usage: Usage) -> UsageOut:
    """A usage as this wire has it."""
    return UsageOut(
        usage.tokens_in,
        usage.tokens_out,
        usage.tokens_in + usage.tokens_out,
        PromptDetails(usage.tokens_cached),
        CompletionDetails(usage.tokens_reasoning),
    )


def _summed(replies: Sequence[Reply]) -> UsageOut:
    return usage_out(
        Usage(
            sum(one.usage.tokens_in for one in replies),
            sum(one.usage.tokens_out for one in replies),
            sum(one.usage.tokens_cached for one in replies),
            tokens_reasoning=sum(one.usage.tokens_reasoning for one in replies),
        )
    )


def _choice_out(at: int, reply: Reply) -> Choice:
    calls = [Called(call.id, _function(call)) for call in reply.tool_calls] if reply.tool_calls else UNSET
    message = Answered(reply.text if reply.text or calls is UNSET else None, tool_calls=calls)
    logprobs = {"content": logprob_items(reply.logprobs), "refusal": None} if reply.logprobs else None
    return Choice(at, message, reply.finish, logprobs)


def _function(call: ToolCall) -> FunctionCall:
    return FunctionCall(call.name, call.arguments)


def _decoding(said: ChatBody) -> Decoding:
    if said.max_tokens is not None and said.max_completion_tokens is not None:
        raise unsupported("max_tokens", "and max_completion_tokens say the same; give one of them")
    stop = said.stop
    return decoding(
        said.temperature,
        said.top_p,
        said.max_tokens if said.max_completion_tokens is None else said.max_completion_tokens,
        said.seed,
        () if not stop else (stop,) if isinstance(stop, str) else tuple(stop),
        said.top_k,
        said.presence_penalty,
        said.frequency_penalty,
        tuple(said.logit_bias.items()) if said.logit_bias else (),
        said.reasoning_effort,
    )


def message_of(said: System | Developer | User | Assistant | Tool, at: int) -> Message:
    """A message, the ``at``-th of the call."""
    match said:
        case User(content):
            if isinstance(content, str):
                return Message("user", (Text(content),))
            place = f"messages[{at}].content"
            return Message("user", tuple([_part(part, f"{place}[{n}]") for n, part in enumerate(content)]))
        case System(content) | Developer(content):
            return Message("system", _texts(content))
        case Assistant():
            return Message("assistant", _said(said))
        case Tool(content, call_id):
            text = content if isinstance(content, str) else "".join(part.text for part in content)
            return Message("tool", (ToolResult(call_id, text),))
        case _:
            assert_never(said)


def _texts(content: str | list[TextPart]) -> tuple[Part, ...]:
    return (Text(content),) if isinstance(content, str) else tuple([Text(part.text) for part in content])


def _said(said: Assistant) -> tuple[Part, ...]:
    """What an assistant said; a refusal was its text."""
    parts: list[Part] = []
    if isinstance(said.content, str):
        parts += [Text(said.content)] if said.content or not said.tool_calls else []
    elif said.content:
        parts += [Text(one.text if isinstance(one, TextPart) else one.refusal) for one in said.content]
    if said.refusal:
        parts.append(Text(said.refusal))
    parts += [ToolCall(call.id, call.function.name, call.function.arguments) for call in said.tool_calls or ()]
    return tuple(parts)


def _part(part: TextPart | ImagePart | AudioPart | FilePart, param: str) -> Part:
    match part:
        case TextPart(text):
            return Text(text)
        case ImagePart(ImageUrl(url, detail)):
            return image(url, detail, f"{param}.image_url.url")
        case AudioPart(InputAudio(data, kind)):
            return Media("audio", _AUDIO[kind], data=data)
        case FilePart(FileData(data, name)):
            found = data_url(data)
            if found is None:
                raise unsupported(f"{param}.file.file_data", "has to be a data: URL")
            return Media("file", found[0], data=found[1], name=name)
        case _:
            assert_never(part)


def image(url: str, detail: Literal["auto", "low", "high"] | None, param: str) -> Media:
    """An image by a ``data:`` URL or by its address."""
    found = data_url(url)
    if found is not None:
        return Media("image", found[0], data=found[1], detail=detail)
    if not url.startswith(("https://", "http://")):
        raise unsupported(param, "has to be an http(s) address or a data: URL")
    return Media("image", "image/*", url=url, detail=detail)
