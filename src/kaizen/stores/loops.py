"""What belongs to the event loop that opened it, such as a pool of connections, for code that runs in any number."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One of a kind for each loop, opened at its first use there and closed with the loop.

    An open async generator holds it: ``asyncio.run`` and ``asyncio.Runner`` end the open generators of their loop
    (``loop.shutdown_asyncgens``), so nobody has to close anything for a loop to end cleanly.

    Args:
        open_one: opens one in the running loop.
        close_one: closes it in the same loop.
    """

    def __init__(self, open_one: Callable[[], Awaitable[T]], close_one: Callable[[T], Awaitable[object]]) -> None:
        self._open, self._close = open_one, close_one
        self._held: dict[AbstractEventLoop, asyncio.Task[tuple[T, AsyncGenerator[T]]]] = {}

    async def get(self) -> T:
        """The running loop's. Tasks that ask at once share one; where opening fails, the next to ask tries again."""
        loop = asyncio.get_running_loop()
        task = self._held.get(loop)
        if task is None:
            for other in [held for held in self._held if held.is_closed()]:
                del self._held[other]
            task = self._held[loop] = loop.create_task(self._begin())
        try:
            # shielded: one who is cancelled must not take it from the others
            return (await asyncio.shield(task))[0]
        except BaseException:
            if task.done() and await _failed(task) and self._held.get(loop) is task:
                del self._held[loop]
            raise

    async def close(self) -> None:
        """Close the running loop's, and forget those of loops that have ended. Others close with their loops."""
        task = self._held.pop(asyncio.get_running_loop(), None)
        if task is not None and not await _failed(task):
            await task.result()[1].aclose()

    async def _begin(self) -> tuple[T, AsyncGenerator[T]]:
        keeper = self._keep(await self._open())
        return await anext(keeper), keeper

    async def _keep(self, opened: T) -> AsyncGenerator[T]:
        try:
            yield opened
        finally:
            self._held.pop(asyncio.get_running_loop(), None)
            await self._close(opened)


async def _failed(task: asyncio.Task[object]) -> bool:
    await asyncio.wait([task])
    return task.cancelled() or task.exception() is not None
