"""Embeddings made together: calls that come while one is under way wait for each other, and go as one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakKeyDictionary

from kaizen.core.errors import ProviderError, Unavailable
from kaizen.core.protocols import Embedder, Embeddings
from kaizen.core.scope import Scope
from kaizen.inference.batch.share import usages

_NUMBER: Final = 4  # bytes of a float32


@dataclass(slots=True)
class _Waiting:
    texts: Sequence[str]
    made: asyncio.Future[Embeddings]


@dataclass(slots=True)
class _Line:
    """The calls of one scope in one loop."""

    busy: int = 0
    waiting: list[_Waiting] = field(default_factory=list[_Waiting])
    timer: asyncio.TimerHandle | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])


class GatheredEmbedder:
    """An Embedder that makes the embeddings of several calls in one call of another.

    Nobody waits while nothing is under way: a lone call goes at once. Calls that come meanwhile are gathered until it
    is back, ``wait`` is over or ``texts`` are there. The tokens of a shared call are parted by the texts' lengths.
    Where a shared call is refused, each is made by itself, so that one bad text spoils no other's embeddings.
    Scopes share nothing.

    Args:
        inner: who makes them.
        wait: seconds that a call waits at most.
        texts: texts that go together at most; a call with as many goes alone.
    """

    def __init__(self, inner: Embedder, *, wait: float = 0.002, texts: int = 64) -> None:
        self._inner, self._wait, self._texts = inner, wait, texts
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Scope, _Line]] = WeakKeyDictionary()
        self._making = threading.Lock()

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        """A point for each text, in order; see ``Embedder``."""
        loop = asyncio.get_running_loop()
        with self._making:
            line = self._lines.setdefault(loop, {}).setdefault(scope, _Line())
        if not line.busy or len(texts) >= self._texts or not texts:
            return await self._alone(line, scope, texts)
        waiting = _Waiting(texts, loop.create_future())
        if sum(len(one.texts) for one in line.waiting) + len(texts) > self._texts:
            self._go(line, scope)
        line.waiting.append(waiting)
        if line.timer is None:
            line.timer = loop.call_later(self._wait, self._go, line, scope)
        return await waiting.made

    async def _alone(self, line: _Line, scope: Scope, texts: Sequence[str]) -> Embeddings:
        line.busy += 1
        try:
            return await self._inner.embed(scope, texts)
        finally:
            self._left(line, scope)

    def _left(self, line: _Line, scope: Scope) -> None:
        line.busy -= 1
        if line.waiting:
            self._go(line, scope)
        elif not line.busy:
            self._lines.get(asyncio.get_running_loop(), {}).pop(scope, None)

    def _go(self, line: _Line, scope: Scope) -> None:
        """What waits, leaves."""
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        waiting = [one for one in line.waiting if not one.made.done()]
        line.waiting = []
        if waiting:
            line.busy += 1
            task = asyncio.get_running_loop().create_task(self._together(line, scope, waiting))
            line.tasks.add(task)
            task.add_done_callback(line.tasks.discard)

    async def _together(self, line: _Line, scope: Scope, waiting: list[_Waiting]) -> None:
        try:
            texts = [text for one in waiting for text in one.texts]
            made = await self._inner.embed(scope, texts)
            if len(made.data) != len(texts) * made.dim * _NUMBER:
                raise Unavailable(f"{made.model} made another number of embeddings than it was given texts")
            _part(made, waiting)
        except ProviderError as error:
            if error.retryable or len(waiting) == 1:
                _fail(waiting, error)
            else:
                for one in waiting:
                    await self._by_itself(scope, one)
        except Exception as error:  # noqa: BLE001 - carried to those who wait, which raise it
            _fail(waiting, error)
        finally:
            for one in waiting:
                one.made.cancel()  # only what is not answered: this task was cancelled
            self._left(line, scope)

    async def _by_itself(self, scope: Scope, one: _Waiting) -> None:
        try:
            made = await self._inner.embed(scope, one.texts)
        except Exception as error:  # noqa: BLE001 - carried to the one who waits, which raises it
            _fail([one], error)
        else:
            if not one.made.done():
                one.made.set_result(made)


def _part(made: Embeddings, waiting: list[_Waiting]) -> None:
    lengths = [float(sum(map(len, one.texts))) for one in waiting]
    at = 0
    for one, usage in zip(waiting, usages(made.usage, lengths, lengths), strict=True):
        size = len(one.texts) * made.dim * _NUMBER
        if not one.made.done():
            one.made.set_result(replace(made, data=made.data[at : at + size], usage=usage))
        at += size


def _fail(waiting: list[_Waiting], error: Exception) -> None:
    for one in waiting:
        if not one.made.done():
            one.made.set_exception(copy(error))  # one error raised by many would gather all their traces
