"""Calls made side by side, which fail as one call fails: with its own error, not with a group of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in the order of ``work``. The first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failures:
        raise _foremost(failures) from None
    return [task.result() for task in tasks]


def _foremost(failures: BaseExceptionGroup) -> BaseException:
    """The first error; a branch that only waits for somebody's word (no Exception) counts when nothing failed."""
    errors, others = failures.split(Exception)
    found: BaseException = errors or others or failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
