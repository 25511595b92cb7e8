"""A recorded call, as it was asked and answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from kaizen.core.record import Record
from kaizen.core.request import Chunk, Reply, Request


@dataclass(frozen=True, slots=True)
class Recorded:
    """A model call whose contents are kept.

    Args:
        record: its record.
        request: what was asked.
        reply: what was answered.
    """

    record: Record
    request: Request
    reply: Reply


class Answers:
    """A Provider that gives the recorded answer to the call that is replayed: set ``reply`` before each.

    Attributes:
        reply: the answer.
        asked: how many calls came through to it.
    """

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.asked = 0

    async def complete(self, request: Request, /) -> Reply:
        """The recorded answer."""
        self.asked += 1
        assert self.reply is not None  # noqa: S101 - for the type checker: it is set before each call
        return self.reply

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """The same, in one piece."""
        yield Chunk(reply=await self.complete(request))
