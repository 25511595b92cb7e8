"""What is learned of a program's demos before a call can use it: once for each set, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_KEPT: Final = 64


class Learned(Generic[T]):
    """Learns of demos in a thread, so that other calls go on meanwhile; whoever wants the same waits for it."""

    def __init__(self) -> None:
        # By identity of each: a search makes sets of the same demos anew. They are held, so that their ids stay
        # theirs. The futures are no loop's, since a program works in several.
        self._kept: dict[tuple[object, ...], tuple[Sequence[object], Future[T]]] = {}

    async def __call__(self, of: Sequence[object], name: str, learn: Callable[[], T]) -> T:
        """What ``learn`` makes of these for a field.

        Args:
            of: what it learns of: demos, or their points.
            name: the field's.
            learn: called in a thread, the first time; and again where it failed.
        """
        key = (name, *map(id, of))
        known = self._kept.get(key)
        if known is None:
            future = _begun(learn)
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            known = self._kept[key] = (of, future)
        future = known[1]
        if future.done() and future.exception() is None:
            return future.result()
        try:
            return await asyncio.wrap_future(future)
        except Exception:
            if self._kept.get(key) is known:
                del self._kept[key]
            raise


def _begun(learn: Callable[[], T]) -> Future[T]:
    """What a thread is making. Who waits for it and is cancelled does not cancel it: others may wait too."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(learn())
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            future.set_exception(error)

    asyncio.get_running_loop().run_in_executor(None, work)
    return future
