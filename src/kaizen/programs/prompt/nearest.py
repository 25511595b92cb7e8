"""Which demos lie nearest to the inputs, and which of them to show."""

from __future__ import annotations

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
