"""What every layer does with a stream it wraps, and a stream of what something tells while it runs."""

from __future__ import annotations

import asyncio
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


async def telling(begin: Callable[[Callable[[Told], None]], Awaitable[Result]]) -> AsyncGenerator[Told | Result]:
    """What something tells while it runs, and its result as the last item.

    Closing the generator cancels it.

    Args:
        begin: starts it; called with what takes what it tells.
    """
    queue: asyncio.Queue[tuple[Told] | None] = asyncio.Queue()
    task = asyncio.ensure_future(begin(lambda told: queue.put_nowait((told,))))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (item := await queue.get()) is not None:
            yield item[0]
        yield await task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
