"""Memory in front of a cache that several processes share, which never answers with what another one has dropped."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import AbstractEventLoop
from collections.abc import Sequence
from itertools import islice
from types import CoroutineType
from typing import Any, Final, Protocol

from kaizen.core.errors import StoreError
from kaizen.core.protocols import Cache, CacheSize
from kaizen.core.scope import Scope
from kaizen.stores.cache.entries import Entry
from kaizen.stores.cache.memory import MemoryCache

_logger = logging.getLogger(__name__)

_BEHIND_S: Final = 0.05
_AT_ONCE: Final = 32  # under a millisecond
_LOG_EVERY_S: Final = 60.0


class Shared(Cache, Protocol):
    """A Cache that can tell at once, and cheaply, whether anything it gave before may have changed."""

    async def generation(self, scope: Scope, /) -> int:
        """A number that grows when an entry of the scope is dropped or replaced, by whichever process."""
        ...

    async def find(self, scope: Scope, key: str, /) -> tuple[bytes, float | None] | None:
        """The value, if it is still there, and the seconds it has left; None where it has no end."""
        ...

    def counts_now(self, scope: Scope, /) -> tuple[int, int] | None:
        """Epoch and generation, where they can be had at once."""
        ...

    def entry(
        self, scope: Scope, key: str, value: bytes, ttl: float | None, tags: Sequence[str], since: int | None
    ) -> Entry:
        """What ``put`` keeps, for ``put_all``: its time begins now."""
        ...

    async def put_all(self, entries: Sequence[Entry], /) -> None:
        """Keep these, in one transaction."""
        ...


class TieredCache:
    """A Cache of two tiers. Each ``get`` asks the shared tier for its generation, which costs far less than the value.

    Writes go to the shared tier, so that every process sees them when they return. An entry comes to memory with its
    first ``get``, under the generation it was read in, and is found under no other: what memory holds of earlier ones
    goes as room is needed. So whatever two processes do at once, an answer is never older than the last invalidation.

    Args:
        front: in this process.
        shared: what several processes have in common.
        sole: no other process answers from it, as in a gateway of one worker. Then an entry goes to memory at once and
            to the shared tier within 50 ms, together with the others of that time, which a killed process loses.
    """

    def __init__(self, front: MemoryCache, shared: Shared, *, sole: bool = False) -> None:
        self._front, self._shared, self._sole = front, shared, sole
        # What waits to be written by the one loop that writes behind; what other loops bring is written at once.
        self._behind: dict[tuple[Scope, str], Entry] = {}
        self._loop: AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._log_at = 0.0

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        """The value, if it is still there."""
        epoch, generation = self._shared.counts_now(scope) or await self._counts(scope)
        place = f"{generation} {key}"
        value = self._front.find(scope, place)
        if value is not None:
            return value
        entry = self._behind.get((scope, key))
        if entry is not None and entry.since == epoch:
            # newer than what the file has; memory may have dropped it, or has it under another number
            return None if entry.until is not None and entry.until <= time.time() else entry.value
        found = await self._shared.find(scope, key)
        if found is None:
            return None
        self._front.keep(scope, place, found[0], ttl=found[1])
        return found[0]

    async def _counts(self, scope: Scope) -> tuple[int, int]:
        return await self._shared.epoch(scope), await self._shared.generation(scope)

    def epoch(self, scope: Scope, /) -> CoroutineType[Any, Any, int]:
        """The shared tier's."""
        return self._shared.epoch(scope)

    async def put(
        self,
        scope: Scope,
        key: str,
        value: bytes,
        /,
        *,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        since: int | None = None,
    ) -> None:
        """Keep it in the shared tier. Many answers are never asked again: it comes to memory when it is."""
        if not self._defers():
            await self._shared.put(scope, key, value, ttl=ttl, tags=tags, since=since)
            return
        epoch, generation = self._shared.counts_now(scope) or await self._counts(scope)
        if since is not None and since != epoch:
            # after an invalidation only the shared tier can tell whether it was of one of these tags
            await self._shared.put(scope, key, value, ttl=ttl, tags=tags, since=since)
            return
        self._front.keep(scope, f"{generation} {key}", value, ttl=ttl)
        self._behind.pop((scope, key), None)
        # of this epoch, whether or not the caller says so: what is invalidated before it is written is not written
        self._behind[scope, key] = self._shared.entry(scope, key, value, ttl, tags, epoch)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_later())

    def _defers(self) -> bool:
        """Whether this loop writes behind: the first that asks, until it is closed."""
        if not self._sole:
            return False
        loop = asyncio.get_running_loop()
        if self._loop is not loop and (self._loop is None or self._loop.is_closed()):
            self._loop, self._turn, self._writing = loop, asyncio.Lock(), None
        return self._loop is loop

    async def _write_later(self) -> None:
        await asyncio.sleep(_BEHIND_S)
        await self._write_behind()

    async def _write_behind(self) -> None:
        """Write what waits: some at a time, so that the loop turns in between."""
        async with self._turn:
            while self._behind:
                waiting = dict(islice(self._behind.items(), _AT_ONCE))
                try:
                    await self._shared.put_all(list(waiting.values()))
                except StoreError as error:
                    now = time.monotonic()
                    if now >= self._log_at:  # a full disk fails every write
                        self._log_at = now + _LOG_EVERY_S
                        _logger.warning("answers are kept in memory alone: %s", error)
                for place, entry in waiting.items():
                    if self._behind.get(place) is entry:  # else it was replaced meanwhile
                        del self._behind[place]
                await asyncio.sleep(0)

    async def invalidate(self, scope: Scope, tags: Sequence[str] | None = None, /) -> int:
        """Drop what carries any of the tags; how many there were."""
        if self._defers():
            await self._write_behind()  # what waits would else be written after it
        return await self._shared.invalidate(scope, tags)

    async def size(self, scope: Scope, /) -> CacheSize:
        """What the shared tier holds of a scope."""
        if self._defers():
            await self._write_behind()
        return await self._shared.size(scope)

    async def close(self) -> None:
        """Write what waits, and let go of both."""
        if self._defers():
            if self._writing is not None:
                self._writing.cancel()
            await self._write_behind()
        await self._front.close()
        await self._shared.close()
