"""Orders and marks a prompt so that the provider's own prompt cache holds: what stays the same comes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from kaizen.core.message import Message, ToolCall
from kaizen.core.request import Request

# What Anthropic's cache takes begins at 1,024 tokens (its documentation of prompt caching), some four characters each.
_LEAST: Final = 4096
_REMEMBERED: Final = 4096


class Prefixes:
    """Marks the stable part of prompts, from the second time on that one comes within the cache's life.

    Writing to a provider's cache costs more than reading anew (a quarter more at Anthropic), so a prefix seen once is
    not marked. What a caller marked itself is left as it is. On wires without marks they say nothing.

    Args:
        life: seconds that the provider keeps a prefix which nobody reads.
        clock: seconds, from any beginning.
    """

    def __init__(self, life: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._life, self._clock = life, clock
        self._seen: OrderedDict[int, float] = OrderedDict()

    def marked(self, request: Request) -> Request:
        """The request with its instructions first and its stable part marked, or the same one."""
        request = instructions_first(request)
        stable = request.stable or _instructions(request.messages)
        if not stable or _marked(request.messages) or _size(request.messages[:stable]) < _LEAST:
            return request
        if not self._again(hash((request.scope, request.model, request.messages[:stable]))):
            return request
        return _mark(request, stable - 1)

    def _again(self, key: int) -> bool:
        now = self._clock()
        before = self._seen.pop(key, None)
        self._seen[key] = now
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return before is not None and now - before < self._life


def instructions_first(request: Request) -> Request:
    """The request with the system messages at its head before all others; those already there are not moved.

    A system message that comes after an answer belongs to its place in the conversation and stays there.
    """
    messages = request.messages
    answered = next((at for at, one in enumerate(messages) if one.role in ("assistant", "tool")), len(messages))
    head = messages[:answered]
    ordered = (*(one for one in head if one.role == "system"), *(one for one in head if one.role != "system"))
    if request.stable or ordered == head:
        return request
    return replace(request, messages=(*ordered, *messages[answered:]))


def _instructions(messages: tuple[Message, ...]) -> int:
    """How many system messages stand at the beginning."""
    return next((at for at, one in enumerate(messages) if one.role != "system"), len(messages))


def _marked(messages: tuple[Message, ...]) -> bool:
    return any(getattr(part, "mark", None) for one in messages for part in one.parts)


def _size(messages: tuple[Message, ...]) -> int:
    return sum(len(one.text) for one in messages)


def _mark(request: Request, at: int) -> Request:
    """The request with the last part of a message marked; the same one where that is a call of a tool."""
    message = request.messages[at]
    last = message.parts[-1] if message.parts else None
    if last is None or isinstance(last, ToolCall):
        return request
    marked = Message(message.role, (*message.parts[:-1], replace(last, mark="5m")))
    return replace(request, messages=(*request.messages[:at], marked, *request.messages[at + 1 :]))
