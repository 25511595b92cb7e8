"""What every layer does with a stream it wraps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import TypeAlias, cast

from kaizen.core.request import Chunk

Chunks: TypeAlias = AsyncIterator[Chunk]


def closing(chunks: Chunks) -> AbstractAsyncContextManager[Chunks]:
    """The same stream, closed on the way out.

    Without it a layer that is closed early leaves the stream below it, and so the call upstream, to the
    garbage collector. A user's plain iterator has nothing to close.
    """
    if isinstance(chunks, AsyncGenerator):
        return aclosing(cast("AsyncGenerator[Chunk]", chunks))
    return nullcontext(chunks)
