"""Which demos lie nearest to the inputs, which of them to show, and what they say about a value."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from operator import mul
from typing import TYPE_CHECKING, Any, Final

from kaizen.core.context import Context
from kaizen.core.errors import ConfigError
from kaizen.core.params import Demo
from kaizen.core.spec import Spec
from kaizen.programs.prompt.options import value_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Two demos this alike teach the same: the second is left out while there are others.
_SAME: Final = 0.97
_KEPT: Final = 4096
# The penalty and the sharpness of the classifier, and the most demos it is made of: its making is cubic in them.
_PENALTY: Final = 1.0
_SHARP: Final = 8.0
MOST: Final = 256


class Likeness:
    """How near the demos of a program lie to its inputs; each demo is embedded once."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        # by identity, which to hold them keeps unique; each by itself: a search makes many sets of the same demos
        self._points: dict[tuple[int, str], tuple[Demo, array[float]]] = {}

    async def points(self, ctx: Context, demos: Sequence[Demo]) -> list[array[float]]:
        """A point for each demo's inputs."""
        where = f"{ctx.scope.tenant}/{ctx.scope.environment}"
        keys = [(id(demo), where) for demo in demos]
        known = self._points  # read once: another thread's loop may put a new one in its place
        found = {key: known[key] for key in keys if key in known}
        new = {key: demo for key, demo in zip(keys, demos, strict=True) if key not in found}
        if new:
            made = await self._embedded(ctx, [demo.inputs for demo in new.values()])
            added = {key: (demo, point) for (key, demo), point in zip(new.items(), made, strict=True)}
            found |= added
            if len(self._points) + len(added) > _KEPT:
                self._points = dict(found)  # of these alone, however many: their params hold them anyway
            else:
                self._points |= added
        return [found[key][1] for key in keys]

    async def __call__(self, ctx: Context, demos: Sequence[Demo], inputs: Mapping[str, Any]) -> list[float]:
        """The cosine of each demo's inputs to these, -1 to 1.

        Raises:
            ConfigError: where the process has no embedder.
        """
        points = await self.points(ctx, demos)
        here = (await self._embedded(ctx, [inputs]))[0]
        return [sum(map(mul, here, point)) for point in points]

    async def nearest(self, ctx: Context, demos: Sequence[Demo], inputs: Mapping[str, Any], count: int) -> list[int]:
        """The places of the ``count`` demos to show with these inputs, the nearest last.

        Raises:
            ConfigError: where the process has no embedder.
        """
        if not demos:
            return []
        near, points = await self(ctx, demos, inputs), await self.points(ctx, demos)
        return nearest(demos, near, points, count, range(len(demos)))

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

    Raises:
        ConfigError: without the extra ``semantic``, which brings numpy.
    """

    def __init__(self, points: Sequence[Sequence[float]], values: Sequence[int], count: int) -> None:
        if find_spec("numpy") is None:
            raise ConfigError('learning from near demos needs numpy: pip install "kaizen-engine[semantic]"')
        import numpy as np

        made = np.array(points, dtype=np.float64)
        wanted = np.eye(count)[list(values)]
        self._mean: NDArray[np.float64] = wanted.mean(axis=0)
        gram = made @ made.T + _PENALTY * np.eye(len(made))
        self._weights: NDArray[np.floating[Any]] = np.linalg.solve(gram, wanted - self._mean)

    def __call__(self, near: Sequence[float]) -> list[float]:
        """A score for each value, on a scale of log-probabilities.

        Args:
            near: the cosine of each point to what is asked about.
        """
        return (_SHARP * (self._weights.T @ near + self._mean)).tolist()
