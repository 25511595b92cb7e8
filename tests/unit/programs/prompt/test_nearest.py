"""Which demos are shown, and what a classifier makes of points."""

from __future__ import annotations

import random

import pytest

from kaizen.core.params import Demo
from kaizen.programs.prompt.nearest import Classifier, nearest


def test_the_nearest_come_last_and_what_says_the_same_is_left_out() -> None:
    points = [[1.0, 0.0], [0.999, 0.01], [0.0, 1.0], [0.6, 0.8]]
    demos = [Demo({}, {"f": label}) for label in "aabc"]
    near = [0.9, 0.89, 0.1, 0.7]
    assert nearest(demos, near, points, 2, range(4)) == [3, 0]
    assert nearest(demos, near, points, 4, range(4)) == [2, 3, 1, 0]
    assert nearest(demos, near, points, 2, [1, 2]) == [2, 1]
    other = [Demo({}, {"f": label}) for label in "abbc"]
    assert nearest(other, near, points, 2, range(4)) == [1, 0]


def test_a_classifier_finds_what_tells_values_apart() -> None:
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
