"""How an answer is kept: as bytes for the cache, and decoded, for the next time the cache gives the same bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, fields
from functools import cache
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from kaizen.core.ids import digest
from kaizen.core.known.plain import plain_reply
from kaizen.core.message import ToolCall
from kaizen.core.quick.values import changed
from kaizen.core.request import Reply, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it is kept.

    Args:
        at: when it was given, Unix seconds.
        ttl: seconds it may be kept.
        tags: what it depends on.
        reply: the answer, without what was only so for the call that asked for it.
    """

    at: float
    ttl: float
    tags: tuple[str, ...]
    reply: Reply


_SHAPE: Final = [
    f"{kind.__name__}.{one.name}: {one.type}"
    for kind in (Kept, Reply, Usage, ToolCall, TokenLogprob)
    for one in fields(kind)
]
# Before each entry. Another version of Kaizen, whose answers have other fields, has another mark and so a miss.
_MARK: Final = digest(";".join(_SHAPE).encode())[:12].encode()


def stripped(reply: Reply) -> Reply:
    """An answer without what was only so for the call that asked for it. A cost is there if the provider told it."""
    return changed(reply, tier="exact", attempts=0, first_token_ms=None, stages=(), record_id=None)


def encode(kept: Kept) -> bytes:
    """The bytes of an answer."""
    fields = {"at": kept.at, "ttl": kept.ttl, "tags": kept.tags, "reply": plain_reply(kept.reply)}
    return _MARK + to_json(fields)


def decode(data: bytes) -> Kept | None:
    """The answer of these bytes; None where another version wrote them, or they are damaged."""
    if not data.startswith(_MARK):
        return None
    try:
        return _adapter().validate_json(data[len(_MARK) :])
    except ValidationError:
        return None


@cache
def _adapter() -> TypeAdapter[Kept]:
    return TypeAdapter(Kept)


class Decoded:
    """Answers that were decoded before, by the bytes they were decoded from.

    The cache alone says whether an entry still holds. It gives the same bytes as before as long as it does, so an
    answer found here is never older than the cache's.

    Args:
        max_bytes: how many encoded bytes to keep decoded; as objects they take some three times as much.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max, self._bytes = max_bytes, 0
        self._known: OrderedDict[str, tuple[bytes, Kept]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, place: str, data: bytes) -> Kept | None:
        """The answer of these bytes; ``place`` is the key they were found under, which holds the scope."""
        with self._lock:
            known = self._known.get(place)
            if known is not None and (known[0] is data or known[0] == data):
                self._known.move_to_end(place)
                return known[1]
        kept = decode(data)
        if kept is not None:
            self._add(place, data, kept)
        return kept

    def _add(self, place: str, data: bytes, kept: Kept) -> None:
        with self._lock:
            earlier = self._known.pop(place, None)
            if earlier is not None:
                self._bytes -= len(earlier[0])
            self._known[place] = (data, kept)
            self._bytes += len(data)
            while self._bytes > self._max:
                self._bytes -= len(self._known.popitem(last=False)[1][0])
