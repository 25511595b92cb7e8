"""What makes two requests the same: the canonical key of a Request, and of all of it but the question.

A key covers whatever can change the answer: scope, model and the wishes that choose one, every part of every message,
tools, schema and decoding. So it covers a program's params too, which is where instructions, demos and decoding come
from. A field that is added to one of these values later is in the key unless it is named below as one that can't
change the answer: forgetting to name it costs hits, never a wrong answer.

Two requests that are equal but for how they were built (``stable``, ``0`` or ``0.0``) have one key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from pydantic_core import to_json

from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.request import NO_OPTIONS, Decoding, Options, OutputSchema, Request, ToolSpec

_DIGEST_BYTES: Final = 20
_KEPT: Final = 1024

# What can't change the answer. How long a provider keeps a prompt can't, nor whom it is told the call is for.
_MARKS: Final = frozenset({"mark"})
_REQUEST: Final = frozenset({"messages", "stable", "deadline", "options", "user", "step", "allowance"})
_OPTIONS: Final = frozenset({"exact", "refresh", "semantic", "batch", "hedge", "ttl", "tags"})


def _getter(kind: Any, without: frozenset[str]) -> Callable[[Any], tuple[Any, ...]]:
    names = [field.name for field in fields(kind) if field.name not in without]
    return attrgetter(*names)


_TEXT_ONLY: Final = [field.name for field in fields(Text) if field.name not in _MARKS] == ["text"]
_parts: Final[dict[type[Any], Callable[[Any], tuple[Any, ...]]]] = {
    kind: _getter(kind, _MARKS) for kind in (Text, Media, ToolCall, ToolResult)
}
_wishes: Final = _getter(Options, _OPTIONS)
_NO_WISHES: Final = _wishes(NO_OPTIONS)
_decoding: Final = _getter(Decoding, frozenset())
_tool: Final = _getter(ToolSpec, _MARKS)
_output: Final = _getter(OutputSchema, frozenset())
# Small values that are compared; the schemas, which can't be hashed, go by identity.
_scalars: Final = _getter(Request, _REQUEST | {"output", "tools"})
_written: Final = _getter(Request, _REQUEST | {"output", "tools", "decoding", "scope"})

# By identity of the stable messages, tools and schema, which programs make once: the hash as it is after them. What
# is identified is held with it, so that no other object takes over its id.
_heads: dict[tuple[object, ...], tuple[Any, tuple[object, ...]]] = {}
# The same for what goes before the messages of requests that have no stable ones.
_begins: dict[tuple[object, ...], tuple[Any, tuple[object, ...]]] = {}


def request_key(request: Request) -> str:
    """The key of a request: 40 hexadecimal digits. Equal keys mean that one answer fits both."""
    made = _head(request)
    text = _text_of(request.messages[request.stable :]) + _policy(request.options)
    made.update(text.encode("utf-8", "surrogatepass"))
    return made.hexdigest()


def space_key(request: Request) -> str:
    """The key of everything but the last user message's text: requests of one space differ in their question only.

    Images and other parts of that message count. No space key equals a request key.
    """
    at = last_user(request)
    if at is None:
        return _ended(request, request.messages)
    asked = request.messages[at]
    kept = tuple(part for part in asked.parts if not isinstance(part, Text))
    return _ended(request, (*request.messages[:at], Message("user", kept), *request.messages[at + 1 :]))


def last_user(request: Request) -> int | None:
    """The place of the last user message, or None: whose text is the question."""
    messages = request.messages
    return next((at for at in range(len(messages) - 1, -1, -1) if messages[at].role == "user"), None)


def _ended(request: Request, messages: Sequence[Message]) -> str:
    """The key of a request with these messages instead, marked as a space's."""
    stable = request.stable
    if stable and all(one is other for one, other in zip(messages[:stable], request.messages[:stable], strict=True)):
        made = _head(request)
    else:
        made, stable = _begun(request), 0
    text = f"{_text_of(messages[stable:])}{_policy(request.options)}S"
    made.update(text.encode("utf-8", "surrogatepass"))
    return made.hexdigest()


def _head(request: Request) -> Any:
    """The hash of all that goes before the messages which are a request's own."""
    stable = request.messages[: request.stable]
    if not stable:
        return _beginning(request)
    held = (request.output, request.tools, *stable)
    key = (*_scalars(request), *map(id, held))
    known = _heads.get(key)
    if known is None:
        made = _begun(request)
        made.update(_text_of(stable).encode("utf-8", "surrogatepass"))
        if len(_heads) >= _KEPT:
            _heads.clear()
        known = _heads[key] = (made, held)
    return known[0].copy()


def _beginning(request: Request) -> Any:
    scope, held = request.scope, (request.decoding, request.output, request.tools)
    key = (scope.tenant, scope.environment, *_written(request), *map(id, held))
    known = _begins.get(key)
    if known is None:
        if len(_begins) >= _KEPT:
            _begins.clear()
        known = _begins[key] = (_begun(request), held)
    return known[0].copy()


def _begun(request: Request) -> Any:
    scope = request.scope
    pieces = [_framed((scope.tenant, scope.environment)), _framed(_written(request)), _decoded(request.decoding)]
    made = hashlib.blake2b("".join(pieces).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
    if request.output is not None:
        _add_json(made, b"O", _output(request.output))
    if request.tools:
        _add_json(made, b"F", [_tool(tool) for tool in request.tools])
    return made


def _add_json(made: Any, mark: bytes, value: object) -> None:
    # keys stay in their order: it is shown to the model, and a model that is held to a schema writes in it
    data = to_json(value)
    made.update(b"%s%d:" % (mark, len(data)))
    made.update(data)


@lru_cache(maxsize=_KEPT)
def _decoded(decoding: Decoding) -> str:
    return _framed(_decoding(decoding))


def _policy(options: Options) -> str:
    if options is NO_OPTIONS:
        return ""
    wishes = _wishes(options)
    return "" if wishes == _NO_WISHES else f"W{_framed(wishes)}"


def _text_of(messages: Sequence[Message]) -> str:
    """Messages as text from which they could be read back: each string stands behind its length."""
    pieces: list[str] = []
    for message in messages:
        parts = message.parts
        pieces.append(f"M{message.role} {len(parts)}\n")
        for part in parts:
            if isinstance(part, Text) and _TEXT_ONLY:
                pieces.append(f"T{len(part.text)}:{part.text}")
            else:
                kind = type(part)
                pieces.append(f"P{kind.__name__} {_framed(_parts[kind](part))}")
    return "".join(pieces)


def _framed(values: Sequence[Any]) -> str:
    return "".join([f"{len(one)}:{one}" if isinstance(one, str) else f"{_plain(one)!r};" for one in values])


def _plain(value: Any) -> Any:
    """Equal numbers as one: 0 and 0.0 are the same temperature."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType] - an Any's elements
