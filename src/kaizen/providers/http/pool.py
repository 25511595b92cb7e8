"""What one loop holds of one server: its connections, the turns for them, and the one clock of all that waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from kaizen.providers.http.connection import Connection, Exchange
from kaizen.providers.http.dial import Dial

# Seconds a connection is kept without a call. Servers close theirs too, many after a minute and some after five
# seconds, and a call that is sent at that moment is lost.
_IDLE: Final = 15.0
_NEVER: Final = float("inf")
# Turns of the loop that closing waits at most: a socket closes one turn after it is told to, an encrypted one two.
_TURNS: Final = 5


class Gate:
    """At most ``free`` holders at once; the others wait in order.

    Unlike ``asyncio.Semaphore``, neither a burst of releases nor a crowd of cancelled waiters costs time
    that grows with the queue.
    """

    __slots__ = ("_free", "_waiters")

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiters: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """A turn, if there is one now."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def enter(self) -> None:
        """Wait for a turn."""
        if self.take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn had come already: hand it on
                self.leave()
            raise

    def leave(self) -> None:
        """Give the turn to the next who still waits."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Pool:
    """The connections of one loop to one server.

    Args:
        loop: the loop, running.
        dial: makes a connection.
        connections: the most calls at once.
    """

    __slots__ = ("_closed", "_dial", "_idle", "_loop", "_next", "_open", "_reaper", "_timer", "_watched", "gate")

    def __init__(self, loop: asyncio.AbstractEventLoop, dial: Dial, connections: int) -> None:
        self.gate = Gate(connections)
        self._loop = loop
        self._dial = dial
        self._closed = False
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # in the order they came back
        self._reaper: asyncio.TimerHandle | None = None
        # Timers are one for all that waits: one a call would cost more than parsing its answer.
        self._watched: set[Exchange] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = _NEVER

    @property
    def server(self) -> str:
        """Who is connected to, for errors."""
        return self._dial.server

    def idle(self) -> Connection | None:
        """The connection that came back last, so that those which are too many fall idle; None if there is none."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.usable():
                return connection
            connection.abort()
        return None

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            OSError: if there is none to be had.
        """
        connection = await self._dial(self)
        if self._closed or not connection.open:
            # closed before its end could be told to anybody: a call sent on it would wait in vain
            connection.abort()
            raise ConnectionError("the connection was closed as soon as it was made")
        self._open.add(connection)
        return connection

    def give_back(self, connection: Connection, /) -> None:
        """See ``Home``."""
        connection.idle_since = time.monotonic()
        self._idle[connection] = None
        if self._reaper is None:
            self._reaper = self._loop.call_later(_IDLE, self._reap)

    def lost(self, connection: Connection, /) -> None:
        """See ``Home``."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    async def wait(self, exchange: Exchange, due: float) -> None:
        """Until something new came of an answer, or ``exchange.late``: ``time.monotonic()`` has reached ``due``."""
        waiter = exchange.waiter = self._loop.create_future()
        exchange.due = due
        self._watched.add(exchange)
        if due < self._next:
            self._arm(due)
        try:
            await waiter
        finally:
            exchange.waiter = None
            self._watched.discard(exchange)

    async def close(self) -> None:
        """Close all, and wait until it is closed."""
        self._closed = True
        for timer in (self._reaper, self._timer):
            if timer is not None:
                timer.cancel()
        for connection in list(self._open):
            connection.abort()
        for _ in range(_TURNS):
            if not self._open:
                break
            await asyncio.sleep(0)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._sweep)

    def _sweep(self) -> None:
        """Wake whose time is over. Most waits end before, so this runs seldom, not once a call."""
        now, following = time.monotonic(), _NEVER
        self._timer, self._next = None, _NEVER
        for exchange in self._watched:
            if exchange.due > now:
                following = min(following, exchange.due)
            elif exchange.waiter is not None and not exchange.waiter.done():
                exchange.late = True
                exchange.wake()
        if following < _NEVER:
            self._arm(following)

    def _reap(self) -> None:
        """Close what lay idle too long."""
        self._reaper = None
        limit = time.monotonic() - _IDLE
        while self._idle:
            oldest = next(iter(self._idle))
            if oldest.idle_since > limit:
                self._reaper = self._loop.call_later(oldest.idle_since - limit, self._reap)
                return
            del self._idle[oldest]
            oldest.abort()
