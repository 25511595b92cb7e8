"""What keeps the SQLite file in shape behind the writers' backs: the payloads' addresses, erasure, the log.

Payloads are found by digest, and a digest is random: an index kept up by each append would dirty a page of it
for each payload. That was two fifths of the CPU of a lone append with four payloads, and of what it wrote to
disk (less as the table outgrows what is entered at once). So an append only adds rows to the end of ``payloads``,
and now and then ``index`` enters many of them into ``addresses`` at once. Until then a row is part of the tail:
those whose place is greater than ``upkeep.indexed``. Reading looks into both. A payload that was there already is
dropped when it would be entered a second time.

Places are handed out anew when the last rows are deleted, so whatever deletes rows also sets ``indexed`` back to
the last place in use; else a payload that takes one of those places would never be found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from kaizen.core.scope import Scope

ERASED_AT_ONCE: Final = 500
_INDEXED_AT_ONCE: Final = 2048  # a few milliseconds, for which other writers wait
_PASSES: Final = 8
_FRAMES_LEFT: Final = 128  # pages of 4 KiB
_FRAMES_MOST: Final = 64 * 1024
_EMPTYING_MS: Final = 40

_SCOPED: Final = "tenant = ? AND environment = ?"
_ENTER: Final = """
    INSERT OR IGNORE INTO addresses
    SELECT tenant, environment, digest, place FROM payloads WHERE place > ? AND place <= ? ORDER BY 1, 2, 3, 4"""
_DROP: Final = """
    DELETE FROM payloads WHERE place > ? AND place <= ? AND place != (
        SELECT place FROM addresses AS a
        WHERE a.tenant = payloads.tenant AND a.environment = payloads.environment AND a.digest = payloads.digest)"""
_MARK: Final = "UPDATE upkeep SET indexed = (SELECT coalesce(max(place), 0) FROM payloads WHERE place <= ?)"


def index(writer: sqlite3.Connection) -> bool:
    """Enter a bounded number of payloads of the tail; whether some may be left.

    Raises:
        sqlite3.Error: nothing has changed.
    """
    writer.execute("BEGIN IMMEDIATE")
    try:
        count = _index(writer)
        writer.execute("COMMIT")
    except BaseException:
        roll_back(writer)
        raise
    return count == _INDEXED_AT_ONCE


def erase(writer: sqlite3.Connection, scope: Scope, digests: Sequence[str] | None) -> int:
    """Delete at most ``ERASED_AT_ONCE`` payloads of a scope, of these digests or any; how many there were.

    Raises:
        sqlite3.Error: nothing has changed.
    """
    some, owner = "", (scope.tenant, scope.environment)
    if digests is not None:
        some = f"AND digest IN ({_marks(digests)})"
    which = f"SELECT digest, place FROM addresses WHERE {_SCOPED} {some} LIMIT {ERASED_AT_ONCE}"  # noqa: S608 - no values
    writer.execute("BEGIN IMMEDIATE")
    try:
        while _index(writer) == _INDEXED_AT_ONCE:
            pass
        found = writer.execute(which, (*owner, *(digests or ()))).fetchall()
        gone, places = [row[0] for row in found], [row[1] for row in found]
        writer.execute(f"DELETE FROM payloads WHERE place IN ({_marks(places)})", places)  # noqa: S608
        writer.execute(f"DELETE FROM addresses WHERE {_SCOPED} AND digest IN ({_marks(gone)})", (*owner, *gone))  # noqa: S608
        writer.execute(_MARK, (_last(writer),))
        writer.execute("COMMIT")
    except BaseException:
        roll_back(writer)
        raise
    return len(gone)


def fold(connection: sqlite3.Connection, *, shrink: bool) -> None:
    """Copy the write-ahead log into the file, and empty it where that can be done without delaying writers much.

    With ``shrink`` its contents leave the disk. Else it keeps its length and is written anew from its beginning,
    which takes half the CPU of making it grow again.

    Copying goes on beside the writers of all processes. Emptying keeps them waiting for two calls of fsync, so it
    is tried only when little is left to copy, or when the log has grown out of all proportion because writers never
    paused; and it gives up soon where others hold the lock, since it will be tried again.

    Raises:
        sqlite3.Error: the log is whole; trying again later is fine.
    """
    frames = left = 0
    for _ in range(_PASSES):
        busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy:  # another process is at it
            return
        left = frames - copied
        if left <= _FRAMES_LEFT:
            break
    if left > _FRAMES_LEFT and frames < _FRAMES_MOST:
        return
    connection.execute(f"PRAGMA busy_timeout = {_EMPTYING_MS}")
    how = "TRUNCATE" if shrink else "RESTART"
    busy, _, _ = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    if not busy:
        # The first write to an emptied log calls fsync. Make it here, on a thread.
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        with suppress(sqlite3.OperationalError):  # busy: somebody else makes it
            connection.execute(f"PRAGMA user_version = {version}")


def roll_back(writer: sqlite3.Connection) -> None:
    """End a transaction that failed."""
    if writer.in_transaction:  # a full disk has rolled back by itself
        writer.execute("ROLLBACK")


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _index(writer: sqlite3.Connection) -> int:
    start: int = writer.execute("SELECT indexed FROM upkeep").fetchone()[0]
    last = _last(writer)
    end = min(last, start + _INDEXED_AT_ONCE)
    if end <= start:
        return 0
    entered = writer.execute(_ENTER, (start, end)).rowcount
    if entered < end - start:
        writer.execute(_DROP, (start, end))
    if end == last:
        writer.execute(_MARK, (end,))
    else:  # rows follow, so no place up to here is handed out anew, and a part that is all doubles is passed
        writer.execute("UPDATE upkeep SET indexed = ?", (end,))
    return end - start


def _last(writer: sqlite3.Connection) -> int:
    return writer.execute("SELECT coalesce(max(place), 0) FROM payloads").fetchone()[0]
