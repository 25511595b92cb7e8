"""Waiting for the next piece of a stream, with what was gathered so far sent before the wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Flushing(Generic[T]):
    """Awaits a coroutine; if that has to wait for anything, something else is done first.

    A provider's events come in bursts, several in what one read of a socket gave. Sending each by itself would cost a
    system call and a packet each. So pieces are gathered while they are at hand, and sent at the moment when the
    source would wait: nothing is held back, and a burst goes out as one.

    Args:
        inner: what to await.
        flush: awaited once, before the first wait of ``inner``; not at all if it never waits.
    """

    __slots__ = ("_flush", "_inner")

    def __init__(self, inner: Coroutine[Any, Any, T], flush: Callable[[], Awaitable[None]]) -> None:
        self._inner, self._flush = inner, flush

    def __await__(self) -> Generator[Any, Any, T]:
        inner, flushed = self._inner, False
        thrown: BaseException | None = None
        while True:
            try:
                # what it would wait for, such as a future
                waits = inner.send(None) if thrown is None else inner.throw(thrown)
            except StopIteration as end:
                return end.value
            thrown = None
            try:
                if not flushed:
                    flushed = True
                    yield from self._flush().__await__()
                yield waits
            except BaseException as error:  # noqa: BLE001 - a cancellation, say: it is the inner one's to handle
                thrown = error
