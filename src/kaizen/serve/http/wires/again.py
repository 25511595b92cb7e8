"""Bodies that come again: a caller who sends the very bytes of an earlier call is given what they were decoded to."""

from __future__ import annotations

from typing import Final

from kaizen.core.identity import Identity
from kaizen.core.known.repeats import KEPT, facts_of, remember
from kaizen.core.request import Options
from kaizen.serve.http.wires.wire import Asked, Wire

_LONGEST: Final = 16 * 1024
_SEEN: Final = 8192

_Place = tuple[str, str, str, int, bytes]


class Again:
    """What bodies were decoded to, from the second time that they came.

    Most never come twice: of the first time only a hash is kept. A body stands under the wire, the tenant and the
    caller's options, so nobody is given another's.
    """

    __slots__ = ("_kept", "_seen")

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._kept: dict[_Place, tuple[Asked, Options]] = {}

    def find(self, wire: Wire, identity: Identity, options: Options, body: bytes) -> Asked | None:
        """The call in a body that was kept; it is the caller's own, its request is shared by all of them."""
        if not self._kept:
            return None
        kept = self._kept.get(_place(wire, identity, options, body))
        if kept is None:
            return None
        asked = kept[0]
        if facts_of(asked.request) is None:
            remember(asked.request)  # all were forgotten when one too many came
        return Asked(asked.request, asked.stream, asked.count, asked.usage, asked.echo)

    def note(self, wire: Wire, identity: Identity, options: Options, body: bytes, asked: Asked) -> None:
        """This body was decoded to this call; kept where it has come before, and says the same whenever it comes."""
        if len(body) > _LONGEST or asked.request.deadline is not None:
            return
        place = _place(wire, identity, options, body)
        mark = hash(place)
        if mark not in self._seen:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._kept) >= KEPT:
            self._kept.clear()
        # the options are held, since their identity is in the key
        self._kept[place] = (Asked(asked.request, asked.stream, asked.count, asked.usage, asked.echo), options)
        remember(asked.request)


def _place(wire: Wire, identity: Identity, options: Options, body: bytes) -> _Place:
    scope = identity.scope
    return wire.name, scope.tenant, scope.environment, id(options), body
