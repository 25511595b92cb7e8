"""The one layer that asks again. No client below it retries, or a storm of calls would be squared."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from kaizen.core.errors import ProviderError
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Reply, Request
from kaizen.inference.failover.watch import CircuitOpen
from kaizen.inference.streams import closing


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently to ask again.

    Args:
        attempts: requests in all, the first included; 1 never asks again.
        backoff: seconds before the second request, at most; each later wait may be twice as long.
        backoff_max: seconds that a wait of ours never exceeds.
        retry_after_max: a provider that asks for a longer wait, in seconds, is not waited for.
    """

    attempts: int = 3
    backoff: float = 0.5
    backoff_max: float = 8.0
    retry_after_max: float = 60.0


class Retry:
    """A Provider that asks again when an error is ``retryable`` and the deadline leaves time for the wait.

    A wait is drawn from zero to the backoff ("full jitter": Brooker, Exponential Backoff and Jitter, AWS
    Architecture Blog, 2015), and added to ``retry_after`` where the provider named one, lest all who were told
    the same second come back in it. A stream is asked for again only while no chunk of it was passed on. The
    error raised in the end is the provider's own, with ``attempts`` in its detail. A model whose circuit is open is not
    waited for.

    Args:
        inner: whom to ask.
        retries: how often and how patiently.
        patience: seconds that a request's model may have itself waited for, in place of ``retry_after_max``; None
            for that.
        sleep: waits that many seconds.
        draw: a number from 0 to 1, at random.
    """

    def __init__(
        self,
        inner: Provider,
        retries: Retries = Retries(),
        *,
        patience: Callable[[Request], float | None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._inner, self._retries, self._patience = inner, retries, patience
        self._sleep, self._draw = sleep, draw

    async def complete(self, request: Request, /) -> Reply:
        """Ask until there is an answer; ``Reply.attempts`` counts the requests."""
        attempt = 1
        while True:
            try:
                reply = await self._inner.complete(request)
            except ProviderError as error:
                wait = self._wait(error, attempt, request)
            else:
                return reply if attempt == 1 else replace(reply, attempts=attempt)
            await self._sleep(wait)
            attempt += 1

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        """Ask until a stream begins."""
        attempt = 1
        while True:
            passed_on = False
            try:
                async with closing(self._inner.stream(request)) as chunks:
                    async for chunk in chunks:
                        passed_on = True
                        yield chunk if chunk.reply is None else _counted(chunk, chunk.reply, attempt)
                return
            except ProviderError as error:
                wait = self._wait(error, attempt, request, final=passed_on)
            await self._sleep(wait)
            attempt += 1

    def _wait(self, error: ProviderError, attempt: int, request: Request, *, final: bool = False) -> float:
        """Seconds to wait before the next request; raises the error where there is to be none."""
        refused = isinstance(error, CircuitOpen)  # nobody was asked
        if refused or final:
            error.detail = {**error.detail, "attempts": attempt - 1 if refused else attempt}
            raise error
        retries = replace(self._retries, retry_after_max=self._longest(request))
        return pause(error, attempt, retries, request.deadline, draw=self._draw)

    def _longest(self, request: Request) -> float:
        """The longest wait that a provider may ask for."""
        longest = self._retries.retry_after_max
        patience = None if self._patience is None else self._patience(request)
        return longest if patience is None else min(longest, patience)


def pause(
    error: ProviderError,
    attempt: int,
    retries: Retries,
    deadline: float | None,
    *,
    draw: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait before the next request, see ``Retry``; raises the error where there is to be none.

    Args:
        error: of the last one; how many there were is noted in its detail.
        attempt: its number, from 1 on.
        retries: how often and how patiently.
        deadline: ``time.monotonic()`` by which an answer is wanted.
        draw: a number from 0 to 1, at random.
    """
    error.detail = {**error.detail, "attempts": attempt}
    asked = error.retry_after or 0.0
    if not error.retryable or attempt >= retries.attempts or asked > retries.retry_after_max:
        raise error
    # the exponent is bounded because 2.0 ** 1024 overflows, long after backoff_max was reached
    backoff = min(retries.backoff_max, retries.backoff * 2.0 ** min(attempt - 1, 64))
    wait = asked + draw() * backoff
    if deadline is not None and time.monotonic() + wait >= deadline:
        raise error
    return wait


def _counted(chunk: Chunk, reply: Reply, attempts: int) -> Chunk:
    return chunk if attempts == 1 else replace(chunk, reply=replace(reply, attempts=attempts))
