"""How a call to the fault server is answered: well, late, with an error, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

FaultKind: TypeAlias = Literal[
    "ok",  # a proper answer
    "drip",  # one, with a pause before each piece of its stream
    "endless",  # one, whose stream stays open after its last event
    "never",  # nothing, on an open connection
    "status",  # an error
    "broken",  # JSON, or one event, that stops in the middle
    "truncated",  # a stream that ends in good order before its finish; a body shorter than announced
    "error_event",  # an error in the middle of a stream
    "html",  # a page of status 200
    "huge",  # 50 MB
    "hangup",  # the connection closed without a word
    "headers",  # closed after the head
    "body",  # ``message``, as JSON of status 200
    "events",  # ``message``, as an event stream
]

_KINDS: Final[Mapping[str, FaultKind]] = {kind: kind for kind in get_args(FaultKind)}


@dataclass(frozen=True, slots=True)
class Fault:
    """How one call is answered.

    Args:
        kind: see ``FaultKind``.
        delay: seconds before the answer, or before each event of a "drip".
        status: of a "status".
        headers: sent with it.
        code: its code, by default the usual one.
        message: its words.
    """

    kind: FaultKind = "ok"
    delay: float = 0.0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    code: str = ""
    message: str = "the fault server was told to answer so"


OK: Final = Fault()


def status(code: int, *, retry_after: str | None = None, error: str = "", message: str = OK.message) -> Fault:
    """An answer of this HTTP status, with a ``retry-after`` header and an error code of its own if given."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Fault("status", status=code, headers=headers, code=error, message=message)


def slow(seconds: float) -> Fault:
    """A proper answer after a while."""
    return Fault(delay=seconds)


def named(name: str) -> Fault | None:
    """The fault a model's name asks for: a kind, a status such as ``429``, or ``slow-<seconds>``; else None."""
    if name.isdigit() and 300 <= int(name) <= 599:
        return status(int(name), retry_after="1" if name == "429" else None)
    if re.fullmatch(r"slow-\d+(\.\d+)?", name):
        return slow(float(name[5:]))
    kind = _KINDS.get(name)
    return Fault(kind) if kind else None
