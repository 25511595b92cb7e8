"""What the wires share: what they are given, what they make, and how they read JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import msgspec

from kaizen.core.message import Message, Text
from kaizen.core.request import Decoding, Options, Reply, Request, TokenLogprob, ToolSpec
from kaizen.core.scope import Scope
from kaizen.serve.http.problem import Problem, Refused, malformed, unsupported

T = TypeVar("T")

_KEPT: Final = 256
_KEPT_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 64
"""Levels of a schema or of any other JSON that is passed on as it is."""

_ABSENT: Final = msgspec.Raw(b"")

to_text: Final = msgspec.json.Encoder().encode
# Callers say the same few things again and again; to look them up takes a tenth of making them. In the order of fields.
decoding: Final = lru_cache(maxsize=1024)(Decoding)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as a wire has to know to make a Request.

    Args:
        scope: whose call it is.
        options: what holds for every call of theirs.
        resolve: the ref that a model's name stands for; the second argument is the vendor whose client asks.
    """

    scope: Scope
    options: Options
    resolve: Callable[[str, str], str]


@dataclass(slots=True)
class Asked:
    """A call as it was decoded.

    Args:
        request: what the onion is asked.
        stream: whether the answer is wanted as it is written.
        count: how many answers are wanted.
        usage: whether a stream ends with its usage.
        echo: what the answer repeats of the call.
        id: of the answer.
        created: Unix seconds.
        begun: ``time.perf_counter()`` when it was decoded.
    """

    request: Request
    stream: bool = False
    count: int = 1
    usage: bool = False
    echo: Any = None
    id: str = ""
    created: int = 0
    begun: float = field(default_factory=time.perf_counter)


class Writing(Protocol):
    """A streamed answer on its way out: pieces in, bytes out."""

    def begin(self) -> bytes:
        """What comes first."""
        ...

    def text(self, text: str) -> bytes:
        """A piece of the answer's text."""
        ...

    def end(self, reply: Reply) -> bytes:
        """What comes last."""
        ...

    def fail(self, problem: Problem) -> bytes:
        """What comes last instead where it failed: never anything that a client could take for an end."""
        ...


class Wire(Protocol):
    """A dialect, without I/O."""

    name: str

    def decode(self, body: bytes, caller: Caller) -> Asked:
        """The call in a body.

        Raises:
            Unsupported: for a parameter that has no place here.
            Refused: for a body that is malformed.
        """
        ...

    def encode(self, asked: Asked, replies: Sequence[Reply]) -> bytes:
        """The whole answer."""
        ...

    def writing(self, asked: Asked) -> Writing:
        """Begin a streamed answer."""
        ...

    def error(self, problem: Problem, call_id: str) -> bytes:
        """The body of an error."""
        ...


def opened(asked: Asked, record_id: str) -> None:
    """Give the answer its id, that of its record, and its time."""
    asked.id, asked.created = record_id, int(time.time())


def decoded(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw, within: str = "") -> T:
    """JSON as the decoder's type.

    Raises:
        Unsupported: for a field it does not know.
        Refused: if it is malformed.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise malformed(error, within) from None


def absent() -> msgspec.Raw:
    """A part of the body that was to be decoded later, and is not there."""
    return _ABSENT


def given(raw: msgspec.Raw) -> bool:
    """Whether a part of the body that is decoded later is there."""
    return raw is not _ABSENT and bytes(raw) != b"null"


class Parsed(Generic[T]):
    """What comes again and again in the same bytes, such as a program's tools: decoded once, one object each time.

    That it is the same object lets adapters keep what they make of it. It forgets all when there are more than 256.
    """

    __slots__ = ("_kept", "_make")

    def __init__(self, make: Callable[[bytes], T]) -> None:
        self._make = make
        self._kept: dict[bytes, T] = {}

    def __call__(self, raw: msgspec.Raw) -> T:
        """What these bytes are."""
        data = bytes(raw)
        kept = self._kept.get(data)
        if kept is None:
            kept = self._make(data)
            if len(data) <= _KEPT_BYTES:
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
                self._kept[data] = kept
        return kept


def check_depth(value: Any, param: str) -> None:
    """Refuse JSON that is nested deeper than ``MAX_DEPTH``: what works on it later may work by recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += cast("dict[str, Any]", one).values()
            elif isinstance(one, list):
                below += cast("list[Any]", one)
        if not below:
            return
        level = below
    raise Refused(400, "malformed", f"{param} is nested deeper than {MAX_DEPTH} levels", param=param)


def named_tool(tools: Sequence[ToolSpec], name: str, param: str) -> str:
    """A tool that the call itself offers."""
    if not any(tool.name == name for tool in tools):
        raise Refused(400, "invalid_request", f"{param}: no tool is called {name!r}", param=param)
    return name


def checked_request(request: Request, param: str) -> Request:
    """The same request, if it says anything at all."""
    if not request.messages:
        raise Refused(400, "invalid_request", f"{param} is empty", param=param)
    if request.tool_choice == "required" and not request.tools:
        raise Refused(400, "invalid_request", "tool_choice: there are no tools", param="tool_choice")
    return request


def user(text: str) -> Message:
    """A user's message."""
    return Message("user", (Text(text),))


def summary(reply: Reply) -> dict[str, Any]:
    """What the headers of a whole answer say, for the end of a streamed one."""
    return {
        "record": reply.record_id,
        "model": reply.model,
        "cache": tier_name(reply),
        "cost_usd": reply.cost_usd,
        "saved_usd": reply.saved_usd,
    }


def tier_name(reply: Reply) -> str:
    """Which tier answered, as the header has it."""
    return "miss" if reply.tier == "model" else reply.tier


def logprob_items(logprobs: Sequence[TokenLogprob]) -> list[Mapping[str, Any]]:
    """Log-probabilities as both OpenAI wires write them."""
    return [
        {
            "token": one.token,
            "logprob": one.logprob,
            "bytes": list(one.token.encode("utf-8", "surrogatepass")),
            "top_logprobs": [
                {"token": token, "logprob": value, "bytes": list(token.encode("utf-8", "surrogatepass"))}
                for token, value in one.top
            ],
        }
        for one in logprobs
    ]


def data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 text of a ``data:`` URL (RFC 2397), or None for an address."""
    if not url.startswith("data:"):
        return None
    head, comma, data = url[5:].partition(",")
    media_type, _, coding = head.rpartition(";")
    if not comma or coding != "base64" or not media_type:
        raise Refused(400, "invalid_request", "a data: URL has to read data:<media type>;base64,<bytes>")
    return media_type, data


__all__ = [
    "Asked",
    "Caller",
    "Parsed",
    "Wire",
    "Writing",
    "absent",
    "check_depth",
    "checked_request",
    "data_url",
    "decoded",
    "decoding",
    "given",
    "logprob_items",
    "named_tool",
    "opened",
    "summary",
    "tier_name",
    "to_text",
    "unsupported",
    "user",
]
