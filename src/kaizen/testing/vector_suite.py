"""What every VectorIndex promises, as tests. An adapter is done when it passes.

    from kaizen.testing.vector_suite import VectorSuite

    class TestMyVectors(VectorSuite):
        @pytest.fixture
        async def index(self): ...

The tests are ``async def``: run them with anyio's pytest plugin (``anyio_mode = "auto"``).
"""
# ruff: noqa: S101, D102 - these are tests, and their names say what they show

from __future__ import annotations

import asyncio
import math
import random
from array import array
from collections.abc import Sequence
from typing import Final

import pytest

from kaizen.core.protocols import VectorIndex
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
DIM: Final = 16


def point(*numbers: float) -> bytes:
    """A point of length 1 in this direction; missing numbers are 0."""
    whole = [*numbers, *[0.0] * (DIM - len(numbers))]
    length = math.sqrt(sum(one * one for one in whole))
    return array("f", [one / length for one in whole]).tobytes()


def drawn(rng: random.Random) -> bytes:
    """A point in any direction."""
    return point(*(rng.gauss(0, 1) for _ in range(DIM)))


def cosine(one: bytes, other: bytes) -> float:
    """The similarity of two points."""
    return sum(a * b for a, b in zip(array("f", one), array("f", other), strict=True))


async def keys(index: VectorIndex, scope: Scope, space: str, vector: bytes, k: int = 10) -> Sequence[str]:
    """The keys that a search finds."""
    return [found.key for found in await index.search(scope, space, vector, k)]


class VectorSuite:
    """Subclass it and give it an ``index`` fixture: an open, empty VectorIndex."""

    async def test_the_nearest_comes_first_with_its_cosine(self, index: VectorIndex) -> None:
        for key, vector in {"same": point(1, 0), "near": point(1, 0.5), "across": point(0, 1)}.items():
            await index.add(OURS, "s", key, vector)
        await index.add(OURS, "s", "opposite", point(-1))
        found = await index.search(OURS, "s", point(1, 0), 10)
        assert [one.key for one in found] == ["same", "near", "across", "opposite"]
        assert [one.similarity for one in found] == pytest.approx([1.0, 1 / math.sqrt(1.25), 0.0, -1.0], abs=1e-5)

    async def test_an_empty_space_has_no_neighbours(self, index: VectorIndex) -> None:
        assert list(await index.search(OURS, "nothing", point(1), 3)) == []

    async def test_as_many_as_asked_for(self, index: VectorIndex) -> None:
        for number in range(5):
            await index.add(OURS, "s", str(number), point(1, number))
        assert await keys(index, OURS, "s", point(1), 2) == ["0", "1"]
        assert len(await index.search(OURS, "s", point(1), 100)) == 5

    async def test_a_key_holds_one_point(self, index: VectorIndex) -> None:
        await index.add(OURS, "s", "a", point(1))
        await index.add(OURS, "s", "a", point(0, 1))
        found = await index.search(OURS, "s", point(0, 1), 10)
        assert [(one.key, round(one.similarity, 4)) for one in found] == [("a", 1.0)]

    async def test_a_key_that_moves_to_another_space_leaves_the_first(self, index: VectorIndex) -> None:
        await index.add(OURS, "one", "a", point(1))
        await index.add(OURS, "other", "a", point(1))
        assert await keys(index, OURS, "one", point(1)) == []
        assert await keys(index, OURS, "other", point(1)) == ["a"]

    async def test_what_is_removed_is_not_found(self, index: VectorIndex) -> None:
        for key in "abcd":
            await index.add(OURS, "s", key, point(1))
        await index.remove(OURS, ["a", "d", "never there"])
        assert sorted(await keys(index, OURS, "s", point(1))) == ["b", "c"]
        await index.remove(OURS, ["b", "c"])
        assert await keys(index, OURS, "s", point(1)) == []
        await index.add(OURS, "s", "a", point(1))
        assert await keys(index, OURS, "s", point(1)) == ["a"]

    async def test_spaces_are_apart(self, index: VectorIndex) -> None:
        await index.add(OURS, "one", "a", point(1))
        await index.add(OURS, "other", "b", point(1))
        assert await keys(index, OURS, "one", point(1)) == ["a"]
        assert await keys(index, OURS, "other", point(1)) == ["b"]

    async def test_scopes_are_apart(self, index: VectorIndex) -> None:
        everyone = (OURS, *THEIRS)
        for number, scope in enumerate(everyone):
            await index.add(scope, "s", f"key-{number}", point(1))
            await index.add(scope, "s", "shared name", point(1, 1))
        for number, scope in enumerate(everyone):
            assert await keys(index, scope, "s", point(1)) == [f"key-{number}", "shared name"]
        await index.remove(OURS, ["shared name", "key-0"])
        assert await keys(index, OURS, "s", point(1)) == []
        assert await keys(index, THEIRS[0], "s", point(1)) == ["key-1", "shared name"]

    async def test_it_finds_what_a_plain_comparison_finds(self, index: VectorIndex) -> None:
        rng = random.Random(5)  # noqa: S311 - no secret
        kept = {f"k{number}": drawn(rng) for number in range(300)}
        for key, vector in kept.items():
            await index.add(OURS, "s", key, vector)
        gone = rng.sample(sorted(kept), 100)
        await index.remove(OURS, gone)
        for key in gone:
            del kept[key]
        for _ in range(20):
            asked = drawn(rng)
            expected = sorted(kept, key=lambda key: -cosine(kept[key], asked))[:3]
            assert await keys(index, OURS, "s", asked, 3) == expected

    async def test_writers_at_once_lose_nothing(self, index: VectorIndex) -> None:
        rng = random.Random(6)  # noqa: S311 - no secret
        vectors = {f"k{number}": drawn(rng) for number in range(64)}
        await asyncio.gather(*(index.add(OURS, "s", key, vector) for key, vector in vectors.items()))
        for key, vector in vectors.items():
            assert await keys(index, OURS, "s", vector, 1) == [key]
