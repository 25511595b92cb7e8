"""A call in the air that several callers wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from kaizen.core.errors import KaizenError, ProviderError, Unavailable
from kaizen.core.request import Chunk, Reply, Request


class Flight:
    """One call upstream, in a task of its own, so that it goes on when the caller who began it leaves.

    It ends early only when nobody waits any more. All methods belong to the loop that the flight began in.

    Attributes:
        request: what was asked: the first caller's request.
        epoch: the cache's, from before the call; None where the answer is not to be kept.
        tags, ttl: what the answer depends on and how long it may be kept, for all callers together.
        closed: whether the answer is being kept, so that no tag can be added any more.
        chunks: what was streamed so far.
        ended: whether there is a reply or an error.
        reply, error: how it ended.
        paid: whether a caller was given the reply as its own. The others owe it to the cache, and pay nothing.
        leaderless: whether the caller who began it left before its end.
    """

    __slots__ = (
        "_at_end",
        "_at_news",
        "_task",
        "_waiting",
        "chunks",
        "closed",
        "ended",
        "epoch",
        "error",
        "leaderless",
        "paid",
        "reply",
        "request",
        "tags",
        "ttl",
    )

    def __init__(self, request: Request, epoch: int | None, ttl: float) -> None:
        self.request, self.epoch, self.ttl = request, epoch, ttl
        self.tags: set[str] = set()
        self.chunks: list[Chunk] = []
        self.closed = self.ended = self.paid = self.leaderless = False
        self.reply: Reply | None = None
        self.error: Exception | None = None
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._at_news: list[asyncio.Future[None]] = []
        self._at_end: list[asyncio.Future[None]] = []

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start the call."""
        self._task = asyncio.get_running_loop().create_task(work)

    def add(self, chunk: Chunk) -> None:
        """A piece came."""
        self.chunks.append(chunk)
        _wake(self._at_news)

    def end(self, reply: Reply | None, error: Exception | None) -> None:
        """It is over."""
        self.reply, self.error, self.ended = reply, error, True
        _wake(self._at_news)
        _wake(self._at_end)

    @property
    def deserted(self) -> bool:
        """Whether nobody waits any more."""
        return self._waiting == 0

    def board(self) -> None:
        """Count as one who waits; ``leave`` has to follow."""
        self._waiting += 1

    def leave(self, *, leads: bool) -> None:
        """Wait no more; ``leads`` says whether it is the one who began."""
        self._waiting -= 1
        self.leaderless |= leads and not self.ended

    async def news(self) -> None:
        """Wait for the next piece, or the end."""
        await self._wait(self._at_news)

    async def over(self) -> None:
        """Wait for the end."""
        while not self.ended:
            await self._wait(self._at_end)

    async def cancel(self) -> None:
        """Stop the call, and wait until it has let go of its connection."""
        if self._task is not None and not self.ended:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _wait(self, queue: list[asyncio.Future[None]]) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        await turn

    def failure(self, *, shared: bool) -> Exception:
        """What a caller is told of the failure.

        Callers that share it get copies: each notes its own record on the error it raises, and only one of them has
        asked a provider, and owes what that may have billed.
        """
        error = self.error or Unavailable("the call ended without an answer", model=self.request.model)
        if not shared or not isinstance(error, KaizenError):
            return error
        # not by copy.copy, which calls __init__ with the message alone
        made = type(error).__new__(type(error), *error.args)
        made.__dict__.update(error.__dict__)
        made.__dict__.pop("_kaizen_record", None)
        asked = {"attempts": 0} if isinstance(made, ProviderError) else {}
        made.detail = {**made.detail, "billed": False, **asked}
        return made

    def cut_short(self, deadline: float | None) -> bool:
        """Whether it may have failed only because its own deadline is earlier than this one."""
        own, error = self.request.deadline, self.error
        later = own is not None and (deadline is None or deadline > own)
        return later and isinstance(error, ProviderError) and (error.retryable or error.code == "timeout")


def _wake(queue: list[asyncio.Future[None]]) -> None:
    for turn in queue:
        if not turn.done():
            turn.set_result(None)
    queue.clear()
