"""What was worked out for requests that come again and again: who serves calls names them, each layer keeps its share.

Nearly every call is new, so nothing is kept of it. A caller who sends the same bytes twice will send them again, and
then the very same ``Request`` stands for all of them: what follows from it alone (its key, its JSON, its length) need
not be worked out each time.
"""

from __future__ import annotations

from typing import Any, Final

from kaizen.core.request import Request

KEPT: Final = 1024
"""How many are kept; one more, and all are forgotten."""

Facts = dict[object, Any]

# By identity: to hash a request costs more than to look. It is held, so that no other takes over its id.
_known: dict[int, tuple[Request, Facts]] = {}


def remember(request: Request) -> None:
    """This one will come again."""
    if len(_known) >= KEPT:
        _known.clear()
    _known[id(request)] = (request, {})


def facts_of(request: Request) -> Facts | None:
    """What was worked out for it, to be added to; None for one that nobody named.

    Each who adds to it does so under an object of its own.
    """
    known = _known.get(id(request))
    return None if known is None else known[1]
