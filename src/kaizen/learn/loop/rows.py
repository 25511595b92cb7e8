"""The rows of a loop: in parts that stay the same, and none of them kept for a test of somebody else's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kaizen.core.context import Program
from kaizen.core.scope import Scope
from kaizen.learn.data.guard import refuse_tests
from kaizen.learn.data.rows import Row
from kaizen.learn.data.split import split
from kaizen.learn.evaluate.gate import may_decide
from kaizen.registry.registry import Registry

_SHARES: Final = {"train": 0.5, "val": 0.25, "test": 0.25}


def parted(rows: Sequence[Row], seed: int) -> Mapping[str, tuple[Row, ...]]:
    """Rows to learn from, to choose by and to test on, the same each time: none is tested on that was learned from."""
    return split(rows, seed=seed, shares=_SHARES)


async def may_begin(registry: Registry, scope: Scope, metric: Program, rows: Sequence[Row], seed: int) -> None:
    """Make sure that a loop's proposals will not be refused, before one is paid for.

    Raises:
        Denied: its metric asks a judge that may not decide anything, or rows that it would learn from are kept for a
            test.
    """
    await may_decide(registry, scope, metric)
    parts = parted(rows, seed)
    await refuse_tests(registry, scope, (*parts["train"], *parts["val"]))
