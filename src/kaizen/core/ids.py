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


def new_id() -> str:
    """A UUID version 7 (RFC 9562) in its 36-character form; ids of one process sort in the order they were made.

    48 bits of Unix milliseconds, then 12 bits of the fraction of the millisecond (RFC 9562, method 3),
    bumped where two calls fall on the same tick, then 62 random bits.
    """
    global _last
    now = time.time_ns()
    tick = (now // 1_000_000 << 12) | (now % 1_000_000 * 4096 // 1_000_000)
    with _lock:
        tick = _last = tick if tick > _last else _last + 1
    high = (tick >> 12) << 16 | 0x7000 | (tick & 0xFFF)
    low = 1 << 63 | (int.from_bytes(os.urandom(8)) & _MASK_62)
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def digest(data: bytes, *, key: bytes = b"") -> str:
    """The content address of bytes: BLAKE2b, 128 bits, 32 hexadecimal digits; keyed when ``key`` is given."""
    return hashlib.blake2b(data, digest_size=16, key=key).hexdigest()
