"""The one blocking door: plain code waits here for work on a private event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_CLOSE_SECONDS: Final = 5.0


class Portal:
    """An event loop in a daemon thread of its own, started at the first use and anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """Run ``work()`` on the private loop and wait for it; Ctrl-C cancels it first.

        Args:
            work: makes the coroutine, in this thread.
            name: how the program is called, for the error.

        Raises:
            RuntimeError: in a thread that runs an event loop, a notebook's cell excepted: waiting here would
                stop that loop.
        """
        if _in_a_loop():
            raise RuntimeError(f"an event loop runs in this thread: write `await {name}(...)` instead of `.execute`")
        ended, given_up = threading.Event(), threading.Event()
        begun = work()  # here, where the call that this thread works for is known
        tasks: list[asyncio.Task[Any] | None] = []

        async def watched() -> T:
            tasks.append(asyncio.current_task())
            try:
                if given_up.is_set():
                    begun.close()
                    raise asyncio.CancelledError
                return await begun
            finally:
                ended.set()

        loop = self._running_loop()
        try:
            return asyncio.run_coroutine_threadsafe(watched(), loop).result()
        except BaseException:
            # Ctrl-C may come before there is a future to cancel, while the call runs already
            if not ended.is_set():
                given_up.set()
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks if task is not None])
                # the process may end next, and this thread's loop with it: the record says so first
                ended.wait(_CLOSE_SECONDS)
            raise

    def close(self) -> None:
        """Cancel what still runs, let the loop finish, and stop its thread."""
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None or self._pid != os.getpid():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSE_SECONDS)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                started = threading.Event()
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop, started), name="kaizen-portal", daemon=True
                )
                self._thread.start()
                started.wait()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
    asyncio.set_event_loop(loop)
    loop.call_soon(started.set)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        # closes what the loop's users keep open as async generators, such as HTTP connections
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not _in_a_notebook_cell()


def _in_a_notebook_cell() -> bool:
    """A cell runs inside the kernel's loop, which waits for the cell anyway: blocking it there is what users expect."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
