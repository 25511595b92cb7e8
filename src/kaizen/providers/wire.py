"""What the wires share: the seam between a dialect (pure) and the transport (I/O), and the provider made of both."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from pydantic_core import from_json

from kaizen.core.errors import Unsupported
from kaizen.core.message import Media, Text, ToolCall, ToolResult
from kaizen.core.request import Chunk, Reply, Request, TokenLogprob, Usage
from kaizen.providers.errors import Origin
from kaizen.providers.http import HttpAnswer, HttpTransport

_CHARACTERS_A_TOKEN: Final = 4
_MEMO_SIZE: Final = 256
_MOST_TOKENS: Final = 2**40
_MISSHAPEN: Final = (KeyError, IndexError, TypeError, AttributeError, ValueError)
_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]")

K = TypeVar("K")


class Reading(Protocol):
    """A streamed answer on its way: events in, text out, and at the end the Reply."""

    @property
    def whole(self) -> bool:
        """Whether the answer is complete, so that the end of the stream is no cut."""
        ...

    @property
    def done(self) -> bool:
        """Whether it is complete and nothing that matters can follow."""
        ...

    def feed(self, event: Any) -> str:
        """Take one event (parsed JSON); the text that it adds, or an empty string.

        Raises:
            ProviderError: if the event reports one.
        """
        ...

    def reply(self) -> Reply:
        """The answer.

        Raises:
            ContentFiltered: if the provider withheld it.
        """
        ...


class Wire(Protocol):
    """A dialect of HTTP and JSON, without I/O."""

    @property
    def path(self) -> str:
        """What follows the base URL."""
        ...

    def encode(self, request: Request, *, stream: bool) -> bytes:
        """The body to post.

        Raises:
            Unsupported: if this wire has no place for something in the request.
        """
        ...

    def decode(self, body: Any, request: Request) -> Reply:
        """The Reply of a whole answer's JSON.

        Raises:
            ProviderError: if the answer is an error in disguise.
            KeyError: and TypeError and the like, if it is of another shape.
        """
        ...

    def reading(self, request: Request) -> Reading:
        """Begin to read a streamed answer."""
        ...


class WireProvider:
    """A Provider: one dialect over one transport. ``OpenAIProvider`` and ``AnthropicProvider`` are made of it."""

    def __init__(self, wire: Wire, transport: HttpTransport, origin: Origin) -> None:
        self._wire = wire
        self._transport = transport
        self._origin = origin

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._origin.name!r}, base_url={self._transport.base_url!r})"

    @property
    def wire(self) -> Wire:
        """The dialect."""
        return self._wire

    @property
    def transport(self) -> HttpTransport:
        """What carries it."""
        return self._transport

    @property
    def origin(self) -> Origin:
        """Whose errors these are."""
        return self._origin

    def decoded(self, body: Any, request: Request) -> Reply:
        """The Reply of a whole answer's JSON that came in another way, such as in a batch.

        Raises:
            Unavailable: if it is none.
        """
        try:
            return _sound(self._wire.decode(body, request))
        except _MISSHAPEN:
            raise self._origin.broken(request.model, "an answer in a batch can't be read") from None

    async def complete(self, request: Request, /) -> Reply:
        """The whole answer; see ``Provider.complete``."""
        body = self._wire.encode(request, stream=False)
        async with self._transport.open(self._wire.path, body, request) as answer:
            data = await answer.read()
        if answer.status != 200:
            raise self._origin.answered(request.model, answer.status, answer.headers, data)
        try:
            return _sound(self._wire.decode(from_json(data), request))
        except _MISSHAPEN:
            raise self._misshapen(request, answer, data) from None

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk, None]:
        """The answer as it is written; see ``Provider.stream``."""
        begun = time.monotonic()
        first: float | None = None
        reading = self._wire.reading(request)
        body = self._wire.encode(request, stream=True)
        async with self._transport.open(self._wire.path, body, request, stream=True) as answer:
            await self._check_stream(answer, request)
            ended = False
            while not ended and (events := await answer.events()) is not None:
                for data in events:
                    if ended := data == b"[DONE]":
                        break
                    if text := self._fed(reading, data, request):
                        first = first or (time.monotonic() - begun) * 1000
                        yield Chunk(text)
                    if ended := reading.done:
                        break
            if not (ended or reading.whole):
                raise self._origin.broken(request.model, "the event stream was cut before the answer was whole")
            reply = self._ended(reading, request)
            await answer.drain()
        yield Chunk(reply=replace(reply, first_token_ms=first))

    async def _check_stream(self, answer: HttpAnswer, request: Request) -> None:
        if answer.status != 200:
            data = await answer.read()
            raise self._origin.answered(request.model, answer.status, answer.headers, data)
        if not answer.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise self._misshapen(request, answer, await answer.read())

    def _fed(self, reading: Reading, data: bytes, request: Request) -> str:
        try:
            return _text(reading.feed(from_json(data)))
        except _MISSHAPEN:
            raise self._origin.broken(request.model, "sent an event that can't be read") from None

    def _ended(self, reading: Reading, request: Request) -> Reply:
        try:
            return _sound(reading.reply())
        except _MISSHAPEN:
            raise self._origin.broken(request.model, "the streamed answer can't be read") from None

    def _misshapen(self, request: Request, answer: HttpAnswer, data: bytes) -> Exception:
        """Why an answer of status 200 is none: it reports an error, or is no answer of this wire at all."""
        try:
            body: Any = from_json(data)
        except ValueError:
            kind = answer.headers.get("content-type", "no content type")
            return self._origin.broken(request.model, f"the answer is no valid JSON ({kind}, {len(data)} bytes)")
        if isinstance(body, dict) and cast("Any", body).get("error"):
            return self._origin.reported(request.model, body)
        return self._origin.broken(request.model, f"{self._wire.path} answered JSON of another shape")


class Memo(Generic[K]):
    """The encoded form of an object that comes again and again, such as a program's output schema.

    Keyed by identity: hashing a JSON schema costs more than encoding it. It holds the objects, so that no
    identity is used twice, and forgets all of them when there are more than 256.
    """

    __slots__ = ("_kept", "_make")

    def __init__(self, make: Callable[[K], bytes]) -> None:
        self._make = make
        self._kept: dict[int, tuple[K, bytes]] = {}

    def __call__(self, key: K) -> bytes:
        """The encoded form of ``key``."""
        kept = self._kept.get(id(key))
        if kept is not None:
            return kept[1]
        if len(self._kept) >= _MEMO_SIZE:
            self._kept.clear()
        made = self._make(key)
        self._kept[id(key)] = (key, made)
        return made


def model_name(ref: str) -> str:
    """The provider's own name of a model: the ref ``provider/model`` without its first segment."""
    return ref.partition("/")[2] or ref


def schema_name(name: str) -> str:
    """A name as OpenAI takes it for a schema: at most 64 letters, digits, underscores and dashes."""
    return _NOT_IN_A_NAME.sub("_", name)[:64] or "output"


PLAIN: Final = "a text to go on with, only for a conversation"


def no_place(wire: str, what: str, param: str | None = None) -> Unsupported:
    """The error for a request that a wire can't carry."""
    rule = f"the {wire} wire has no place for {what}"
    return Unsupported(rule, rules=rule, detail=None if param is None else {"param": param})


def data_url(media: Media) -> str:
    """An address of the media: its own, or its bytes as a ``data:`` URL (RFC 2397)."""
    return media.url if media.url is not None else f"data:{media.media_type};base64,{media.data}"


def audio_format(media: Media) -> str:
    """The name OpenAI has for an audio type: ``audio/x-wav`` is ``wav``, ``audio/mpeg`` is ``mp3``."""
    subtype = media.media_type.partition("/")[2].removeprefix("x-")
    return "mp3" if subtype == "mpeg" else subtype


def result_text(result: ToolResult) -> str:
    """A tool's result for wires that have no mark for a failure: the word stands in front."""
    return f"Error: {result.content}" if result.is_error else result.content


def log_probs(items: list[Any] | None) -> tuple[TokenLogprob, ...]:
    """Log-probabilities as both OpenAI wires write them."""
    return tuple(
        TokenLogprob(
            item["token"],
            item["logprob"],
            tuple((top["token"], top["logprob"]) for top in item.get("top_logprobs") or ()),
        )
        for item in items or ()
    )


def count(usage: Mapping[str, Any], *path: str) -> int:
    """A number in a usage object, 0 where it or what holds it is absent."""
    value: Any = usage
    for name in path:
        value = value.get(name) or {}
    return value or 0


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text is wanted")
    return value


def _sound(reply: Reply) -> Reply:
    """The same reply.

    Raises:
        TypeError: if its text or a call is no text.
        ValueError: if a count can't be one: NaN or a negative one would lift every budget.
    """
    _text(reply.text)
    for call in reply.tool_calls:
        for value in (call.id, call.name, call.arguments):
            _text(value)
    usage = reply.usage
    parts = (usage.tokens_cached, usage.tokens_cache_write, usage.tokens_reasoning)
    for number in (usage.tokens_in, usage.tokens_out, *parts):
        if type(number) is not int or not 0 <= number <= _MOST_TOKENS:
            raise ValueError("a count of tokens is wanted")
    return reply


def estimated(request: Request, reply: str) -> Usage:
    """A guess for a provider that counted nothing: a token for every four characters begun, media left out.

    Always marked as ``estimated``.
    """
    characters = 0
    for message in request.messages:
        for part in message.parts:
            match part:
                case Text(text):
                    characters += len(text)
                case ToolCall(_, name, arguments):
                    characters += len(name) + len(arguments)
                case ToolResult(_, content):
                    characters += len(content)
                case Media():
                    pass
    return Usage(
        tokens_in=-(-characters // _CHARACTERS_A_TOKEN),
        tokens_out=-(-len(reply) // _CHARACTERS_A_TOKEN),
        estimated=True,
    )
