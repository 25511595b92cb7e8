"""pgvector keeps what a VectorIndex promises, also where its graph holds the points of many tenants."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from kaizen.core.errors import StoreError
from kaizen.core.ids import new_id
from kaizen.core.protocols import VectorIndex
from kaizen.stores.postgres.vectors import PgVectorIndex
from kaizen.testing.vector_suite import OURS, THEIRS, VectorSuite, cosine, drawn, keys, point


@pytest.fixture
async def index(postgres_url: str) -> AsyncIterator[VectorIndex]:
    index = PgVectorIndex(postgres_url, schema=f"test {new_id()}")
    yield index
    await index.close()


class TestPgVectorIndex(VectorSuite):
    pass


async def test_a_small_tenant_finds_its_own_among_many_of_a_large_one(index: PgVectorIndex) -> None:
    rng = random.Random(7)
    near = drawn(rng)
    theirs = {f"theirs {number}": drawn(rng) for number in range(1_500)}
    ours = {f"ours {number}": drawn(rng) for number in range(40)}
    await asyncio.gather(*[index.add(THEIRS[0], "s", key, vector) for key, vector in theirs.items()])
    await asyncio.gather(*[index.add(OURS, "s", key, vector) for key, vector in ours.items()])
    for scope, points, least in ((OURS, ours, 10), (THEIRS[0], theirs, 9)):
        right = sorted(points, key=lambda key, points=points: -cosine(points[key], near))[:10]
        found = await keys(index, scope, "s", near)
        assert len(found) == 10
        assert len(set(found) & set(right)) >= least


async def test_what_is_no_point_is_refused(index: PgVectorIndex) -> None:
    for wrong in (b"", b"abc", b"x" * 4 * 2001):
        with pytest.raises(StoreError, match="a point has"):
            await index.add(OURS, "s", "k", wrong)
    with pytest.raises(StoreError):
        await index.add(OURS, "s", "nul \0", point(1, 0))
