"""Rows that are kept for a test stay out of what is learned from, whichever file they come back in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kaizen.core.errors import Denied
from kaizen.core.scope import Scope
from kaizen.learn.data.dataset import KIND, Dataset
from kaizen.learn.data.rows import Row
from kaizen.registry.registry import Registry

PART: Final = "part"
TEST: Final = "test"


async def kept_for_tests(registry: Registry, scope: Scope) -> dict[str, str]:
    """The inputs of all rows that were put aside for a test, by their address; each with the dataset's name."""
    kept: dict[str, str] = {}
    for head in await registry.heads(scope, KIND):
        if not head.name.endswith(f"/{TEST}"):
            continue
        version = await registry.version(scope, KIND, head.name, head.version)
        dataset = Dataset.load(version.artifact)
        if dataset.about.get(PART) == TEST:
            kept |= {row.asked: dataset.name for row in dataset.rows}
    return kept


async def refuse_tests(registry: Registry, scope: Scope, rows: Iterable[Row]) -> None:
    """Make sure that nothing is learned from rows that were put aside for a test.

    Raises:
        Denied: some are.
    """
    kept = await kept_for_tests(registry, scope)
    found = [kept[row.asked] for row in rows if row.asked in kept]
    if found:
        verb = "is" if len(found) == 1 else "are"
        raise Denied(
            f"{len(found)} of the rows to learn from {verb} kept for testing in dataset {found[0]}: take them out"
        )
