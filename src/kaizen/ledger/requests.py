"""How a model request is kept: what all calls of a program share once, and the rest each time.

Instructions, demos, schema and tools are most of a request and the same for every call under one set of params.
Kept whole, they would be most of what is written and most of what grows. So they are contents of their own, and
each request's contents name them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from pydantic_core import from_json, to_json

from kaizen.core.record import Payload
from kaizen.core.request import Request
from kaizen.core.scope import Scope

SHARED: Final = "$shared"  # no field can be called so: names are identifiers
_BEGINS: Final = f'{{"{SHARED}":"'.encode()
_KEPT: Final = 1024
_AGAIN_S: Final = 60.0

_Key: TypeAlias = tuple[object, ...]


class SharedParts:
    """The shared parts of requests that this process has seen, and when each was last written.

    A part is written again once a minute, since another process may have erased it meanwhile: then the calls of at
    most that minute have lost it.
    """

    def __init__(self) -> None:
        # by identity of the messages, which programs render once; what is held keeps the ids unique
        self._bytes: dict[_Key, tuple[object, bytes]] = {}
        self._due: dict[tuple[Scope, str], float] = {}

    def of(self, request: Request) -> bytes:
        """The JSON of what the request shares with others."""
        stable = request.messages[: request.stable]
        key = (
            request.model,
            request.decoding,
            request.tool_choice,
            request.top_logprobs,
            id(request.output),
            id(request.tools),
            *map(id, stable),
        )
        known = self._bytes.get(key)
        if known is None:
            if len(self._bytes) >= _KEPT:
                self._bytes.clear()
            known = self._bytes[key] = ((stable, request.output, request.tools), to_json(_fields(request, stable)))
        return known[1]

    def note(self, scope: Scope, address: str) -> None:
        """Contents under this address are a shared part."""
        if (scope, address) not in self._due:
            if len(self._due) >= _KEPT:
                self._due.clear()
            self._due[scope, address] = 0.0

    def unwritten(self, scope: Scope, payloads: Sequence[Payload]) -> Sequence[Payload]:
        """Payloads without the shared parts that were written lately."""
        now = time.monotonic()
        return [one for one in payloads if self._due.get((scope, one.digest), 0.0) <= now]

    def written(self, scope: Scope, payloads: Sequence[Payload]) -> None:
        """These are stored now."""
        for one in payloads:
            if (scope, one.digest) in self._due:
                self._due[scope, one.digest] = time.monotonic() + _AGAIN_S

    def forget(self) -> None:
        """Nothing is sure to be stored any more."""
        self._due.clear()


def whole(request: Request) -> bytes:
    """The JSON of a request that shares nothing; scope and deadline are the record's."""
    return to_json(_fields(request, request.messages))


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


def _fields(request: Request, messages: object) -> dict[str, object]:
    return {
        "model": request.model,
        "messages": messages,
        "output": request.output,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "decoding": request.decoding,
        "top_logprobs": request.top_logprobs,
    }
