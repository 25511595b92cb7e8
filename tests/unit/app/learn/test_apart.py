"""Work in a thread of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kaizen.app.learn.apart import apart
from kaizen.core.errors import StoreError


async def test_work_is_done_by_another_thread_and_loop_while_this_one_goes_on() -> None:
    def busy() -> None:
        assert here.wait(10), "the loop that waits is not held up"

    async def work() -> tuple[str, bool]:
        busy()
        return threading.current_thread().name, asyncio.get_running_loop() is mine

    here, mine = threading.Event(), asyncio.get_running_loop()
    mine.call_later(0.01, here.set)
    assert await apart(work, "aside") == ("aside", False)


async def test_what_it_raises_is_raised_here() -> None:
    async def work() -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        await apart(work, "aside")


async def test_once_cancelled_the_work_ends_before_this_does() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)  # it lets go of what it holds
            ended.set()

    working = asyncio.ensure_future(apart(work, "aside"))
    await asyncio.to_thread(begun.wait, 10)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert ended.is_set()


async def test_cancelled_before_its_thread_has_begun_it_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[threading.Thread] = []
    start = threading.Thread.start

    def keep(self: threading.Thread) -> None:
        late.append(self)

    monkeypatch.setattr(threading.Thread, "start", keep)

    async def work() -> None:
        raise AssertionError("nobody wants it any more")

    working = asyncio.ensure_future(apart(work, "aside"))
    await asyncio.sleep(0)
    working.cancel()
    await asyncio.sleep(0)
    monkeypatch.undo()
    start(late[0])
    with pytest.raises(asyncio.CancelledError):
        await working
