"""How near in meaning an answer is to the expected one, by the embedded embedder."""

from __future__ import annotations

import struct
from typing import Any, Final

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import ConfigError
from kaizen.core.spec import Spec
from kaizen.learn.metrics.measure import Values, metric_spec

NOTHING: Final[Values] = {}


class Likeness:
    """Cosine similarity of the texts expected and got, 0 to 1 (below 0 counts as 0); the mean over the fields.

    Args:
        spec: the contract of the program.
        only: one field; without it every expected text counts.
    """

    def __init__(self, spec: Spec, only: str = "") -> None:
        if only and only not in spec.outputs:
            raise ConfigError(f"--metric similarity:{only}: {spec.name} has no output {only!r}")
        self._names = [name for name in spec.outputs if not only or name == only]
        self.spec = metric_spec(f"similarity:{only}" if only else "similarity", self.__doc__ or "")

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """The similarity of one answer.

        Raises:
            ConfigError: without the extra ``semantic``.
        """
        expected: Values = inputs["expected"]
        prediction: Values = inputs.get("prediction") or NOTHING
        pairs = [
            (expected[name], str(prediction.get(name) or ""))
            for name in self._names
            if isinstance(expected.get(name), str)
        ]
        if not pairs:
            return Answer.of({"score": 0.0, "comment": "no text to compare"}, inputs=inputs)
        points = await ctx.embed([text for pair in pairs for text in pair])
        each = 4 * points.dim
        found: list[float] = []
        for place, (wanted, got) in enumerate(pairs):
            at = 2 * place * each
            a = struct.unpack_from(f"<{points.dim}f", points.data, at)
            b = struct.unpack_from(f"<{points.dim}f", points.data, at + each)
            near = sum(x * y for x, y in zip(a, b, strict=True))
            found.append(1.0 if wanted == got else min(1.0, max(0.0, near)))
        return Answer.of({"score": sum(found) / len(found), "comment": ""}, inputs=inputs)
