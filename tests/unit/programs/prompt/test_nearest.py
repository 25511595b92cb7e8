"""Which demos are shown, and what a classifier makes of points."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from kaizen.core.errors import ConfigError
from kaizen.core.params import Demo
from kaizen.core.request import Embeddings
from kaizen.core.scope import Scope
from kaizen.programs.prompt import nearest as module
from kaizen.programs.prompt.nearest import Classifier, Likeness, nearest
from kaizen.programs.signature import signature


def test_the_nearest_come_last_and_what_says_the_same_is_left_out() -> None:
    points = [[1.0, 0.0], [0.999, 0.01], [0.0, 1.0], [0.6, 0.8]]
    demos = [Demo({}, {"f": label}) for label in "aabc"]
    near = [0.9, 0.89, 0.1, 0.7]
    assert nearest(demos, near, points, 2, range(4)) == [3, 0]
    assert nearest(demos, near, points, 4, range(4)) == [2, 3, 1, 0]
    assert nearest(demos, near, points, 2, [1, 2]) == [2, 1]
    other = [Demo({}, {"f": label}) for label in "abbc"]
    assert nearest(other, near, points, 2, range(4)) == [1, 0]


class Here:
    """A context that embeds."""

    def __init__(self, tenant: str = "ours") -> None:
        self.scope, self.texts = Scope(tenant), list[str]()

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        self.texts += texts
        return Embeddings("test/m", 1, array("f", [float(text) for text in texts]).tobytes())


async def test_demos_are_embedded_once_for_each_tenant_and_what_is_kept_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_KEPT", 4)
    likeness = Likeness(signature("a -> b").spec)
    demos = [Demo({"a": str(at)}, {}) for at in range(6)]

    async def asked(some: Sequence[Demo], ctx: Any) -> list[str]:
        ctx.texts.clear()
        points = await likeness.points(ctx, some)
        assert [point.tolist() for point in points] == [[float(demo.inputs["a"])] for demo in some]
        return list(ctx.texts)

    ours, theirs = Here(), Here("theirs")
    assert await asked([*demos[:3], demos[0]], ours) == ["0", "1", "2"]
    assert await asked(demos[1:4], ours) == ["3"]
    assert await asked(demos[:4], ours) == []
    assert await asked(demos[:1], theirs) == ["0"]  # one too many: the others are forgotten
    assert await asked(demos[:2], ours) == ["0", "1"]
    assert await asked(demos, ours) == ["2", "3", "4", "5"]
    assert await asked(demos, ours) == []  # a set larger than that is kept as a whole
    assert len(likeness._points) == 6


async def test_another_loop_may_forget_them_while_they_are_looked_up() -> None:
    likeness = Likeness(signature("a -> b").spec)
    demos = [Demo({"a": str(at)}, {}) for at in range(2)]
    ours: Any = Here()
    await likeness.points(ours, demos)

    class Forgets(dict[Any, Any]):
        """What another loop does between two steps of this one."""

        def __contains__(self, key: object) -> bool:
            likeness._points = {}
            return super().__contains__(key)

    likeness._points = Forgets(likeness._points)
    assert [point.tolist() for point in await likeness.points(ours, demos)] == [[0.0], [1.0]]


def test_without_numpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "numpy" else SimpleNamespace())
    with pytest.raises(ConfigError, match="semantic"):
        Classifier([[1.0]], [0], 2)


def test_a_classifier_finds_what_tells_values_apart() -> None:
    pytest.importorskip("numpy")
    rng = random.Random(1)

    def point(value: int) -> list[float]:
        made = [rng.gauss(0, 1) for _ in range(6)]
        made[value] += 4.0
        length = sum(one * one for one in made) ** 0.5
        return [one / length for one in made]

    values = [at % 3 for at in range(30)]
    points = [point(value) for value in values]
    found = Classifier(points, values, 3)
    right = 0
    for at in range(60):
        asked = point(at % 3)
        scores = found([sum(a * b for a, b in zip(asked, one, strict=True)) for one in points])
        right += scores.index(max(scores)) == at % 3
    assert right > 54


def test_it_solves_what_it_is_to_solve() -> None:
    pytest.importorskip("numpy")
    points, values = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [0, 0, 1]
    found = Classifier(points, values, 2)
    weights = found._weights
    for at, one in enumerate(points):
        row = [
            sum(a * b for a, b in zip(one, other, strict=True)) + (1.0 if at == k else 0.0)
            for k, other in enumerate(points)
        ]
        for column in range(2):
            wanted = float(values[at] == column) - (2 / 3 if column == 0 else 1 / 3)
            assert sum(a * b[column] for a, b in zip(row, weights, strict=True)) == pytest.approx(wanted)


def test_its_scores_are_those_of_the_ridge_worked_out_by_hand() -> None:
    pytest.importorskip("numpy")
    found = Classifier([array("f", [1.0, 0.0]), array("f", [0.0, 1.0])], [0, 1], 2)
    # apart by a right angle, each weighs (1 - 1/2) / (1 + penalty) of its own value and as much against the other
    assert found([0.8, 0.6]) == pytest.approx([8 * (0.5 + 0.05), 8 * (0.5 - 0.05)])
