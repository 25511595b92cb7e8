"""A cache in Redis: shared by processes and machines."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from kaizen.core.errors import StoreError
from kaizen.core.protocols import CacheSize
from kaizen.core.scope import Scope
from kaizen.stores.cache.lua import DROP_OLD, INVALIDATE, PUT
from kaizen.stores.loops import PerLoop

T = TypeVar("T")

_logger: Final = logging.getLogger("kaizen.cache")
_FAILURES: Final = (RedisError, OSError, asyncio.TimeoutError)
_CONNECTIONS: Final = 32


class _Script:
    """A script and the digest by which Redis knows it."""

    def __init__(self, text: str) -> None:
        self.text, self.digest = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_PUT: Final = _Script(PUT)
_INVALIDATE: Final = _Script(INVALIDATE)
_DROP_OLD: Final = _Script(DROP_OLD)


class RedisCache:
    """A Cache in one Redis (6.2 or newer, and what speaks its protocol).

    Every ``get`` asks the server, so that what another machine has dropped or replaced is never given: there is no
    memory in front of it. A value is a key of its own that Redis itself lets end; beside it each scope has a list of
    its entries and one for each tag. All keys of a scope hold ``{<tenant>/<environment>}``, so that a cluster keeps
    them together.

    How much is kept is bounded by the server: ``maxmemory`` with a policy ``volatile-*``, such as ``volatile-lru``,
    drops values and never those lists. A policy ``allkeys-*`` may drop a tag's list, and what carries the tag could no
    longer be invalidated: it is warned of once.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; it may hold a password and is never shown.
        prefix: the first part of every key.
        timeout: seconds to wait for a connection and for an answer. No call waits longer for its cache.
    """

    def __init__(self, url: str, *, prefix: str = "kaizen", timeout: float = 1.0) -> None:
        self._url, self._prefix, self._timeout = url, prefix, timeout
        self._clients: PerLoop[Any] = PerLoop(self._connect, _disconnect)
        self._asked_policy = self._closed = False

    # -- the seam -----------------------------------------------------------------------------------

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        """The value, if it is still there."""
        place = f"{self._home(scope)}:e:{key}"
        return await self._do(lambda client: client.get(place))

    async def epoch(self, scope: Scope, /) -> int:
        """How often the scope was invalidated."""
        found: bytes | None = await self._do(lambda client: client.get(f"{self._home(scope)}:epoch"))
        return int(found or 0)

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
        """Keep a value; one round trip.

        Raises:
            StoreError: Redis can't be reached, or refuses.
        """
        until = "" if ttl is None else str(time.time() + ttl)
        milliseconds = "" if ttl is None else str(int(ttl * 1000))
        begun = "" if since is None else str(since)
        args = (key, value, milliseconds, until, begun, str(time.time()), *dict.fromkeys(tags))
        await self._run(_PUT, scope, args)

    async def invalidate(self, scope: Scope, tags: Sequence[str] | None = None, /) -> int:
        """Drop what carries any of the tags (all of the scope's for None); how many there were."""
        now, which, names = str(time.time()), "all" if tags is None else "some", tuple(dict.fromkeys(tags or ()))
        count, left = await self._run(_INVALIDATE, scope, (now, which, *names))
        while left:  # so many at a time, since the server does nothing else meanwhile
            dropped, left = await self._run(_INVALIDATE, scope, (now, f"more {which}", *names))
            count += dropped
        return count

    async def size(self, scope: Scope, /) -> CacheSize:
        """What it holds of a scope; what is too old is taken from its lists first."""
        home = self._home(scope)
        while await self._run(_DROP_OLD, scope, (str(time.time()),)):
            pass
        entries: int = await self._do(lambda client: client.hlen(f"{home}:meta"))
        size: bytes | None = await self._do(lambda client: client.get(f"{home}:bytes"))
        return CacheSize(entries, int(size or 0))

    async def close(self) -> None:
        """Let go of the running loop's connections; those of other loops end with them."""
        self._closed = True
        await self._clients.close()

    # -- inside -------------------------------------------------------------------------------------

    def _home(self, scope: Scope) -> str:
        # the tenant's length tells where its name ends: a/b and c is not a and b/c
        return f"{self._prefix}:{{{len(scope.tenant)}:{scope.tenant}/{scope.environment}}}"

    async def _run(self, script: _Script, scope: Scope, args: Sequence[str | bytes]) -> Any:
        """Have the server run a script, by its digest where it knows it already."""

        async def run(client: Any) -> Any:
            try:
                return await client.evalsha(script.digest, 1, self._home(scope), *args)
            except NoScriptError:
                return await client.eval(script.text, 1, self._home(scope), *args)

        return await self._do(run)

    async def _do(self, act: Callable[[Any], Awaitable[T]]) -> T:
        if self._closed:
            raise StoreError("the cache in Redis is closed")
        try:
            return await act(await self._clients.get())
        except _FAILURES as error:
            # its kind alone, and no cause: what it says may hold the address, and that a password
            raise StoreError(f"the cache in Redis failed: {type(error).__name__}") from None

    async def _connect(self) -> Any:
        # one that waits for a turn: a burst of calls must not be a burst of connections
        pool = cast(
            "Any",
            BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] - its keywords have no types
                self._url,
                max_connections=_CONNECTIONS,
                timeout=self._timeout,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
            ),
        )
        client = cast("Any", Redis.from_pool(pool))
        if not self._asked_policy:
            memory = await client.info("memory")
            self._asked_policy = True
            if str(memory.get("maxmemory_policy", "")).startswith("allkeys"):
                _logger.warning("Redis may drop the lists of the cache: set maxmemory-policy to volatile-lru")
        return client


async def _disconnect(client: Any) -> None:
    await client.aclose()
