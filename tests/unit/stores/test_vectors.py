"""What MemoryVectors promises beyond the seam: it sifts large spaces, and is bounded."""

from __future__ import annotations

import numpy as np
import pytest

from kaizen.core.scope import LOCAL, Scope
from kaizen.stores import vectors
from kaizen.stores.vectors import MemoryVectors
from kaizen.testing.vector_suite import keys, point

OTHER = Scope("other", "dev")


def unit(points: np.ndarray) -> np.ndarray:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dim", [64, 20])
async def test_a_sifted_space_finds_what_all_comparisons_find(monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    monkeypatch.setattr(vectors, "_SIFTED", 512)
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(200, dim))
    points = unit(np.repeat(centres, 10, axis=0) + 0.4 * rng.normal(size=(2000, dim)) + 0.5)
    index = MemoryVectors()
    for row, vector in enumerate(points):
        await index.add(LOCAL, "s", str(row), vector.tobytes())
    gone = rng.choice(2000, 300, replace=False)
    await index.remove(LOCAL, [str(row) for row in gone])
    kept = np.setdiff1d(np.arange(2000), gone)
    right = 0
    for vector in unit(centres + 0.5):
        expected = {str(row) for row in kept[np.argsort(-(points[kept] @ vector))[:4]]}
        right += len(expected & set(await keys(index, LOCAL, "s", vector.tobytes(), 4)))
    assert right / 800 > 0.95


async def test_the_oldest_points_of_a_scope_go_when_it_is_full() -> None:
    index = MemoryVectors(max_points=3)
    await index.add(OTHER, "s", "theirs", point(1))
    for number in range(5):
        await index.add(LOCAL, f"space-{number % 2}", str(number), point(1))
    assert sorted([*await keys(index, LOCAL, "space-0", point(1)), *await keys(index, LOCAL, "space-1", point(1))]) == [
        "2",
        "3",
        "4",
    ]
    assert await keys(index, OTHER, "s", point(1)) == ["theirs"]


async def test_a_point_of_another_size_is_refused_and_changes_nothing() -> None:
    index = MemoryVectors()
    await index.add(LOCAL, "s", "a", point(1))
    with pytest.raises(ValueError, match="points of 16 numbers, not 2"):
        await index.add(LOCAL, "s", "a", np.ones(2, np.float32).tobytes())
    assert await keys(index, LOCAL, "s", point(1)) == ["a"]
    assert list(await index.search(LOCAL, "s", point(1), 0)) == []


async def test_a_closed_index_is_empty() -> None:
    index = MemoryVectors()
    await index.add(LOCAL, "s", "a", point(1))
    await index.close()
    assert await keys(index, LOCAL, "s", point(1)) == []
