"""What was worked out for requests that come again and again: who serves calls names them, each layer keeps its share.

Nearly every call is new, so nothing is kept of it. A caller who sends the same bytes twice will send them again, and
then the very same ``Request`` stands for all of them: what follows from it alone (its key, its JSON, its length) need
not be worked out each time.
"""

from __future__ import annotations

from typing import Any, Final

from kaizen.core.request import Request

KEPT: Final = 1024
"""How many are kept, each with what was made of it; one more, and all are forgotten."""

Facts = dict[object, Any]

# By identity: to hash a request costs more than to look. It is held, so that no other takes over its id.
_known: dict[int, tuple[Request, Facts]] = {}
# Those that count: what a layer made of one of them goes with it.
_named: set[int] = set()


def remember(request: Request, *, made_of: Request | None = None) -> None:
    """This one will come again.

    Args:
        request: which.
        made_of: the one that a layer made it of, once for as long as that one is kept: it takes no place of its own.
    """
    if made_of is None:
        if len(_named) >= KEPT:
            _named.clear()
            _known.clear()
        _named.add(id(request))
    elif id(made_of) not in _known:
        return  # it was forgotten meanwhile, and this with it
    _known[id(request)] = (request, {})


def facts_of(request: Request) -> Facts | None:
    """What was worked out for it, to be added to; None for one that nobody named.

    Each who adds to it does so under an object of its own.
    """
    known = _known.get(id(request))
    return None if known is None else known[1]
