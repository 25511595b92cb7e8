"""A stream of what something tells while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from kaizen.inference.streams import telling

Tell = Callable[[tuple[str, int]], None]


async def counts(tell: Tell) -> str:
    for number in range(4):
        tell(("a", number))
        await asyncio.sleep(0)
    tell(("b", 0))
    return "end"


async def test_everything_that_is_told_comes_in_order_and_then_the_result() -> None:
    async with aclosing(telling(counts)) as items:
        seen = [item async for item in items]
    assert seen == [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 0), "end"]


async def test_who_is_slow_to_read_gets_the_latest_of_each_and_nothing_piles_up() -> None:
    async with aclosing(telling(counts, about=lambda told: told[0])) as items:
        seen: list[object] = []
        async for item in items:
            seen.append(item)
            await asyncio.sleep(0.01)
    assert seen[0] == ("a", 0)
    assert seen[1:] == [("a", 3), ("b", 0), "end"]


async def test_a_failure_comes_after_what_was_told_before_it() -> None:
    async def fails(tell: Tell) -> str:
        tell(("a", 1))
        raise ValueError("broken")

    async with aclosing(telling(fails)) as items:
        assert await anext(items) == ("a", 1)
        with pytest.raises(ValueError, match="broken"):
            await anext(items)


async def test_closing_it_cancels_what_runs() -> None:
    ended = asyncio.Event()

    async def lasts(tell: Tell) -> str:
        tell(("a", 1))
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return "never"

    async with aclosing(telling(lasts)) as items:
        assert await anext(items) == ("a", 1)
    assert ended.is_set()
