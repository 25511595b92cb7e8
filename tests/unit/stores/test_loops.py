"""One of a kind for each event loop."""

from __future__ import annotations

import asyncio

import pytest

from kaizen.stores.loops import PerLoop


class Opener:
    """Opens numbers."""

    def __init__(self, failures: int = 0) -> None:
        self.opened = 0
        self.closed: list[int] = []
        self.failures = failures
        self.held = PerLoop(self.open, self.close)

    async def open(self) -> int:
        await asyncio.sleep(0.001)
        if self.failures:
            self.failures -= 1
            raise OSError("not yet")
        self.opened += 1
        return self.opened

    async def close(self, number: int) -> None:
        await asyncio.sleep(0)
        self.closed.append(number)


def test_each_loop_opens_one_and_it_closes_with_the_loop() -> None:
    opener = Opener()

    async def use() -> set[int]:
        return set(await asyncio.gather(*[opener.held.get() for _ in range(5)]))

    assert [asyncio.run(use()) for _ in range(3)] == [{1}, {2}, {3}]
    assert opener.closed == [1, 2, 3]
    assert opener.held._held == {}


async def test_closing_lets_go_and_the_next_use_opens_another() -> None:
    opener = Opener()
    await opener.held.close()
    assert await opener.held.get() == 1
    await opener.held.close()
    assert opener.closed == [1]
    assert await opener.held.get() == 2
    await opener.held.close()


async def test_where_opening_fails_all_are_told_and_the_next_tries_again() -> None:
    opener = Opener(failures=1)
    told = await asyncio.gather(*[opener.held.get() for _ in range(3)], return_exceptions=True)
    assert [type(one) for one in told] == [OSError] * 3
    assert await opener.held.get() == 1
    await opener.held.close()
    failing = Opener(failures=1)
    first = asyncio.create_task(failing.held.get())
    await asyncio.sleep(0)
    await failing.held.close()  # while it fails to open
    with pytest.raises(OSError, match="not yet"):
        await first


async def test_who_is_cancelled_takes_it_from_nobody() -> None:
    opener = Opener()
    first, second = (asyncio.create_task(opener.held.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await opener.held.get() == 1
    await opener.held.close()


def test_a_loop_that_was_closed_without_ending_its_generators_is_forgotten() -> None:
    opener = Opener()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(opener.held.get())
    held = opener.held._held[loop]
    loop.close()
    assert asyncio.run(opener.held.get()) == 2
    assert opener.held._held == {}
    assert held.done()
