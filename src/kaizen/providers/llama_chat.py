"""Requests as llama.cpp's chat completions take them, and what it streams back as Replies. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, assert_never

from pydantic_core import from_json, to_json

from kaizen.core.errors import ProviderError, Unsupported
from kaizen.core.ids import new_id
from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.request import Finish, Reply, Request, TokenLogprob, ToolSpec, Usage
from kaizen.providers.errors import Origin
from kaizen.providers.grammar import schema_grammar, text_grammar, tool_grammar

MAX_TOKENS: Final = 512
"""Tokens written where ``Decoding.max_tokens`` says nothing; a small model may never end by itself."""

_ANSWER: Final = '{"answer":'
_TOOLS: Final = (
    'You can call tools. To call one, write {"tool": its name, "arguments": {...}}. '
    'To answer, write {"answer": your answer}. The tools:'
)
# What chat templates mark turns with: ChatML and its many relatives (<|im_end|>, <|eot_id|>, <turn|>, DeepSeek's wide
# bars), Llama 2 and Mistral (</s>, [INST]), Gemma (<end_of_turn>), Cohere (<EOS_TOKEN>).
_MARKS: Final = re.compile(
    r"<(?=[|\uff5c]|\w{1,40}[|\uff5c]>|/?(?:s|bos|eos|(?:start|end)_of_(?:turn|text)|[A-Z_]{1,40}_TOKEN)>|</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\])"
)


def completion_body(request: Request) -> bytes:
    """The JSON body of a streaming completion: of a conversation, or of a text where the request is plain.

    Tools are shown in the system message, and a grammar allows a call or an answer: llama.cpp's own tool calls
    need a chat template that knows tools, and without one they are ignored in silence.

    Raises:
        ProviderError: if the request holds media; this is for models that read text.
    """
    decoding = request.decoding
    _check(request)
    tools = offered(request)
    body: dict[str, Any] = {
        **_asked(request, tools),
        "stream": True,
        "stream_options": {"include_usage": True},
        # one piece as the prompt is begun and one for each part read: what a call can be stopped at
        "return_progress": True,
        "cache_prompt": True,
        "max_tokens": decoding.max_tokens or MAX_TOKENS,
        "temperature": decoding.temperature or 0.0,
    }
    if decoding.top_p is not None:
        body["top_p"] = decoding.top_p
    if decoding.seed is not None:
        body["seed"] = decoding.seed
    if decoding.top_k is not None:
        body["top_k"] = decoding.top_k
    if decoding.presence_penalty is not None:
        body["presence_penalty"] = decoding.presence_penalty
    if decoding.frequency_penalty is not None:
        body["frequency_penalty"] = decoding.frequency_penalty
    if decoding.logit_bias:
        body["logit_bias"] = dict(decoding.logit_bias)
    if decoding.stop:
        body["stop"] = decoding.stop
    if request.top_logprobs is not None:
        alternatives = max(1, request.top_logprobs)  # 0 gives none at all
        body |= {"logprobs": alternatives} if request.plain else {"logprobs": True, "top_logprobs": alternatives}
    if tools:
        answer = request.output and request.output.schema
        body["grammar"] = tool_grammar(tools, required=request.tool_choice == "required", answer=answer)
    elif request.output is not None:
        schema = request.output.schema
        body["grammar"] = text_grammar(schema["enum"]) if _bare(request) else schema_grammar(schema)
    elif request.json_object:
        body["grammar"] = schema_grammar({"type": "object"})
    return to_json(body)


def _check(request: Request) -> None:
    """Refuse what these models have no place for."""
    if request.decoding.effort not in (None, "none"):
        rule = f"{request.model} does not reason, so it takes no effort for it"
        raise Unsupported(rule, rules=rule)


def _asked(request: Request, tools: tuple[ToolSpec, ...]) -> dict[str, Any]:
    if not request.plain:
        return {"messages": list(_merged(_turns(request, tools)))}
    if tools:
        rule = f"{request.model} takes no tools where it goes on with a text"
        raise Unsupported(rule, rules=rule)
    texts = (text for message in request.messages for text in _texts(message, {}, request.model))
    return {"prompt": _unmarked("".join(texts))}


def _bare(request: Request) -> bool:
    """Whether the reply is one of several texts, as it stands."""
    return request.plain and request.output is not None and "enum" in request.output.schema


def offered(request: Request) -> tuple[ToolSpec, ...]:
    """The tools the model may call."""
    if request.tool is not None:
        return tuple(tool for tool in request.tools if tool.name == request.tool)
    return () if request.tool_choice == "none" else request.tools


class ChatReading:
    """A streamed completion on its way: pieces in, text out, and at the end the Reply.

    Args:
        request: what was asked.
        origin: whose errors they are.
    """

    def __init__(self, request: Request, origin: Origin) -> None:
        self._request = request
        self._origin = origin
        self._choosing = bool(offered(request))
        self._written: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._finish: Finish = "stop"
        self._usage: Usage | None = None
        self._shown = 0
        self.rest = ""
        """The answer's text that no ``feed`` gave out; known when ``reply`` has been asked."""

    def feed(self, piece: bytes) -> str:
        """Take one piece; the text that it adds to the answer, or an empty string.

        Raises:
            ProviderError: if it reports one.
        """
        event: dict[str, Any] = from_json(piece)
        if "error" in event:
            raise self._origin.reported(self._request.model, event)
        if usage := event.get("usage"):
            self._usage = Usage(
                tokens_in=usage["prompt_tokens"],
                tokens_out=usage["completion_tokens"],
                tokens_cached=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
            )
        added = ""
        for choice in event["choices"]:
            added += (choice["text"] if self._request.plain else choice["delta"].get("content")) or ""
            if choice["finish_reason"] == "length":
                self._finish = "length"
            if logprobs := choice.get("logprobs"):
                self._logprobs.extend(_token(entry, self._request.top_logprobs or 0) for entry in logprobs["content"])
        if not added:
            return ""
        self._written.append(added)
        return self._grown() if self._choosing else added

    def reply(self) -> Reply:
        """The answer.

        Raises:
            Unavailable: if the completion was cut.
            ProviderError: if a tool had to be called and the model was not made to (its schema fits no grammar).
        """
        if self._usage is None:
            raise self._origin.broken(self._request.model, "the completion was cut before its end")
        text, calls = "".join(self._written), ()
        if self._choosing:
            text, calls = self._chosen()
            self.rest = text[self._shown :]
        return Reply(
            model=self._request.model,
            text=text,
            tool_calls=calls,
            finish="tool_calls" if calls else self._finish,
            usage=self._usage,
            logprobs=tuple(self._logprobs),
        )

    def _grown(self) -> str:
        """What a choice between calling and answering adds to the answer's text."""
        written = "".join(self._written)
        if self._request.output is not None or not written.startswith(_ANSWER):
            return ""
        text = _partial(written).get("answer", "")
        added, self._shown = text[self._shown :], len(text)
        return added

    def _chosen(self) -> tuple[str, tuple[ToolCall, ...]]:
        """The answer's text, or the call, of a finished choice."""
        written = "".join(self._written)
        if written.startswith(_ANSWER):
            if self._request.output is None:
                return _partial(written).get("answer", ""), ()
            return (written[len(_ANSWER) : -1] if _whole(written) else written[len(_ANSWER) :]), ()
        if _whole(written):
            choice = from_json(written)
            # as the model wrote them, in the order of the schema
            return "", (ToolCall(f"call_{new_id()}", choice["tool"], to_json(choice["arguments"]).decode()),)
        if self._finish != "length" and self._request.tool_choice == "required":
            raise ProviderError(
                f"{self._origin.name}: {self._request.model} could not be held to the schemas of the tools",
                provider=self._origin.name,
                model=self._request.model,
            )
        # cut within a call, or (a schema no grammar can be built for) plain text
        return "" if written.startswith('{"tool":') else written, ()


def _turns(request: Request, tools: tuple[ToolSpec, ...]) -> Iterator[tuple[str, str]]:
    """The conversation as role and text. Only system, user and assistant: other roles are not in every template."""
    names: dict[str, str] = {}
    if tools:
        yield "system", _unmarked("\n".join([_TOOLS, *(_described(tool) for tool in tools)]))
    for message in request.messages:
        role = "user" if message.role == "tool" else message.role
        yield role, _unmarked("\n".join(_texts(message, names, request.model)))


def _unmarked(text: str) -> str:
    """A text that can't end its turn.

    llama.cpp reads the marks of turns wherever they stand in the rendered prompt, so that a customer's
    ``<|im_end|>`` would be the end of the customer's message, and what follows another speaker's. With a
    backslash inside, a mark is letters like any other.
    """
    return _MARKS.sub(r"\g<0>\\", text)


def _texts(message: Message, names: dict[str, str], ref: str) -> Iterator[str]:
    for part in message.parts:
        match part:
            case Text(text):
                yield text
            case ToolCall():
                names[part.id] = part.name
                yield f'{{"tool":{_quoted(part.name)},"arguments":{part.arguments or "{}"}}}'
            case ToolResult():
                outcome = "failed" if part.is_error else "returned"
                yield f"{names.get(part.call_id, 'The tool')} {outcome}: {part.content}"
            case Media():
                raise ProviderError(f"{ref} takes text only, no {part.kind}", provider=ref.partition("/")[0], model=ref)
            case _:
                assert_never(part)


def _merged(turns: Iterator[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Turns with neighbours of one role joined: many templates refuse two of the same in a row."""
    last: dict[str, str] | None = None
    for role, text in turns:
        if last is not None and last["role"] == role:
            last["content"] += f"\n\n{text}"
            continue
        if last is not None:
            yield last
        last = {"role": role, "content": text}
    if last is not None:
        yield last


def _described(tool: ToolSpec) -> str:
    return f"{tool.name}: {tool.description}\narguments: {to_json(tool.schema).decode()}"


def _quoted(text: str) -> str:
    return to_json(text).decode()


def _token(entry: dict[str, Any], alternatives: int) -> TokenLogprob:
    top = tuple((other["token"], other["logprob"]) for other in entry["top_logprobs"][:alternatives])
    return TokenLogprob(entry["token"], entry["logprob"], top)


def _partial(written: str) -> dict[str, Any]:
    return from_json(written, allow_partial="trailing-strings")


def _whole(written: str) -> bool:
    try:
        from_json(written)
    except ValueError:
        return False
    return True
