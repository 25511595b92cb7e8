"""What every Cache promises, as tests. An adapter is done when it passes.

    from kaizen.testing.cache_suite import CacheSuite

    class TestMyCache(CacheSuite):
        @pytest.fixture
        async def cache(self): ...

The tests are ``async def``: run them with anyio's pytest plugin (``anyio_mode = "auto"``).
"""
# ruff: noqa: S101, D102 - these are tests, and their names say what they show

from __future__ import annotations

import asyncio
import random
import threading
from typing import Final

import pytest

from kaizen.core.errors import StoreError
from kaizen.core.protocols import Cache
from kaizen.core.scope import Scope

OURS: Final = Scope("acme", "prod")
# Another tenant, another environment, and some whose names would fall together if they were only joined.
THEIRS: Final = (
    Scope("other", "prod"),
    Scope("acme", "dev"),
    Scope("acme/prod", ""),
    Scope("", "acme/prod"),
    Scope("acme:prod", "x"),
)
_KEYS: Final = ("", "a", "a:b", "e:a", "meta", "t:x", "日本 '; -- \x00")
_TAGS: Final = ("model:mine/large", "document:7f", "t", "日本")


class CacheSuite:
    """Subclass it and give it a ``cache`` fixture: an open, empty Cache with room for a few megabytes."""

    # -- keeping ------------------------------------------------------------------------------------

    async def test_a_value_comes_back_as_it_was(self, cache: Cache) -> None:
        values = {"empty": b"", "binary": bytes(range(256)), "large": b"x" * 300_000}
        for key, value in values.items():
            await cache.put(OURS, key, value)
        assert {key: await cache.get(OURS, key) for key in values} == values
        assert {key: await cache.get(OURS, key) for key in values} == values  # also from whatever remembers it
        assert await cache.get(OURS, "no such key") is None

    async def test_any_key_is_a_key(self, cache: Cache) -> None:
        for key in _KEYS:
            await cache.put(OURS, key, key.encode(), tags=["t"])
        assert [await cache.get(OURS, key) for key in _KEYS] == [key.encode() for key in _KEYS]
        assert await cache.invalidate(OURS, ["t"]) == len(_KEYS)

    async def test_a_later_value_takes_the_place_of_an_earlier_one(self, cache: Cache) -> None:
        await cache.put(OURS, "a", b"1", tags=["old"])
        assert await cache.get(OURS, "a") == b"1"
        await cache.put(OURS, "a", b"22", tags=["new"])
        assert await cache.get(OURS, "a") == b"22"
        assert (await cache.size(OURS)).entries == 1
        assert await cache.invalidate(OURS, ["old"]) == 0
        assert await cache.get(OURS, "a") == b"22"
        assert await cache.invalidate(OURS, ["new"]) == 1
        assert await cache.get(OURS, "a") is None

    # -- time ---------------------------------------------------------------------------------------

    async def test_a_value_ends_with_its_time(self, cache: Cache) -> None:
        await cache.put(OURS, "short", b"1", ttl=0.1)
        await cache.put(OURS, "long", b"2", ttl=60.0)
        await cache.put(OURS, "ever", b"3")
        assert [await cache.get(OURS, key) for key in ("short", "long", "ever")] == [b"1", b"2", b"3"]
        await asyncio.sleep(0.15)
        assert [await cache.get(OURS, key) for key in ("short", "long", "ever")] == [None, b"2", b"3"]
        assert (await cache.size(OURS)).entries == 2

    async def test_a_value_without_time_is_not_kept(self, cache: Cache) -> None:
        await cache.put(OURS, "a", b"1")
        await cache.put(OURS, "a", b"2", ttl=0.0)
        assert await cache.get(OURS, "a") is None
        assert (await cache.size(OURS)).entries == 0

    async def test_what_is_over_does_not_count_as_dropped(self, cache: Cache) -> None:
        await cache.put(OURS, "a", b"1", ttl=0.05, tags=["t"])
        await asyncio.sleep(0.1)
        assert await cache.invalidate(OURS, ["t"]) == 0
        await cache.put(OURS, "a", b"1", ttl=0.05)
        await asyncio.sleep(0.1)
        assert await cache.invalidate(OURS) == 0

    # -- dropping -----------------------------------------------------------------------------------

    async def test_what_carries_any_of_the_tags_goes(self, cache: Cache) -> None:
        await cache.put(OURS, "a", b"1", tags=["x"])
        await cache.put(OURS, "b", b"2", tags=["x", "y"])
        await cache.put(OURS, "c", b"3", tags=["z", "z"])
        await cache.put(OURS, "d", b"4")
        for key in "abcd":
            assert await cache.get(OURS, key) is not None
        assert await cache.invalidate(OURS, ["x", "y", "unknown"]) == 2
        assert [await cache.get(OURS, key) for key in "abcd"] == [None, None, b"3", b"4"]
        assert await cache.invalidate(OURS, []) == 0
        assert await cache.invalidate(OURS) == 2
        assert [await cache.get(OURS, key) for key in "cd"] == [None, None]

    async def test_much_is_dropped_at_once(self, cache: Cache) -> None:
        for number in range(700):
            await cache.put(OURS, str(number), b"x", tags=["even" if number % 2 == 0 else "odd"])
        assert await cache.invalidate(OURS, ["even"]) == 350
        assert (await cache.size(OURS)).entries == 350
        assert await cache.invalidate(OURS) == 350
        assert (await cache.size(OURS)).entries == 0

    async def test_what_was_begun_before_an_invalidation_is_not_kept(self, cache: Cache) -> None:
        begun = await cache.epoch(OURS)
        await cache.put(OURS, "before", b"0", tags=["x"], since=begun)
        assert await cache.get(OURS, "before") == b"0"
        await cache.invalidate(OURS, ["x"])
        later = await cache.epoch(OURS)
        assert later > begun
        await cache.put(OURS, "stale", b"1", tags=["x", "y"], since=begun)
        await cache.put(OURS, "other", b"2", tags=["y"], since=begun)
        await cache.put(OURS, "fresh", b"3", tags=["x"], since=later)
        assert [await cache.get(OURS, key) for key in ("stale", "other", "fresh")] == [None, b"2", b"3"]
        await cache.invalidate(OURS)
        await cache.put(OURS, "untagged", b"4", since=later)
        assert await cache.get(OURS, "untagged") is None
        await cache.put(OURS, "untagged", b"4", since=await cache.epoch(OURS))
        assert await cache.get(OURS, "untagged") == b"4"

    # -- whose --------------------------------------------------------------------------------------

    async def test_no_scope_reads_counts_or_drops_another_ones(self, cache: Cache) -> None:
        await cache.put(OURS, "a", b"ours", tags=["t"])
        assert await cache.get(OURS, "a") == b"ours"
        for scope in THEIRS:
            assert await cache.get(scope, "a") is None
            assert (await cache.size(scope)).entries == 0
            assert await cache.invalidate(scope, ["t"]) == 0
            assert await cache.invalidate(scope) == 0
            await cache.put(scope, "a", str(scope).encode(), tags=["t"])
        for scope in THEIRS:
            assert await cache.get(scope, "a") == str(scope).encode()
        assert await cache.get(OURS, "a") == b"ours"
        begun = await cache.epoch(OURS)
        await cache.invalidate(THEIRS[0])
        assert await cache.epoch(OURS) == begun
        assert await cache.invalidate(OURS) == 1
        assert [await cache.get(scope, "a") for scope in THEIRS[1:]] == [str(s).encode() for s in THEIRS[1:]]

    @pytest.mark.parametrize("seed", range(3))
    async def test_it_does_what_a_dict_for_each_scope_does(self, cache: Cache, seed: int) -> None:
        rng, scopes = random.Random(seed), (OURS, *THEIRS)  # noqa: S311 - no secret
        model: dict[tuple[Scope, str], tuple[bytes, frozenset[str]]] = {}
        for number in range(300):
            scope, key = rng.choice(scopes), rng.choice(_KEYS)
            tags = rng.sample(_TAGS, rng.randrange(len(_TAGS)))
            match rng.choice(("put", "put", "get", "get", "tags", "all" if rng.random() < 0.1 else "get")):
                case "put":
                    await cache.put(scope, key, str(number).encode(), tags=tags, ttl=rng.choice((None, 60.0)))
                    model[scope, key] = (str(number).encode(), frozenset(tags))
                case "get":
                    assert await cache.get(scope, key) == model.get((scope, key), (None,))[0]
                case what:
                    gone = [
                        at for at, (_, had) in model.items() if at[0] == scope and (what == "all" or had & set(tags))
                    ]
                    assert await cache.invalidate(scope, None if what == "all" else tags) == len(gone)
                    for at in gone:
                        del model[at]
        for scope in scopes:
            assert (await cache.size(scope)).entries == sum(at[0] == scope for at in model)

    # -- at once ------------------------------------------------------------------------------------

    async def test_many_tasks_put_and_get_at_once(self, cache: Cache) -> None:
        async def one(number: int) -> None:
            await cache.put(OURS, str(number), str(number).encode(), tags=[f"n:{number % 7}"])
            assert await cache.get(OURS, str(number)) == str(number).encode()

        await asyncio.gather(*[one(number) for number in range(300)])
        assert (await cache.size(OURS)).entries == 300

    async def test_many_loops_put_and_get_at_once(self, cache: Cache) -> None:
        failed: list[BaseException] = []

        async def part(name: str) -> None:
            for number in range(50):
                await cache.put(OURS, f"{name} {number}", name.encode(), tags=[name])
                assert await cache.get(OURS, f"{name} {number}") == name.encode()
            assert await cache.invalidate(OURS, [name]) == 50

        def run(name: str) -> None:
            try:
                asyncio.run(part(name))
            except BaseException as error:  # noqa: BLE001 - handed to the test's thread
                failed.append(error)

        threads = [threading.Thread(target=run, args=(f"loop {number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        await part("here")
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert failed == []
        assert (await cache.size(OURS)).entries == 0

    async def test_a_cancelled_put_harms_no_other(self, cache: Cache) -> None:
        tasks = [asyncio.create_task(cache.put(OURS, str(number), b"x")) for number in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [await cache.get(OURS, str(number)) for number in range(1, 20, 2)] == [b"x"] * 10

    # -- the end ------------------------------------------------------------------------------------

    async def test_a_closed_cache_says_so(self, cache: Cache) -> None:
        await cache.put(OURS, "a", b"1")
        await cache.close()
        await cache.close()
        for call in (cache.get(OURS, "a"), cache.put(OURS, "a", b"1"), cache.invalidate(OURS), cache.size(OURS)):
            with pytest.raises(StoreError, match="closed"):
                await call


class SharedCacheSuite:
    """For a Cache that several processes share: give it ``cache`` and ``other``, two of one store, as two processes."""

    async def test_the_other_sees_what_is_kept_replaced_and_dropped(self, cache: Cache, other: Cache) -> None:
        await cache.put(OURS, "a", b"1", tags=["x"])
        assert await other.get(OURS, "a") == b"1"
        await other.put(OURS, "a", b"2", tags=["y"])
        assert await cache.get(OURS, "a") == b"2"
        assert await other.get(OURS, "a") == b"2"
        assert await cache.invalidate(OURS, ["y"]) == 1
        assert await other.get(OURS, "a") is None
        await other.put(OURS, "b", b"3")
        assert await cache.get(OURS, "b") == b"3"
        assert await other.invalidate(OURS) == 1
        assert await cache.get(OURS, "b") is None

    async def test_what_the_other_invalidated_is_not_kept_here(self, cache: Cache, other: Cache) -> None:
        begun = await cache.epoch(OURS)
        await other.invalidate(OURS, ["x"])
        await cache.put(OURS, "a", b"1", tags=["x"], since=begun)
        assert await other.get(OURS, "a") is None
        assert await cache.epoch(OURS) == await other.epoch(OURS) == begun + 1
