"""A request taken from its run's allowance before it is sent: here every one that is sent passes, and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kaizen.core.errors import KaizenError, Timeout
from kaizen.core.protocols import Provider
from kaizen.core.request import Allowance, Chunk, Reply, Request, Usage
from kaizen.inference.streams import closing

_NOTHING = Usage()


async def drawn(allowance: Allowance, inner: Provider, request: Request) -> Reply:
    """The answer of ``inner``, its request counted first, its tokens when they are known.

    A provider that refused used nothing, nor did an adapter that had no place for the request and sent none. Where
    nobody can tell, since the call timed out or was cancelled, what was taken stays taken.

    Raises:
        BudgetExceeded: the allowance has nothing left; nothing was sent.
    """
    claim = await allowance.take(request)
    try:
        reply = await inner.complete(claim.request)
    except KaizenError as error:
        if not isinstance(error, Timeout):
            await claim.settle(_NOTHING)
        raise
    await claim.settle(reply.usage)
    return reply


async def drawn_stream(allowance: Allowance, inner: Provider, request: Request) -> AsyncIterator[Chunk]:
    """The same for a stream; one that breaks off has used nobody knows what."""
    claim = await allowance.take(request)
    begun = False
    try:
        async with closing(inner.stream(claim.request)) as chunks:
            async for chunk in chunks:
                begun = True
                if chunk.reply is not None:
                    await claim.settle(chunk.reply.usage)
                yield chunk
    except KaizenError as error:
        if not begun and not isinstance(error, Timeout):
            await claim.settle(_NOTHING)
        raise
