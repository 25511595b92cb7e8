"""Memory in front of a cache that several processes share, which never answers with what another one has dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kaizen.core.protocols import Cache, CacheSize
from kaizen.core.scope import Scope
from kaizen.stores.cache.memory import MemoryCache


class Shared(Cache, Protocol):
    """A Cache that can tell at once, and cheaply, whether anything it gave before may have changed."""

    async def generation(self, scope: Scope, /) -> int:
        """A number that grows when an entry of the scope is dropped or replaced, by whichever process."""
        ...

    async def find(self, scope: Scope, key: str, /) -> tuple[bytes, float | None] | None:
        """The value, if it is still there, and the seconds it has left; None where it has no end."""
        ...


class TieredCache:
    """A Cache of two tiers. Each ``get`` asks the shared tier for its generation, which costs far less than the value.

    Writes go to the shared tier, so that every process sees them when they return. An entry comes to memory with its
    first ``get``, under the generation it was read in, and is found under no other: what memory holds of earlier ones
    goes as room is needed. So whatever two processes do at once, an answer is never older than the last invalidation.

    Args:
        front: in this process.
        shared: what several processes have in common.
    """

    def __init__(self, front: MemoryCache, shared: Shared) -> None:
        self._front, self._shared = front, shared

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        """The value, if it is still there."""
        place = f"{await self._shared.generation(scope)} {key}"
        value = self._front.find(scope, place)
        if value is not None:
            return value
        found = await self._shared.find(scope, key)
        if found is None:
            return None
        self._front.keep(scope, place, found[0], ttl=found[1])
        return found[0]

    async def epoch(self, scope: Scope, /) -> int:
        """The shared tier's."""
        return await self._shared.epoch(scope)

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
        await self._shared.put(scope, key, value, ttl=ttl, tags=tags, since=since)

    async def invalidate(self, scope: Scope, tags: Sequence[str] | None = None, /) -> int:
        """Drop what carries any of the tags; how many there were."""
        return await self._shared.invalidate(scope, tags)

    async def size(self, scope: Scope, /) -> CacheSize:
        """What the shared tier holds of a scope."""
        return await self._shared.size(scope)

    async def close(self) -> None:
        """Let go of both."""
        await self._front.close()
        await self._shared.close()
