"""A Provider that does what a list says, one entry a call, and counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace

from kaizen.core.message import Message
from kaizen.core.request import Chunk, Reply, Request, Usage
from kaizen.core.scope import LOCAL

HELLO = Request(scope=LOCAL, model="mine/large", messages=(Message.of("user", "hello"),))
REPLY = Reply(model="mine/large", text="hi", usage=Usage(tokens_in=1000, tokens_out=100))


def asking(model: str) -> Request:
    return replace(HELLO, model=model)


async def read_into(seen: list[str], chunks: AsyncIterator[Chunk]) -> None:
    """Read a stream to its end; what came before an error is in ``seen`` then."""
    async for chunk in chunks:
        seen.append(chunk.text)  # noqa: PERF401 - what was seen before an error has to stay


class Scripted:
    """Answers, raises, or runs a function of ours: the last entry again and again.

    A stream gives its text in single letters and then the reply; an error stands after the letters of
    ``letters``, so 0 breaks it before the first.
    """

    def __init__(self, *acts: Reply | Exception | Callable[[], None], letters: int = 0, wait: float = 0.0) -> None:
        self.acts: Sequence[Reply | Exception | Callable[[], None]] = acts
        self.letters, self.wait = letters, wait
        self.calls = self.closed = self.cancelled = 0

    def _next(self) -> Reply:
        act = self.acts[min(self.calls, len(self.acts)) - 1]
        if isinstance(act, Exception):
            raise act
        if isinstance(act, Reply):
            return act
        act()
        return REPLY

    async def complete(self, request: Request, /) -> Reply:
        self.calls += 1
        try:
            await asyncio.sleep(self.wait)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._next()

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
        self.calls += 1
        try:
            for letter in "abc"[: self.letters]:
                yield Chunk(letter)
                await asyncio.sleep(self.wait)
            if not self.letters:
                await asyncio.sleep(self.wait)
            yield Chunk(reply=self._next())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.closed += 1


class Plain:
    """A user's provider whose stream is an iterator without ``aclose``."""

    async def complete(self, request: Request, /) -> Reply:
        return REPLY

    def stream(self, request: Request, /) -> PlainChunks:
        return PlainChunks()


class PlainChunks:
    def __init__(self) -> None:
        self.left = [Chunk("hi"), Chunk(reply=REPLY)]

    def __aiter__(self) -> PlainChunks:
        return self

    async def __anext__(self) -> Chunk:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)
