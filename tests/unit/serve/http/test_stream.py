"""What is gathered goes out before the source waits, and a cancellation reaches the source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from kaizen.serve.http.stream import Flushing


async def test_nothing_is_flushed_while_the_source_has_more() -> None:
    flushed: list[str] = []

    async def flush() -> None:
        flushed.append("now")

    async def source() -> AsyncGenerator[int]:
        yield 1
        yield 2
        await asyncio.sleep(0)
        yield 3

    pieces = source()
    got = [await Flushing(pieces.__anext__(), flush) for _ in range(2)]
    assert (got, flushed) == ([1, 2], [])
    assert await Flushing(pieces.__anext__(), flush) == 3
    assert flushed == ["now"]


async def test_a_flush_may_wait_itself() -> None:
    order: list[str] = []

    async def flush() -> None:
        await asyncio.sleep(0.01)
        order.append("flushed")

    async def source() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        order.append("source")
        return "done"

    assert await Flushing(source(), flush) == "done"
    assert order == ["flushed", "source"]


async def test_a_cancellation_reaches_the_source() -> None:
    ended: list[str] = []

    async def source() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("source")

    async def flush() -> None: ...

    async def run() -> None:
        await Flushing(source(), flush)

    task = asyncio.create_task(run())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["source"]


async def test_what_fails_in_the_flush_reaches_the_source_and_the_caller() -> None:
    ended: list[str] = []

    async def source() -> None:
        try:
            await asyncio.sleep(60)
        except ConnectionError:
            ended.append("source")
            raise

    async def flush() -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await Flushing(source(), flush)
    assert ended == ["source"]


async def test_what_the_source_raises_is_raised() -> None:
    async def source() -> None:
        raise ValueError("broken")

    async def flush() -> None: ...

    with pytest.raises(ValueError, match="broken"):
        await Flushing(source(), flush)
