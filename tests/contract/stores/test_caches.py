"""Every cache keeps what a Cache promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kaizen.core.ids import new_id
from kaizen.core.protocols import Cache
from kaizen.core.scope import Scope
from kaizen.stores.cache.memory import MemoryCache
from kaizen.stores.cache.redis import RedisCache
from kaizen.stores.cache.sqlite import SqliteCache
from kaizen.stores.cache.tiered import TieredCache
from kaizen.testing.cache_suite import CacheSuite, SharedCacheSuite

ROOM = 8 * 1024 * 1024


class TestMemoryCache(CacheSuite):
    @pytest.fixture
    async def cache(self) -> AsyncIterator[Cache]:
        cache = MemoryCache(ROOM)
        yield cache
        await cache.close()


class TestSqliteCache(CacheSuite, SharedCacheSuite):
    @pytest.fixture
    async def cache(self, tmp_path: Path) -> AsyncIterator[Cache]:
        cache = SqliteCache(tmp_path / "home" / "cache.db", ROOM)
        yield cache
        await cache.close()

    @pytest.fixture
    async def other(self, tmp_path: Path) -> AsyncIterator[Cache]:
        cache = SqliteCache(tmp_path / "home" / "cache.db", ROOM)
        yield cache
        await cache.close()


class TestTieredCache(CacheSuite, SharedCacheSuite):
    @pytest.fixture
    async def cache(self, tmp_path: Path) -> AsyncIterator[Cache]:
        cache = TieredCache(MemoryCache(ROOM), SqliteCache(tmp_path / "home" / "cache.db", ROOM))
        yield cache
        await cache.close()

    @pytest.fixture
    async def other(self, tmp_path: Path) -> AsyncIterator[Cache]:
        cache = TieredCache(MemoryCache(ROOM), SqliteCache(tmp_path / "home" / "cache.db", ROOM))
        yield cache
        await cache.close()


class TestSoleTieredCache(CacheSuite):
    """Memory first, and the file a moment later."""

    @pytest.fixture
    async def cache(self, tmp_path: Path) -> AsyncIterator[Cache]:
        file = SqliteCache(tmp_path / "home" / "cache.db", ROOM)
        cache = TieredCache(MemoryCache(ROOM), file, sole=True)
        yield cache
        await cache.close()

    async def test_what_waits_is_written_when_it_ends_and_soon_without(self, cache: Cache, tmp_path: Path) -> None:
        scope = Scope("a", "b")
        for number in range(100):
            await cache.put(scope, f"k{number}", b"x")
        other = SqliteCache(tmp_path / "home" / "cache.db", ROOM)
        assert await other.get(scope, "k99") is None
        assert await cache.get(scope, "k99") == b"x"
        for _ in range(100):
            if await other.get(scope, "k99") is not None:
                break
            await asyncio.sleep(0.02)
        assert (await other.size(scope)).entries == 100
        await cache.put(scope, "last", b"x")
        await cache.close()
        assert await other.get(scope, "last") == b"x"
        await other.close()

    async def test_what_was_made_before_an_invalidation_is_kept_nowhere(self, cache: Cache, tmp_path: Path) -> None:
        scope = Scope("a", "b")
        since = await cache.epoch(scope)
        await cache.put(scope, "early", b"x", tags=["document:1"])  # waits to be written
        assert await cache.invalidate(scope, ["document:1"]) == 1
        await cache.put(scope, "late", b"x", tags=["document:1"], since=since)
        assert [await cache.get(scope, key) for key in ("early", "late")] == [None, None]
        await cache.close()
        other = SqliteCache(tmp_path / "home" / "cache.db", ROOM)
        assert (await other.size(scope)).entries == 0
        await other.close()


class TestRedisCache(CacheSuite, SharedCacheSuite):
    @pytest.fixture
    def prefix(self) -> str:
        return new_id()

    @pytest.fixture
    async def cache(self, redis_url: str, prefix: str) -> AsyncIterator[Cache]:
        cache = RedisCache(redis_url, prefix=prefix)
        yield cache
        await cache.close()

    @pytest.fixture
    async def other(self, redis_url: str, prefix: str) -> AsyncIterator[Cache]:
        cache = RedisCache(redis_url, prefix=prefix)
        yield cache
        await cache.close()

    @pytest.mark.alone  # each of them has to get a connection within a second
    async def test_many_tasks_put_and_get_at_once(self, cache: Cache) -> None:
        await super().test_many_tasks_put_and_get_at_once(cache)


# -- tenants, whatever they are called and whatever they do ----------------------------------------------------------

NAMES = st.sampled_from(["", "a", "a/b", "b", "/", "{a}", "1:a", "a:e", "%", "日"]) | st.text(
    st.characters(codec="utf-8"), max_size=3
)
SCOPES = st.builds(Scope, NAMES, NAMES)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "tag", "all"]), st.sampled_from([0, 1]), NAMES, st.lists(NAMES, max_size=2)
    ),
    max_size=25,
)


async def _never_meet(cache: Cache, scopes: tuple[Scope, Scope], acts: list[tuple[str, int, str, list[str]]]) -> None:
    """Two tenants act by turns; each has to find what it would find alone."""
    alone: tuple[dict[str, tuple[bytes, set[str]]], ...] = ({}, {})
    for number, (act, who, key, tags) in enumerate(acts):
        scope, own = scopes[who], alone[who]
        match act:
            case "put":
                value = f"{who} {number}".encode()
                await cache.put(scope, key, value, tags=tags)
                own[key] = (value, set(tags))
            case "get":
                assert await cache.get(scope, key) == own.get(key, (None,))[0]
            case _:
                gone = [one for one, (_, had) in own.items() if act == "all" or had & set(tags)]
                assert await cache.invalidate(scope, None if act == "all" else tags) == len(gone)
                for one in gone:
                    del own[one]
    for scope, own in zip(scopes, alone, strict=True):
        assert (await cache.size(scope)).entries == len(own)
        for key, (value, _) in own.items():
            assert await cache.get(scope, key) == value
    await cache.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite", "tiered", "redis"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=SCOPES, other=SCOPES, acts=ACTS)
def test_two_tenants_never_meet(
    kind: str,
    one: Scope,
    other: Scope,
    acts: list[tuple[str, int, str, list[str]]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    assume(one != other)
    file = tmp_path / f"{new_id()}.db"
    made: dict[str, Callable[[], Cache]] = {
        "memory": lambda: MemoryCache(ROOM),
        "sqlite": lambda: SqliteCache(file, ROOM),
        "tiered": lambda: TieredCache(MemoryCache(ROOM), SqliteCache(file, ROOM)),
        "redis": lambda: RedisCache(request.getfixturevalue("redis_url"), prefix=new_id()),
    }
    asyncio.run(_never_meet(made[kind](), (one, other), acts))
