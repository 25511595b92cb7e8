"""A cache in this process's memory, bounded in bytes. Alone it is for one process that shares with nobody."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kaizen.core.errors import StoreError
from kaizen.core.protocols import CacheSize
from kaizen.core.scope import Scope

# What an entry takes beside its value: keys, times, places in dicts. Else a million empty values would be free.
OVERHEAD: Final = 256
# Invalidations remembered for a scope by their tags; beyond that only how many there were.
_REMEMBERED: Final = 4096

_Place: TypeAlias = tuple[Scope, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    until: float | None
    tags: tuple[str, ...]
    size: int


@dataclass(slots=True)
class _Shelf:
    """What one scope has."""

    bytes: int = 0
    keys: set[str] = field(default_factory=set[str])
    tagged: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    epoch: int = 0
    floor: int = 0  # nothing that was begun before this epoch is kept
    invalidated: dict[str, int] = field(default_factory=dict[str, int])


class MemoryCache:
    """A Cache in dicts behind one lock. The entry that was not used for the longest time goes first.

    Every method is over at once: the plain ones are for whoever stands in front of another cache.

    Args:
        max_bytes: how much is kept, all scopes together: values, keys, tags and 256 bytes an entry.
        clock: seconds, for the time that entries have left.
    """

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max, self._clock = max_bytes, clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[_Place, _Entry] = OrderedDict()
        self._shelves: dict[Scope, _Shelf] = {}
        self._bytes = 0
        self._closed = False

    # -- the seam -----------------------------------------------------------------------------------

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        """The value, if it is still there."""
        self._check_open()
        return self.find(scope, key)

    async def epoch(self, scope: Scope, /) -> int:
        """How often the scope was invalidated."""
        self._check_open()
        shelf = self._shelves.get(scope)
        return 0 if shelf is None else shelf.epoch

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
        """Keep a value. One that is larger than the whole cache is not kept, and what it would replace goes."""
        self._check_open()
        self.keep(scope, key, value, ttl=ttl, tags=tags, since=since)

    async def invalidate(self, scope: Scope, tags: Sequence[str] | None = None, /) -> int:
        """Drop what carries any of the tags (all of the scope's for None); how many there were."""
        self._check_open()
        return self.drop(scope, tags)

    async def size(self, scope: Scope, /) -> CacheSize:
        """What it holds of a scope; what is too old goes first."""
        self._check_open()
        with self._lock:
            shelf = self._shelf(scope)
            now = self._clock()
            for key in list(shelf.keys):
                if _is_over(self._entries[scope, key], now):
                    self._forget((scope, key))
            return CacheSize(len(shelf.keys), shelf.bytes)

    async def close(self) -> None:
        """Drop everything."""
        with self._lock:
            self._closed = True
            self._entries.clear()
            self._shelves.clear()
            self._bytes = 0

    # -- at once ------------------------------------------------------------------------------------

    def find(self, scope: Scope, key: str) -> bytes | None:
        """``get``, at once."""
        place = (scope, key)
        with self._lock:
            entry = self._entries.get(place)
            if entry is None:
                return None
            if entry.until is not None and entry.until <= self._clock():
                self._forget(place)
                return None
            self._entries.move_to_end(place)
            return entry.value

    def keep(
        self,
        scope: Scope,
        key: str,
        value: bytes,
        *,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        since: int | None = None,
    ) -> None:
        """``put``, at once."""
        place, until = (scope, key), None if ttl is None else self._clock() + ttl
        size = OVERHEAD + len(value) + len(key) + sum(map(len, tags))
        with self._lock:
            shelf = self._shelf(scope)
            if since is not None and _invalidated(shelf, tags, since):
                return
            if place in self._entries:
                self._forget(place)
            if size > self._max or (ttl is not None and ttl <= 0):
                return
            self._entries[place] = _Entry(value, until, tuple(tags), size)
            shelf.keys.add(key)
            for tag in tags:
                shelf.tagged.setdefault(tag, set()).add(key)
            shelf.bytes += size
            self._bytes += size
            while self._bytes > self._max:
                self._forget(next(iter(self._entries)))

    def drop(self, scope: Scope, tags: Sequence[str] | None) -> int:
        """``invalidate``, at once."""
        with self._lock:
            shelf = self._shelf(scope)
            shelf.epoch += 1
            if tags is None or len(shelf.invalidated) + len(tags) > _REMEMBERED:
                shelf.floor = shelf.epoch
                shelf.invalidated.clear()
            else:
                shelf.invalidated.update(dict.fromkeys(tags, shelf.epoch))
            keys = shelf.keys if tags is None else {key for tag in tags for key in shelf.tagged.get(tag, ())}
            now = self._clock()
            there = 0
            for key in list(keys):
                there += not _is_over(self._entries[scope, key], now)
                self._forget((scope, key))
            return there

    # -- inside: whoever calls holds the lock -----------------------------------------------------------

    def _shelf(self, scope: Scope) -> _Shelf:
        shelf = self._shelves.get(scope)
        if shelf is None:
            shelf = self._shelves[scope] = _Shelf()
        return shelf

    def _forget(self, place: _Place) -> None:
        scope, key = place
        entry = self._entries.pop(place)
        shelf = self._shelves[scope]
        shelf.keys.discard(key)
        shelf.bytes -= entry.size
        self._bytes -= entry.size
        for tag in entry.tags:
            tagged = shelf.tagged.get(tag)
            if tagged is not None:
                tagged.discard(key)
                if not tagged:
                    del shelf.tagged[tag]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the cache is closed")


def _is_over(entry: _Entry, now: float) -> bool:
    return entry.until is not None and entry.until <= now


def _invalidated(shelf: _Shelf, tags: Sequence[str], since: int) -> bool:
    return since < shelf.floor or any(shelf.invalidated.get(tag, 0) > since for tag in tags)
