"""What is learned of demos is learned once, in a thread, and kept for a while."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kaizen.core.params import Demo
from kaizen.programs.prompt import learned
from kaizen.programs.prompt.learned import Learned

ONE, OTHER = Demo({"a": "1"}, {}), Demo({"a": "2"}, {})


async def test_the_same_demos_in_another_tuple_are_the_same_and_each_field_has_its_own() -> None:
    kept, threads = Learned[str](), list[int]()

    def learn() -> str:
        threads.append(threading.get_ident())
        return str(len(threads))

    assert await kept((ONE, OTHER), "x", learn) == "1"
    assert await kept([ONE, OTHER], "x", learn) == "1"
    assert await kept((OTHER, ONE), "x", learn) == "2"
    assert await kept((ONE, OTHER), "y", learn) == "3"
    assert threading.get_ident() not in threads


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "_KEPT", 2)
    kept, made = Learned[str](), list[str]()
    for name in ("x", "y", "x", "z", "x"):
        await kept((ONE,), name, lambda name=name: made.append(name) or name)
    assert made == ["x", "y", "z", "x"]
    assert len(kept._kept) == 2


def test_what_one_loop_has_learned_another_is_given() -> None:
    kept, made = Learned[int](), list[int]()

    async def asks() -> int:
        return await kept((ONE,), "x", lambda: made.append(1) or len(made))

    assert [asyncio.run(asks()) for _ in range(2)] == [1, 1]


async def test_all_who_wait_are_told_of_a_failure_and_the_next_one_tries_again() -> None:
    kept, free = Learned[int](), threading.Event()

    def fails() -> int:
        free.wait(20)
        raise ValueError("no")

    waiting = [asyncio.ensure_future(kept((ONE,), "x", fails)) for _ in range(2)]
    await asyncio.sleep(0.01)
    free.set()
    assert [str(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == ["no", "no"]
    assert await kept((ONE,), "x", lambda: 3) == 3
