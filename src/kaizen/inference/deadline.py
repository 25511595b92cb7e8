"""The caller's deadline, kept for every adapter in one place, a user's own included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import CoroutineType
from typing import Any

from kaizen.core.errors import Timeout
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request
from kaizen.inference.streams import closing


class Deadline:
    """A Provider that answers by ``Request.deadline`` or raises Timeout, and then cancels what is below.

    It stands outside the retries, so that the deadline bounds all attempts together, and a call whose
    deadline has passed reaches no provider.
    """

    def __init__(self, inner: Provider) -> None:
        self._inner = inner

    def complete(self, request: Request, /) -> CoroutineType[Any, Any, Reply]:
        """The answer in time, or Timeout."""
        if request.deadline is None:
            return self._inner.complete(request)
        return self._complete_by(request.deadline, request)

    async def _complete_by(self, deadline: float, request: Request) -> Reply:
        limit = asyncio.timeout(_left(request, deadline))
        try:
            async with limit:
                return await self._inner.complete(request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise _late(request) from None

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """Chunks until the deadline; the clock runs only while this waits for the provider."""
        deadline = request.deadline
        left = None if deadline is None else _left(request, deadline)
        async with closing(self._inner.stream(request)) as chunks:
            if deadline is None:
                async for chunk in chunks:
                    yield chunk
                return
            while True:
                # a limit round each wait and not round the loop: it must not cancel whoever reads us
                limit = asyncio.timeout(left)
                try:
                    async with limit:
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    if not limit.expired():
                        raise
                    raise _late(request) from None
                if chunk is None:
                    return
                yield chunk
                if chunk.reply is not None:
                    return  # all is there: a deadline that passes now is no failure
                left = _left(request, deadline)


def _left(request: Request, deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _late(request)
    return left


def _late(request: Request) -> Timeout:
    # not retryable: the same call with the same deadline can't succeed later
    return Timeout("the run's deadline has passed", model=request.model, retryable=False)
