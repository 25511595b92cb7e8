"""The batches of one event loop: calls are gathered, handed in, looked after, and answered."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Final

from kaizen.core.errors import KaizenError, ProviderError, Unavailable
from kaizen.core.request import Reply, Request
from kaizen.core.scope import Scope
from kaizen.inference.batch.api import BatchApi, Book

# How often a call is put into another batch after one that never arrived.
_ROUNDS: Final = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """How patiently calls wait, in seconds.

    Args:
        least_wait: a call that has less time is asked directly.
        window: how long the first call of a batch waits for others.
        max_calls: calls in a batch at most.
        poll: how often a batch is looked after.
        reserve: how long before its deadline a call is taken back.
        doubt: after how long a batch whose handing in was broken off is looked for at the vendor's.
    """

    least_wait: float = 3600.0
    window: float = 60.0
    max_calls: int = 1000
    poll: float = 60.0
    reserve: float = 300.0
    doubt: float = 30.0


@dataclass(frozen=True, slots=True)
class Answered:
    """A call's answer, and the vendor's id of the batch it came in."""

    reply: Reply
    batch_id: str


class _Gone(Exception):
    """The batch a call was in never arrived."""


@dataclass(slots=True)
class _Waiting:
    """A call that is gathered: its place is known when its batch was handed in."""

    key: str
    request: Request
    place: asyncio.Future[tuple[str, str]]


@dataclass(slots=True)
class _Group:
    """Calls of one scope and model that will be one batch."""

    scope: Scope
    waiting: list[_Waiting] = field(default_factory=list[_Waiting])
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Track:
    """A batch that calls wait for."""

    scope: Scope
    api: BatchApi
    provider: str
    wanted: dict[str, tuple[Request, asyncio.Future[Answered]]] = field(
        default_factory=dict[str, tuple[Request, asyncio.Future[Answered]]]
    )
    task: asyncio.Task[None] | None = None


class Desk:
    """Gathers the calls of one loop into batches and brings their answers.

    Args:
        apis: by provider name.
        book: what outlives the process.
        timing: how patiently calls wait.
    """

    def __init__(self, apis: Mapping[str, BatchApi], book: Book, timing: Timing) -> None:
        self._apis, self._book, self._timing = apis, book, timing
        self._groups: dict[tuple[Scope, str], _Group] = {}
        self._tracks: dict[str, _Track] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, key: str, request: Request, count: Callable[[], Awaitable[Request]]) -> Answered:
        """The answer, as soon as the call's batch has ended; the batch it is in already, or a new one.

        Args:
            key: what the call is known by.
            request: what is asked.
            count: counts it where it is about to go into a new batch, and gives what may be sent; see ``Allowance``.

        Raises:
            ProviderError: if the vendor takes no batch, or answered this call with an error.
        """
        scope = request.scope
        for _ in range(_ROUNDS):
            place = await self._book.place(scope, key)
            if place is None:
                request = await count()
                place = await self._gather(key, request)
            try:
                return await self._follow(request, *place)
            except _Gone:
                continue
        raise Unavailable("the batch could not be handed in", model=request.model)

    async def take_back(self, key: str, request: Request) -> bool:
        """A call is asked in another way: its batch is cancelled if that was the last one in it.

        Returns:
            Whether it was in a batch already, so that nobody can tell what the vendor has answered.
        """
        place = await self._book.place(request.scope, key)
        if place is None:
            return False
        row = await self._book.batch(request.scope, place[0])
        left = await self._book.release(request.scope, key)
        if not left and row is not None and row[0] is not None:
            with suppress(KaizenError):  # it is only money: the call itself is answered elsewhere
                await self._apis[_provider(request)].cancel(row[0])
        return True

    # -- gathering --------------------------------------------------------------------------------

    async def _gather(self, key: str, request: Request) -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        at = (request.scope, request.model)
        group = self._groups.get(at)
        if group is None:
            group = self._groups[at] = _Group(request.scope)
            group.timer = loop.call_later(self._timing.window, self._close, at, group)
        waiting = _Waiting(key, request, loop.create_future())
        group.waiting.append(waiting)
        if len(group.waiting) >= self._timing.max_calls:
            self._close(at, group)
        try:
            return await waiting.place
        finally:
            if waiting in group.waiting and waiting.place.cancelled():
                group.waiting.remove(waiting)  # nobody waits for it, and it has not left

    def _close(self, at: tuple[Scope, str], group: _Group) -> None:
        if self._groups.get(at) is group:
            del self._groups[at]
        if group.timer is not None:
            group.timer.cancel()
        if group.waiting:
            self._spawn(self._submit(at[1], group))

    async def _submit(self, ref: str, group: _Group) -> None:
        """Write down that a batch is about to be handed in, then do it: in this order, so that none is sent twice."""
        scope, waiting = group.scope, group.waiting
        provider = ref.partition("/")[0]
        batch = secrets.token_hex(10)
        calls = {f"{batch}-{number}": one for number, one in enumerate(waiting)}
        try:
            await self._book.intend(scope, batch, provider, {one.key: call for call, one in calls.items()})
            async with self._touching(scope, batch):
                batch_id = await self._apis[provider].submit(batch, {call: one.request for call, one in calls.items()})
            await self._book.submitted(scope, batch, batch_id)
        except ProviderError as error:
            if not error.retryable:  # it was refused
                await self._book.drop(scope, batch)
                _fail(waiting, error)
                return
            # it may have arrived: whoever follows it finds out
        except Exception as error:  # noqa: BLE001 - carried to those who wait, which raise it
            _fail(waiting, error)
            return
        for call, one in calls.items():
            if not one.place.done():
                one.place.set_result((batch, call))

    @asynccontextmanager
    async def _touching(self, scope: Scope, batch: str) -> AsyncGenerator[None, None]:
        """Says again and again that the batch is still being handed in, lest another process look for it."""

        async def touch() -> None:
            while True:
                await asyncio.sleep(self._timing.doubt / 6)
                await self._book.touch(scope, batch)

        task = asyncio.ensure_future(touch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # -- following --------------------------------------------------------------------------------

    async def _follow(self, request: Request, batch: str, call: str) -> Answered:
        track = self._tracks.get(batch)
        if track is None:
            provider = _provider(request)
            track = self._tracks[batch] = _Track(request.scope, self._apis[provider], provider)
            track.task = self._spawn(self._look_after(batch, track))
        found: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        track.wanted[call] = (request, found)
        try:
            return await found
        finally:
            track.wanted.pop(call, None)
            if not track.wanted and self._tracks.get(batch) is track:
                del self._tracks[batch]
                if track.task is not None:
                    track.task.cancel()

    async def _look_after(self, batch: str, track: _Track) -> None:
        """Until the batch has ended or is gone. What makes that impossible goes to whoever waits."""
        try:
            while True:
                try:
                    if await self._looked(batch, track):
                        return
                except ProviderError as error:
                    if not error.retryable:
                        raise
                await asyncio.sleep(self._timing.poll)
        except Exception as error:  # noqa: BLE001 - carried to those who wait, which raise it
            for _, found in track.wanted.values():
                if not found.done():
                    found.set_exception(error)
        finally:
            if self._tracks.get(batch) is track:
                del self._tracks[batch]

    async def _looked(self, batch: str, track: _Track) -> bool:
        row = await self._book.batch(track.scope, batch)
        if row is None:
            raise _Gone
        batch_id, begun, touched = row
        if batch_id is None:
            batch_id = await self._found(batch, track, begun, touched)
        if batch_id is None or not await track.api.ended(batch_id):
            return False
        # those who come to wait while the results are on their way have to be looked for once more
        while missing := {call: request for call, (request, found) in track.wanted.items() if not found.done()}:
            results = await track.api.results(batch_id, missing)
            for call in missing:
                if call in track.wanted and not (found := track.wanted[call][1]).done():
                    _settle(found, results.get(call), missing[call], batch_id)
        return True

    async def _found(self, batch: str, track: _Track, begun: float, touched: float) -> str | None:
        """The vendor's id of a batch whose handing in was broken off, as by the death of a process."""
        if time.time() - touched < self._timing.doubt:
            return None  # it may still be on its way
        known = await self._book.known(track.scope, track.provider)
        batch_id, sure = await track.api.find(batch, begun, known)
        if batch_id is not None:
            await self._book.submitted(track.scope, batch, batch_id)
        elif sure and await self._book.drop(track.scope, batch, touched):
            raise _Gone
        return batch_id

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _provider(request: Request) -> str:
    return request.model.partition("/")[0]


def _fail(waiting: list[_Waiting], error: Exception) -> None:
    for one in waiting:
        if not one.place.done():
            one.place.set_exception(copy(error))  # one error raised by many would gather all their traces


def _settle(
    found: asyncio.Future[Answered], result: Reply | ProviderError | None, request: Request, batch_id: str
) -> None:
    match result:
        case None:
            found.set_exception(Unavailable("the batch ended without an answer to this call", model=request.model))
        case Reply():
            found.set_result(Answered(result, batch_id))
        case _:
            found.set_exception(result)
