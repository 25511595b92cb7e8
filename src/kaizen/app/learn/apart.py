"""Work in a thread with a loop of its own: it computes for a while between its calls, and others wait for this loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

_ENDING_S: Final = 8.0


async def apart(work: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
    """What the work returns or raises. Once cancelled, so is the work, which has some seconds to end.

    Args:
        work: begun in the thread.
        name: of the thread.
    """
    here = asyncio.get_running_loop()
    ended: asyncio.Future[T] = here.create_future()
    there: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
    lock, stopped = threading.Lock(), threading.Event()

    async def inside() -> T:
        with lock:
            if stopped.is_set():
                raise asyncio.CancelledError
            task = asyncio.ensure_future(work())
            there.append((asyncio.get_running_loop(), task))
        return await task

    def tell(say: Callable[..., object], *what: object) -> None:
        def said() -> None:
            if not ended.done():
                say(*what)

        with suppress(RuntimeError):  # nobody waits any more: their loop is closed
            here.call_soon_threadsafe(said)

    def run() -> None:
        try:
            made = asyncio.run(inside())
        except asyncio.CancelledError:
            tell(ended.cancel)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            tell(ended.set_exception, error)
        else:
            tell(ended.set_result, made)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        with lock:
            stopped.set()
            for loop, task in there:
                with suppress(RuntimeError):  # it has just ended by itself
                    loop.call_soon_threadsafe(task.cancel)
        await asyncio.wait([ended], timeout=_ENDING_S)
        raise
