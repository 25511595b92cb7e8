"""Which demos lie nearest to the inputs, which of them to show, and what they say about a value."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any, Final

from kaizen.core.context import Context
from kaizen.core.params import Demo
from kaizen.core.spec import Spec
from kaizen.programs.prompt.options import value_text

# Two demos this alike teach the same: the second is left out while there are others.
_SAME: Final = 0.97
_KEPT: Final = 16
# The penalty and the sharpness of the classifier, and the most demos it is made of: its making is cubic in them.
_PENALTY: Final = 1.0
_SHARP: Final = 8.0
MOST: Final = 256


class Likeness:
    """How near the demos of a program lie to its inputs; each set of demos is embedded once."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        # by identity: a set of demos comes with params that are resolved once
        self._points: dict[tuple[int, str], tuple[Sequence[Demo], list[array[float]]]] = {}

    async def points(self, ctx: Context, demos: Sequence[Demo]) -> list[array[float]]:
        """A point for each demo's inputs."""
        key = (id(demos), f"{ctx.scope.tenant}/{ctx.scope.environment}")
        known = self._points.get(key)
        if known is None:
            made = await self._embedded(ctx, [demo.inputs for demo in demos])
            if len(self._points) >= _KEPT:
                self._points.clear()
            known = self._points[key] = (demos, made)
        return known[1]

    async def __call__(self, ctx: Context, demos: Sequence[Demo], inputs: Mapping[str, Any]) -> list[float]:
        """The cosine of each demo's inputs to these, -1 to 1.

        Raises:
            ConfigError: where the process has no embedder.
        """
        points = await self.points(ctx, demos)
        here = (await self._embedded(ctx, [inputs]))[0]
        return [sum(map(mul, here, point)) for point in points]

    async def nearest(
        self, ctx: Context, demos: Sequence[Demo], inputs: Mapping[str, Any], count: int
    ) -> tuple[Demo, ...]:
        """The ``count`` demos to show with these inputs, the nearest last.

        Raises:
            ConfigError: where the process has no embedder.
        """
        if not demos:
            return ()
        near, points = await self(ctx, demos, inputs), await self.points(ctx, demos)
        return tuple(demos[at] for at in nearest(demos, near, points, count, range(len(demos))))

    async def _embedded(self, ctx: Context, many: Sequence[Mapping[str, Any]]) -> list[array[float]]:
        names = [*self._spec.inputs, *self._spec.fed]
        texts = ["\n".join(value_text(one[name]) for name in names if name in one) for one in many]
        made = await ctx.embed(texts)
        numbers = array("f")
        numbers.frombytes(made.data)
        return [numbers[at * made.dim : (at + 1) * made.dim] for at in range(len(texts))]


def nearest(
    demos: Sequence[Demo], near: Sequence[float], points: Sequence[Sequence[float]], count: int, among: Sequence[int]
) -> list[int]:
    """The places of the nearest demos, the nearest last; of two that say the same, one.

    Args:
        demos: all.
        near: the cosine of each to the inputs.
        points: of each.
        count: how many at most.
        among: the places to choose from.
    """
    chosen: list[int] = []
    spare: list[int] = []
    for at in sorted(among, key=lambda at: -near[at]):
        if len(chosen) == count:
            break
        same = any(
            sum(map(mul, points[at], points[other])) > _SAME and demos[at].outputs == demos[other].outputs
            for other in chosen
        )
        (spare if same else chosen).append(at)
    chosen += spare[: count - len(chosen)]
    return sorted(chosen, key=lambda at: near[at])


class Classifier:
    """A linear classifier on points: ridge regression on one column a value, in its dual form.

    Args:
        points: one or more, of length 1.
        values: the place of each one's value.
        count: how many values there are.
    """

    def __init__(self, points: Sequence[Sequence[float]], values: Sequence[int], count: int) -> None:
        self._mean = [values.count(at) / len(values) for at in range(count)]
        wanted = [[float(value == at) - self._mean[at] for at in range(count)] for value in values]
        gram = [[sum(map(mul, one, other)) for other in points[: at + 1]] for at, one in enumerate(points)]
        for at, row in enumerate(gram):
            row[at] += _PENALTY
        self._weights = _solved(gram, wanted)

    def __call__(self, near: Sequence[float]) -> list[float]:
        """A score for each value, on a scale of log-probabilities.

        Args:
            near: the cosine of each point to what is asked about.
        """
        columns = zip(*self._weights, strict=True)
        return [_SHARP * (sum(map(mul, near, column)) + mean) for column, mean in zip(columns, self._mean, strict=True)]


def _solved(lower: list[list[float]], wanted: list[list[float]]) -> list[list[float]]:
    """What a symmetric, positive matrix, given by its lower half, makes ``wanted`` of: by Cholesky's factors."""
    factor: list[list[float]] = []
    for at, row in enumerate(lower):
        made: list[float] = []
        for other in range(at):
            made.append((row[other] - sum(map(mul, made, factor[other]))) / factor[other][other])
        made.append(math.sqrt(row[at] - sum(map(mul, made, made))))
        factor.append(made)
    size, width = len(factor), range(len(wanted[0]))
    forward: list[list[float]] = []
    for at in range(size):
        given = [sum(factor[at][k] * forward[k][column] for k in range(at)) for column in width]
        forward.append([(wanted[at][column] - given[column]) / factor[at][at] for column in width])
    solved: list[list[float]] = [[0.0] * len(wanted[0]) for _ in range(size)]
    for at in reversed(range(size)):
        given = [sum(factor[k][at] * solved[k][column] for k in range(at + 1, size)) for column in width]
        solved[at] = [(forward[at][column] - given[column]) / factor[at][at] for column in width]
    return solved
