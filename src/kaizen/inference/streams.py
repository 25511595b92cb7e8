"""What every layer does with a stream it wraps, and a stream of what something tells while it runs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import TypeAlias, TypeVar, cast

from kaizen.core.request import Chunk

Chunks: TypeAlias = AsyncIterator[Chunk]
Told = TypeVar("Told")
Result = TypeVar("Result")


def closing(chunks: Chunks) -> AbstractAsyncContextManager[Chunks]:
    """The same stream, closed on the way out.

    Without it a layer that is closed early leaves the stream below it, and so the call upstream, to the
    garbage collector. A user's plain iterator has nothing to close.
    """
    if isinstance(chunks, AsyncGenerator):
        return aclosing(cast("AsyncGenerator[Chunk]", chunks))
    return nullcontext(chunks)


async def telling(
    begin: Callable[[Callable[[Told], None]], Awaitable[Result]], *, about: Callable[[Told], object] | None = None
) -> AsyncGenerator[Told | Result]:
    """What something tells while it runs, and its result as the last item.

    Closing the generator cancels it.

    Args:
        begin: starts it; called with what takes what it tells.
        about: what a thing told is about, of which only the latest counts: who is slow to read misses those between,
            and nothing piles up. By default nothing is missed.
    """
    waiting: dict[object, Told] = {}
    numbers = itertools.count()
    news = asyncio.Event()

    def tell(told: Told) -> None:
        waiting[next(numbers) if about is None else about(told)] = told
        news.set()

    task = asyncio.ensure_future(begin(tell))
    task.add_done_callback(lambda _: news.set())
    try:
        while waiting or not task.done():
            await news.wait()
            news.clear()
            while waiting:
                yield waiting.pop(next(iter(waiting)))
        yield await task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
