"""The one blocking door: from plain code, from many threads, never from inside a loop but a notebook's."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from kaizen.serve.portal import Portal
from tests.unit.programs.house import Open
from tests.unit.programs.test_signature import Triage


@pytest.fixture
def portal() -> Iterator[Portal]:
    made = Portal()
    yield made
    made.close()


async def where() -> tuple[str, int]:
    return threading.current_thread().name, id(asyncio.get_running_loop())


def test_work_runs_on_one_private_loop(portal: Portal) -> None:
    first, second = portal.call(where, "x"), portal.call(where, "x")
    assert first == second
    assert first[0] == "kaizen-portal"


def test_an_error_comes_through(portal: Portal) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        portal.call(fail, "x")


def test_many_threads_wait_at_once(portal: Portal) -> None:
    arrived: list[int] = []
    together = asyncio.Event()

    async def meet(n: int) -> int:
        arrived.append(n)
        if len(arrived) == 32:
            together.set()
        await together.wait()
        return n

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(lambda n: portal.call(lambda: meet(n), "x"), range(32))) == list(range(32))


async def test_inside_a_loop_it_names_what_to_write(house: Open) -> None:
    here = house()
    with pytest.raises(RuntimeError, match=r"write `await Triage\(\.\.\.\)` instead of `.execute`"):
        Triage.execute(message="x")
    assert here.calls == 0


@pytest.mark.parametrize(("kernel", "works"), [(object(), True), (None, False)])
async def test_in_a_notebooks_cell_it_works(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, kernel: object, works: bool
) -> None:
    shell = SimpleNamespace(kernel=kernel)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    if works:
        assert portal.call(where, "x")[0] == "kaizen-portal"
    else:
        with pytest.raises(RuntimeError, match="await x"):
            portal.call(where, "x")


def test_ctrl_c_cancels_the_work_before_it_leaves(portal: Portal) -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)  # a record being kept
            ends.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        portal.call(work, "x")
    assert ends == ["cancelled"]


def test_ctrl_c_leaves_a_cancelled_record(house: Open) -> None:
    from tests.unit.programs.test_predict import Hanging

    here = house(provider=Hanging())

    def interrupt() -> None:
        while not here.model.begun.is_set():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        Triage.execute(message="x")
    thread.join()
    assert here.model.left
    assert {record.status for record in asyncio.run(here.records())} == {"cancelled"}


def test_closing_ends_what_still_runs(portal: Portal) -> None:
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(30)

    failures: list[BaseException] = []

    def wait() -> None:
        try:
            portal.call(work, "x")
        except CancelledError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(5)
    portal.close()
    thread.join(5)
    assert [type(error) for error in failures] == [CancelledError]
    portal.close()
    assert portal.call(where, "x")[0] == "kaizen-portal"


def _in_child(portal: Portal, results: Any) -> None:
    results.put(portal.call(where, "x")[0])
    portal.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_gets_a_loop_of_its_own(portal: Portal) -> None:
    before = portal.call(where, "x")
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=_in_child, args=(portal, results))
    child.start()
    assert results.get() == "kaizen-portal"
    child.join(10)
    assert child.exitcode == 0
    assert portal.call(where, "x") == before


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_that_never_called_closes_nothing(portal: Portal) -> None:
    before = portal.call(where, "x")
    child = multiprocessing.get_context("fork").Process(target=portal.close)
    child.start()
    child.join(10)
    assert child.exitcode == 0
    assert portal.call(where, "x") == before


def test_ctrl_c_cancels_a_call_that_has_begun_before_there_is_a_future(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, left = threading.Event(), threading.Event()
    scheduled = asyncio.run_coroutine_threadsafe

    def interrupted(*args: Any) -> Any:
        scheduled(*args)
        assert begun.wait(5)
        raise KeyboardInterrupt

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.call(work, "work")
    assert left.is_set()


def test_what_has_not_begun_when_ctrl_c_comes_never_does(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduled = asyncio.run_coroutine_threadsafe
    ran = threading.Event()
    held = threading.Event()

    def interrupted(coroutine: Any, loop: asyncio.AbstractEventLoop) -> Any:
        loop.call_soon_threadsafe(held.wait, 5)  # the loop is busy
        scheduled(coroutine, loop)
        threading.Timer(0.05, held.set).start()
        raise KeyboardInterrupt

    async def work() -> None:
        ran.set()

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.call(work, "work")
    assert not ran.is_set()
