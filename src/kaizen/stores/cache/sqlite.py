"""A cache in an SQLite file: shared by the processes of one machine, and there again after they end."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from kaizen.core.errors import StoreError
from kaizen.core.protocols import CacheSize
from kaizen.core.scope import Scope
from kaizen.stores.cache import entries
from kaizen.stores.cache.entries import MIGRATIONS, Entry
from kaizen.stores.cache.present import Present, mark
from kaizen.stores.cache.signal import Signal
from kaizen.stores.schema import connect, is_busy, patiently, prepare
from kaizen.stores.upkeep import fold, roll_back

Result = TypeVar("Result")

_FAILURES: Final = (sqlite3.Error, OSError, UnicodeError, OverflowError, MemoryError)
_INLINE_BYTES: Final = 64 * 1024  # more than that is written on a thread
_TIDY_EVERY_S: Final = 60.0
_TIDY_EVERY_BYTES: Final = 4 * 1024 * 1024
# Once room has to be made, a tenth of it is, so that not every value that comes after makes others go.
_ROOM: Final = 0.9
_CLOSE_POLL_S: Final = 0.001
# The file itself is asked that often, whatever the signal says: a process can be killed between a commit and its word.
_LOOK_EVERY_S: Final = 0.05
# After so many looks in vain the keys that are there are learned, so that the next ones need no look. A thread reads
# them all, a second's work for a million: not sooner again than that.
_IN_VAIN: Final = 256
_LEARN_EVERY_S: Final = 600.0
# A process that is forked off must neither use nor close its parent's connections: here they stay till it ends.
_open: set[sqlite3.Connection] = set()


@dataclass(slots=True)
class _Put:
    """Entries on their way, and who waits for them."""

    entries: Sequence[Entry]
    done: asyncio.Future[None]


class SqliteCache:
    """A Cache for the processes of one machine.

    A value is found by index in some 10 microseconds, on the thread that asks: a thread of its own would cost many
    times that. One that is not there is mostly not looked for, as long as no other process puts anything: 4 MiB of
    marks say which keys are there. Values are written in the turn of the loop after the call, all of that turn in one
    transaction without fsync; where another process holds the lock, or much is to be written, on a thread. Every minute
    20,000 entries are looked through for what is too old; where the file is larger than it may be, what was not read
    for the longest time goes, to the minute. What is dropped is overwritten.

    Args:
        path: the file; its folder is made (mode 0700) where it is missing, the file itself has mode 0600.
        max_bytes: how large it may grow. A burst may exceed it until the next tidying.
        patience: seconds to wait for other processes' locks.
        clock: Unix seconds.
    """

    def __init__(
        self, path: Path, max_bytes: int, *, patience: float = 1.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._max, self._patience, self._clock = path, max_bytes, patience, clock
        self._writing, self._reading, self._folding = threading.Lock(), threading.Lock(), threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._signal = Signal(Path(f"{path}-signal"))
        self._present = Present(self._signal)
        self._in_vain, self._learn_at = 0, 0.0
        self._heard, self._look_at = -1, 0.0
        self._version = -1
        self._known: dict[Scope, tuple[int, int]] = {}  # epoch and generation by scope, as of ``_version``
        self._read: dict[int, int] = {}  # places that were read since they were last noted, and when
        self._waiting: dict[AbstractEventLoop, list[_Put]] = {}
        self._tidying = threading.Lock()
        self._untidy, self._tidy_at, self._looked_at = 0, 0.0, 0
        self._closed = False

    @property
    def locks(self) -> tuple[threading.Lock, ...]:
        """Held while the file is used."""
        return self._folding, self._writing, self._reading

    # -- the seam -----------------------------------------------------------------------------------

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        """The value, if it is still there."""
        found = await self.find(scope, key)
        return None if found is None else found[0]

    async def find(self, scope: Scope, key: str, /) -> tuple[bytes, float | None] | None:
        """The value and the seconds it has left."""
        if self._writer is None or self._closed:
            await self._ready()
        if self._present.lacks(key):
            return None
        now = self._clock()
        row = self._look(scope, key, now)
        if row is None:
            self._in_vain += 1
            if self._in_vain >= _IN_VAIN and now >= self._learn_at:
                self._start_tidying()
            return None
        minute = int(now // 60)
        if row.used < minute:
            self._read[row.place] = minute
        return row.value, None if row.until is None else row.until - now

    async def epoch(self, scope: Scope, /) -> int:
        """How often the scope was invalidated, by whichever process."""
        if self._writer is None or self._closed:
            await self._ready()
        return self._counts(scope)[0]

    async def generation(self, scope: Scope, /) -> int:
        """How often an entry of the scope was dropped or replaced, by whichever process."""
        if self._writer is None or self._closed:
            await self._ready()
        return self._counts(scope)[1]

    def counts_now(self, scope: Scope, /) -> tuple[int, int] | None:
        """Epoch and generation, at once; None where the file is not open."""
        return None if self._writer is None or self._closed else self._counts(scope)

    async def put(
        self,
        scope: Scope,
        key: str,
        value: bytes,
        /,
        *,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        since: int | None = None,
    ) -> None:
        """Keep a value. One that is larger than the whole cache is not kept.

        Raises:
            StoreError: the file can't be written: what was there stays.
        """
        await self._ready()
        if len(value) > self._max:
            return
        loop = asyncio.get_running_loop()
        put = _Put((self.entry(scope, key, value, ttl, tags, since),), loop.create_future())
        waiting = self._waiting.get(loop)
        if waiting is None:
            waiting = self._waiting[loop] = []
            loop.call_soon(self._flush, loop)
        waiting.append(put)
        await put.done

    def entry(
        self, scope: Scope, key: str, value: bytes, ttl: float | None, tags: Sequence[str], since: int | None
    ) -> Entry:
        """What ``put`` keeps, for ``put_all``: its time begins now."""
        now = self._clock()
        return Entry(scope, key, value, None if ttl is None else now + ttl, tuple(dict.fromkeys(tags)), since, now)

    async def put_all(self, entries: Sequence[Entry], /) -> None:
        """Keep these, in one transaction; those that are larger than the whole cache are not kept.

        Raises:
            StoreError: the file can't be written: what was there stays.
        """
        await self._ready()
        loop = asyncio.get_running_loop()
        group = [entry for entry in entries if len(entry.value) <= self._max]
        if group:
            # one future for them all: of several, whose errors nobody took, each would be reported
            put = _Put(group, loop.create_future())
            self._write_group(loop, [put])
            await put.done

    async def invalidate(self, scope: Scope, tags: Sequence[str] | None = None, /) -> int:
        """Drop what carries any of the tags (all of the scope's for None), and overwrite it; how many there were."""
        await self._ready()
        act = partial(entries.invalidate, scope=scope, tags=tags, now=self._clock())
        count = await self._on_thread(lambda: self._change(act, tells=True))
        self._start_tidying(shrink=True)  # else the contents would stay in the log for a while
        return count

    async def size(self, scope: Scope, /) -> CacheSize:
        """What it holds of a scope. Reads every entry's size: for people who ask, not for calls."""
        await self._ready()
        act = partial(entries.size, scope=scope, now=self._clock())
        return CacheSize(*await self._on_thread(lambda: self._ask(act)))

    async def close(self) -> None:
        """Write what is in the air and let go of the file. Later calls are StoreErrors."""
        self._closed = True
        while self._waiting:
            for loop in tuple(self._waiting):
                if not loop.is_running():  # it stopped, and nobody waits any more
                    self._waiting.pop(loop, None)
            await asyncio.sleep(_CLOSE_POLL_S if self._waiting else 0)
        if self._writer is not None:
            await asyncio.to_thread(self._let_go)

    # -- the file -----------------------------------------------------------------------------------

    async def _ready(self) -> None:
        if self._closed:
            raise self._error("is closed")
        if self._writer is None:
            await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        with self._writing, self._reading:
            if self._writer is not None:
                return
            try:
                writer = prepare(self._path, self._patience, MIGRATIONS)
                _open.add(writer)
                self._reader = connect(self._path, self._patience)
                _open.add(self._reader)
                self._signal.open()
            except _FAILURES as error:
                raise self._error(error) from error
            _alive.add(self)
            self._threads = ThreadPoolExecutor(2, "kaizen-cache")  # one tidies, one writes
            self._writer = writer

    def start_anew(self) -> None:
        """In a forked child: neither the parent's threads nor its locks nor its connections are ours."""
        self._writing, self._reading, self._folding = threading.Lock(), threading.Lock(), threading.Lock()
        self._tidying = threading.Lock()
        self._writer = self._reader = self._threads = None
        self._waiting, self._version, self._heard = {}, -1, -1
        self._present = Present(self._signal)

    def _let_go(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        with self._writing, self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
                    _open.discard(connection)
            self._reader = self._writer = None
            self._signal.close()

    # -- reading ------------------------------------------------------------------------------------

    def _ask(self, query: Callable[[sqlite3.Connection], Result]) -> Result:
        with self._reading:
            reader = self._reader
            if reader is None:
                raise self._error("is closed")
            try:
                return query(reader)  # nearly always
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise self._error(error) from error
            except _FAILURES as error:
                raise self._error(error) from error
            try:
                return patiently(lambda: query(reader), self._patience)
            except _FAILURES as error:
                raise self._error(error) from error

    def _look(self, scope: Scope, key: str, now: float) -> entries.Found | None:
        """An entry; by the connection that writes, if nobody uses it: what it wrote itself it need not read again."""
        if self._writing.acquire(blocking=False):
            try:
                if self._writer is not None:
                    return entries.find(self._writer, scope, key, now)
            except _FAILURES:
                pass  # the other way waits, or says what is wrong
            finally:
                self._writing.release()
        return self._ask(lambda reader: entries.find(reader, scope, key, now))

    def _counts(self, scope: Scope) -> tuple[int, int]:
        """Epoch and generation: as they were read last, unless a process has given the signal since."""
        heard = self._signal.last
        if heard == self._heard and time.monotonic() < self._look_at:
            known = self._known.get(scope)
            if known is not None:
                return known
        look_at = time.monotonic() + _LOOK_EVERY_S
        with self._reading:
            reader = self._reader
            if reader is None:
                raise self._error("is closed")
            try:
                known = self._read_counts(reader, scope)
            except _FAILURES:
                known = None  # once more, with patience
            else:
                # what was heard before the file was read: a word that came meanwhile has it read again
                self._heard, self._look_at = heard, look_at
        return self._ask(partial(self._read_counts, scope=scope)) if known is None else known

    def _read_counts(self, reader: sqlite3.Connection, scope: Scope) -> tuple[int, int]:
        version: int = reader.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._known.clear()
            self._version = version
        known = self._known.get(scope)
        if known is None:
            known = self._known[scope] = entries.counts(reader, scope)
        return known

    # -- writing ------------------------------------------------------------------------------------

    def _flush(self, loop: AbstractEventLoop) -> None:
        """Write what came in this turn."""
        self._write_group(loop, self._waiting.pop(loop))

    def _write_group(self, loop: AbstractEventLoop, group: list[_Put]) -> None:
        """Write these in one transaction: here and now, or on a thread."""
        coming = [entry for put in group for entry in put.entries]
        size = sum(len(entry.value) for entry in coming)
        self._untidy += size
        if self._untidy > min(_TIDY_EVERY_BYTES, self._max // 10) or self._clock() >= self._tidy_at:
            self._start_tidying()
        act = partial(self._put_all, group=coming)
        # while the file is tidied the system may hold up writes until an fsync is through
        if size <= _INLINE_BYTES and not self._tidying.locked() and self._writing.acquire(blocking=False):
            try:
                if self._transaction(act):
                    self._signal.give()
            except (*_FAILURES, StoreError):
                pass  # another process has the lock, or something is wrong: a thread waits, or says what
            else:
                _settle(group, None)
                return
            finally:
                self._writing.release()

        def written(future: asyncio.Future[bool]) -> None:
            error = future.exception()
            _settle(group, error if error is None or isinstance(error, StoreError) else self._error(error))

        try:
            loop.run_in_executor(self._threads, partial(self._change, act, tells=True)).add_done_callback(written)
        except RuntimeError:  # closed since
            _settle(group, self._error("is closed"))

    def _put_all(self, writer: sqlite3.Connection, group: Sequence[Entry]) -> bool:
        self._present.add([entry.key for entry in group])
        return entries.put_all(writer, group)

    def _change(self, act: Callable[[sqlite3.Connection], Result], *, tells: bool = False) -> Result:
        """Write on a thread, waiting for other processes but never while holding our own lock.

        ``tells`` has all processes read the counts again.
        """

        def attempt() -> Result:
            with self._writing:
                return self._transaction(act)

        try:
            result = patiently(attempt, self._patience)
        except _FAILURES as error:
            raise self._error(error) from error
        if tells:
            self._signal.give()
        return result

    def _transaction(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        """All or nothing. Whoever calls holds ``_writing``."""
        writer = self._writer
        if writer is None:
            raise self._error("is closed")
        writer.execute("BEGIN IMMEDIATE")
        try:
            result = act(writer)
            writer.execute("COMMIT")
        except BaseException:
            roll_back(writer)
            raise
        return result

    # -- tidying ------------------------------------------------------------------------------------

    def _start_tidying(self, *, shrink: bool = False) -> None:
        if self._threads is not None and self._tidying.acquire(blocking=False):
            self._untidy, self._tidy_at = 0, self._clock() + _TIDY_EVERY_S
            try:
                self._threads.submit(self._tidy, shrink)
            except RuntimeError:  # closing
                self._tidying.release()

    def _tidy(self, shrink: bool) -> None:
        """Drop what is too old and what there is no room for; fold the log. In short transactions: others wait."""
        try:
            read, self._read = self._read, {}
            self._change(partial(entries.note_read, read=read))
            while self._change(entries.enter_tags):
                pass
            with self._folding:
                connection = connect(self._path, self._patience)
                try:
                    self._drop(connection)
                    if self._in_vain >= _IN_VAIN and self._clock() >= self._learn_at:
                        self._learn(connection)
                    fold(connection, shrink=shrink)
                finally:
                    connection.close()
        except (*_FAILURES, StoreError):
            # Nothing is lost, and the next turn goes on. Whether the file can be written at all shows in the puts.
            self._tidy_at = self._clock() + _TIDY_EVERY_S
            self._learn_at = max(self._learn_at, self._tidy_at)  # else each look in vain would start the next one
        finally:
            self._tidying.release()

    def _drop(self, reader: sqlite3.Connection) -> None:
        """Drop what is too old among the next entries in the row, and what was not read where the file is too large."""
        places, self._looked_at = entries.find_old(reader, self._looked_at, self._clock())
        if entries.excess(reader, self._max) > 0:
            places += entries.find_unread(reader, entries.excess(reader, _ROOM * self._max))
        while places:
            self._change(partial(entries.drop, places=places))

    def _learn(self, reader: sqlite3.Connection) -> None:
        """Mark the keys of all entries, part by part: what is put meanwhile is marked by those who put it."""
        self._in_vain, self._learn_at = 0, self._clock() + _LEARN_EVERY_S
        marks = self._change(lambda writer: self._present.begin())
        last = None
        while part := entries.keys(reader, last):
            mark(marks, [key for *_, key in part])
            last = max(part)
        with self._writing:
            self._present.finish(marks)

    async def _on_thread(self, act: Callable[[], Result]) -> Result:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, act)
        except RuntimeError:  # closed since
            raise self._error("is closed") from None
        return await future

    def _error(self, error: BaseException | str) -> StoreError:
        if isinstance(error, str):
            return StoreError(f"the cache {self._path} {error}")
        said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        made = StoreError(f"the cache {self._path}: {' '.join(said.split())}")
        made.retryable = isinstance(error, sqlite3.Error) and is_busy(error)
        return made


def _settle(group: Sequence[_Put], error: StoreError | None) -> None:
    for put in group:
        if put.done.done():  # its caller was cancelled
            continue
        if error is None:
            put.done.set_result(None)
        else:
            put.done.set_exception(error)


# SQLite notes in the process's memory which locks it holds. A fork in the middle of a transaction would have the child
# believe for ever that it holds one which it never had, and that nobody lets go of.
_alive: weakref.WeakSet[SqliteCache] = weakref.WeakSet()
_held: list[threading.Lock] = []


def _before_fork() -> None:
    for cache in tuple(_alive):
        for lock in cache.locks:
            lock.acquire()
            _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


def _in_child() -> None:
    _held.clear()
    for cache in tuple(_alive):
        cache.start_anew()
    _alive.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
