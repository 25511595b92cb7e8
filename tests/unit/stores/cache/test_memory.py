"""The cache in memory: its bound, and what leaves first."""

from __future__ import annotations

import pytest

from kaizen.core.scope import LOCAL, Scope
from kaizen.stores.cache import memory
from kaizen.stores.cache.memory import OVERHEAD, MemoryCache

VALUE = b"x" * (1000 - OVERHEAD - 1)  # an entry of 1,000 bytes under a key of one letter


async def held(cache: MemoryCache, keys: str, scope: Scope = LOCAL) -> str:
    """Which of the keys are there; to look is to use."""
    return "".join([key for key in keys if await cache.get(scope, key) is not None])


async def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    cache = MemoryCache(3_000)
    for key in "abc":
        await cache.put(LOCAL, key, VALUE)
    assert await cache.get(LOCAL, "a") == VALUE
    await cache.put(LOCAL, "d", VALUE)
    assert await held(cache, "abcd") == "acd"
    await cache.put(Scope("other"), "e", VALUE)
    assert await held(cache, "abcd") == "cd"
    assert (await cache.size(LOCAL)).bytes == 2_000


async def test_the_bound_holds_for_values_keys_and_tags() -> None:
    cache = MemoryCache(10_000)
    for number in range(500):
        await cache.put(LOCAL, f"key {number}", b"y" * (number % 700), tags=["t" * (number % 90), "u"])
        size = await cache.size(LOCAL)
        assert size.bytes <= 10_000
        assert size.entries <= 10_000 // OVERHEAD
    assert await cache.invalidate(LOCAL, ["u"]) == size.entries
    assert (await cache.size(LOCAL)).bytes == 0
    assert cache._entries == {}
    assert cache._shelves[LOCAL].tagged == {}


async def test_what_is_larger_than_the_cache_is_not_kept_and_leaves_no_older_value() -> None:
    cache = MemoryCache(1_000)
    await cache.put(LOCAL, "a", b"1")
    await cache.put(LOCAL, "a", b"x" * 1_001)
    assert await held(cache, "a") == ""
    assert (await cache.size(LOCAL)).entries == 0


async def test_time_is_counted_from_when_it_was_put() -> None:
    now = 100.0
    cache = MemoryCache(3_000, clock=lambda: now)
    await cache.put(LOCAL, "a", b"1", ttl=10.0)
    now = 109.9
    assert await held(cache, "a") == "a"
    now = 110.0
    assert await held(cache, "a") == ""


async def test_invalidations_are_remembered_in_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_REMEMBERED", 10)
    cache = MemoryCache(10_000)
    begun = await cache.epoch(LOCAL)
    for number in range(25):
        await cache.invalidate(LOCAL, [f"tag {number}"])
    assert len(cache._shelves[LOCAL].invalidated) <= 10
    await cache.put(LOCAL, "a", b"1", tags=["tag 0"], since=begun)
    assert await held(cache, "a") == ""
    await cache.put(LOCAL, "a", b"1", tags=["tag 0"], since=await cache.epoch(LOCAL))
    assert await held(cache, "a") == "a"
