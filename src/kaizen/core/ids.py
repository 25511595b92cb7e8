"""Ids and digests: time-ordered UUIDs and short content addresses."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import Final

_MASK_62: Final = (1 << 62) - 1
_lock = threading.Lock()
_last = 0
# Drawn many at once, since each word with the system costs as much as all the rest of an id.
_DRAWN: Final = 4096
_random = b""
_drawn = 0


def new_id() -> str:
    """A UUID version 7 (RFC 9562) in its 36-character form; ids of one process sort in the order they were made.

    48 bits of Unix milliseconds, then 12 bits of the fraction of the millisecond (RFC 9562, method 3),
    bumped where two calls fall on the same tick, then 62 random bits.
    """
    global _last, _random, _drawn
    now = time.time_ns()
    tick = (now // 1_000_000 << 12) | (now % 1_000_000 * 4096 // 1_000_000)
    with _lock:
        tick = _last = tick if tick > _last else _last + 1
        if _drawn == len(_random):
            _random, _drawn = os.urandom(_DRAWN), 0
        drawn = _random[_drawn : _drawn + 8]
        _drawn += 8
    high = (tick >> 12) << 16 | 0x7000 | (tick & 0xFFF)
    low = 1 << 63 | (int.from_bytes(drawn) & _MASK_62)
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _draw_anew() -> None:
    """In a forked child: its parent draws the same ones, and may hold the lock for ever."""
    global _lock, _random, _drawn
    _lock, _random, _drawn = threading.Lock(), b"", 0


os.register_at_fork(after_in_child=_draw_anew)


def digest(data: bytes, *, key: bytes = b"") -> str:
    """The content address of bytes: BLAKE2b, 128 bits, 32 hexadecimal digits; keyed when ``key`` is given."""
    return hashlib.blake2b(data, digest_size=16, key=key).hexdigest()
