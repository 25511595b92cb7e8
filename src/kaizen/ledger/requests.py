"""How a model request is kept: what all calls of a program share once, and the rest each time.

Instructions, demos, schema and tools are most of a request and the same for every call under one set of params.
Kept whole, they would be most of what is written and most of what grows. So they are contents of their own, and
each request's contents name them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.known.plain import plain_messages
from kaizen.core.record import Payload
from kaizen.core.request import Request
from kaizen.core.scope import Scope

SHARED: Final = "$shared"  # no field can be called so: names are identifiers
_BEGINS: Final = f'{{"{SHARED}":"'.encode()
_KEPT: Final = 1024
_AGAIN_S: Final = 60.0
_RARE: Final = ("tool", "parallel_tools", "json_object", "plain", "user")
_NONE_SAID: Final = (None, None, False, False, None)
_rare: Final = attrgetter(*_RARE)


@dataclass(slots=True)
class _Part:
    """A shared part, and until when it needs not be written again (``time.monotonic()``)."""

    payload: Payload
    kept_until: float = 0.0


class SharedParts:
    """The shared parts of requests that this process has seen, and when each was last written.

    A part is written again once a minute, since another process may have erased it meanwhile: then the calls of at
    most that minute have lost it.

    Attributes:
        forgotten: how often ``forget`` was called.
    """

    def __init__(self) -> None:
        self.forgotten = 0
        # by identity of the messages and what goes with them, which programs make once; to hold them keeps ids unique
        self._known: dict[tuple[object, ...], tuple[_Part, tuple[object, ...]]] = {}
        self._parts: dict[int, _Part] = {}

    def of(self, scope: Scope, request: Request, seal: Callable[[Scope, bytes], Payload]) -> Payload:
        """What the request shares with others, sealed."""
        stable, held = request.messages[: request.stable], (request.output, request.tools, request.decoding)
        owner = (scope.tenant, scope.environment)
        choice = (
            request.tool_choice,
            request.tool,
            request.parallel_tools,
            request.json_object,
            request.plain,
            request.user,
        )
        key = (*owner, request.model, *choice, request.top_logprobs, *map(id, held), *map(id, stable))
        known = self._known.get(key)
        if known is None:
            self._make_room()
            part = _Part(seal(scope, to_json(_fields(request, stable))))
            known = self._known[key] = (part, (*held, *stable))
            self._parts[id(part.payload)] = part
        return known[0].payload

    def again(self, payload: Payload) -> None:
        """The whole of a request that comes again and again: it need not be written each time either."""
        self._make_room()
        self._parts[id(payload)] = _Part(payload)

    def _make_room(self) -> None:
        if len(self._parts) >= _KEPT:
            self._known.clear()
            self._parts.clear()

    def unwritten(self, payloads: Sequence[Payload]) -> Sequence[Payload]:
        """Payloads without the shared parts that were written lately."""
        parts = self._parts
        if not parts:
            return payloads
        now = time.monotonic()
        return [one for one in payloads if (part := parts.get(id(one))) is None or part.kept_until <= now]

    def written(self, payloads: Sequence[Payload], since: int) -> None:
        """These are stored now, unless something was forgotten since their writing began.

        Args:
            payloads: what was written.
            since: what ``forgotten`` was before.
        """
        parts = self._parts
        if not parts or since != self.forgotten:
            return
        for one in payloads:
            if (part := parts.get(id(one))) is not None:
                part.kept_until = time.monotonic() + _AGAIN_S

    def forget(self) -> None:
        """Nothing is sure to be stored any more."""
        self.forgotten += 1
        for part in self._parts.values():
            part.kept_until = 0.0


def whole(request: Request) -> bytes:
    """The JSON of a request that shares nothing; scope and deadline are the record's."""
    fields = _fields(request, plain_messages(request.messages))
    if request.output is None and not request.tools:
        # the decoding stands last but one, and is the same for nearly all calls
        decoding, top = fields.pop("decoding"), fields.pop("top_logprobs")
        return b'%b,"decoding":%b,"top_logprobs":%b}' % (to_json(fields)[:-1], _decoded(decoding), to_json(top))
    return to_json(fields)


def rest(request: Request, address: str) -> bytes:
    """The JSON of what is a request's own, with the address of what it shares."""
    return b'%s%s","messages":%s}' % (_BEGINS, address.encode(), to_json(request.messages[request.stable :]))


def shared_address(data: bytes) -> str | None:
    """The address of the part that these contents share, if they do."""
    return data[len(_BEGINS) :].partition(b'"')[0].decode() if data.startswith(_BEGINS) else None


def joined(shared: bytes, own: bytes) -> bytes:
    """The request as if it had been kept whole."""
    request: dict[str, Any] = from_json(shared)
    request["messages"] += from_json(own)["messages"]
    return to_json(request)


def _decoded(decoding: Any) -> bytes:
    """A decoding's JSON, kept by identity: callers say the same few things again and again."""
    known = _decodings.get(id(decoding))
    if known is None:
        if len(_decodings) >= _KEPT:
            _decodings.clear()
        known = _decodings[id(decoding)] = (decoding, to_json(decoding))
    return known[1]


_decodings: dict[int, tuple[Any, bytes]] = {}


def _fields(request: Request, messages: object) -> dict[str, object]:
    # only where it is said: most calls name none of these
    said = _rare(request)
    rare = (
        {}
        if said == _NONE_SAID
        else {name: value for name, value in zip(_RARE, said, strict=True) if value not in (None, False)}
    )
    return {
        **rare,
        "model": request.model,
        "messages": messages,
        "output": request.output,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "decoding": request.decoding,
        "top_logprobs": request.top_logprobs,
    }
