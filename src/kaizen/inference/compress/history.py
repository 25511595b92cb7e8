"""Earlier turns of a conversation: which of them are old, and which exchanges can go as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from kaizen.core.message import Message, Text
from kaizen.core.request import Request


def last_question(request: Request) -> int:
    """Where the last user message with a text stands after the stable part; -1 where there is none."""
    for at in range(len(request.messages) - 1, request.stable - 1, -1):
        message = request.messages[at]
        if message.role == "user" and message.text.strip():
            return at
    return -1


def old_turns(request: Request, question: int, window: int) -> range:
    """The messages before the last ``window`` ones that came before the question, after what is stable.

    A conversation's first user message is never old: it says what all of it is about.
    """
    begin = request.stable
    while begin < question and request.messages[begin].role == "system":
        begin += 1
    return range(begin + 1, max(begin + 1, question - window))


def exchanges(messages: Sequence[Message], old: range) -> list[tuple[int, ...]]:
    """Old turns that can only go together: a user's message with the answers to it.

    One with a tool call, a tool's result or a picture is not among them: the other half of it may stand elsewhere.
    """
    found: list[list[int]] = []
    for at in old:
        if messages[at].role == "user" or not found:
            found.append([at])
        else:
            found[-1].append(at)
    return [tuple(one) for one in found if _can_go(messages, one)]


def _can_go(messages: Sequence[Message], turns: Sequence[int]) -> bool:
    roles = [messages[at].role for at in turns]
    texts_only = all(isinstance(part, Text) for at in turns for part in messages[at].parts)
    return texts_only and roles[0] == "user" and roles[1:] == ["assistant"] * (len(turns) - 1) and len(turns) > 1
