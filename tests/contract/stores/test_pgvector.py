"""pgvector keeps what a VectorIndex promises, also where its graph holds the points of many tenants."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from kaizen.core.errors import StoreError
from kaizen.core.ids import new_id
from kaizen.core.protocols import VectorIndex
from kaizen.stores.postgres import vectors
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


async def test_points_go_after_their_time(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_TIDY_EVERY_S", 0.0)
    schema = f"test {new_id()}"
    lasting, brief = PgVectorIndex(postgres_url, schema=schema), PgVectorIndex(postgres_url, schema=schema, max_age=0.2)
    await lasting.add(OURS, "s", "old", point(1, 0))
    await asyncio.sleep(0.3)
    await lasting.add(OURS, "s", "new", point(0, 1))
    assert sorted(await keys(lasting, OURS, "s", point(1, 0))) == ["new", "old"]
    await brief.add(OURS, "s", "newest", point(0, 1))
    assert sorted(await keys(brief, OURS, "s", point(1, 0))) == ["new", "newest"]
    await lasting.close()
    await brief.close()


async def test_what_is_no_point_is_refused(index: PgVectorIndex) -> None:
    for wrong in (b"", b"abc", b"x" * 4 * 2001):
        with pytest.raises(StoreError, match="a point has"):
            await index.add(OURS, "s", "k", wrong)
    with pytest.raises(StoreError):
        await index.add(OURS, "s", "nul \0", point(1, 0))
