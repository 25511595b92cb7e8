"""Calls made side by side, which fail as one call fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

R = TypeVar("R")


async def together(work: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """Calls side by side; results in the order of ``work``.

    They fail as one call fails: the first failure cancels the others and is raised itself, not in a group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failures:
        # a branch that waits for somebody's word (no Exception) counts when nothing failed
        raise foremost(failures.subgroup(Exception) or failures) from None
    return [task.result() for task in tasks]


def foremost(failure: BaseException) -> BaseException:
    """The first of the failures in a group, however deep."""
    while isinstance(failure, BaseExceptionGroup):
        failure = cast("BaseExceptionGroup[BaseException]", failure).exceptions[0]
    return failure
