"""An archive in a SQLite file, for all processes of one machine."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from kaizen.core.artifact import Artifact, Head, Move, Version
from kaizen.core.errors import StoreError
from kaizen.core.scope import Scope
from kaizen.stores.registry.rows import (
    HEAD,
    MOVE,
    VERSION,
    move_row,
    moved_since,
    parents_text,
    to_head,
    to_move,
    to_version,
)
from kaizen.stores.schema import patiently, prepare, store_error

Result = TypeVar("Result")
_Print: TypeAlias = tuple[tuple[int, int, int], ...]  # of the file and what is not folded into it yet

_SETTLED_NS: Final = 1_000_000_000

# Migration n takes a file from version n to n + 1; what is released is never edited. A body comes last in its row, so
# that reading the rest of it does not read its pages.
_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE versions (
            place INTEGER PRIMARY KEY, tenant, environment, kind, name, number, version, parents, author, reason, at,
            size, body)""",
        "CREATE UNIQUE INDEX versions_number ON versions (tenant, environment, kind, name, number)",
        "CREATE UNIQUE INDEX versions_version ON versions (tenant, environment, kind, name, version)",
        """CREATE TABLE parents (
            tenant, environment, ref, child, PRIMARY KEY (tenant, environment, ref, child)) WITHOUT ROWID""",
        """CREATE TABLE moves (
            place INTEGER PRIMARY KEY, tenant, environment, id, kind, name, label, arms, actor, reason, at, undoes)""",
        "CREATE INDEX moves_name ON moves (tenant, environment, kind, name, label, place)",
        "CREATE TABLE states (tenant, environment, kind, count, PRIMARY KEY (tenant, environment, kind)) WITHOUT ROWID",
    ),
)

_OF: Final = "tenant = ? AND environment = ?"
_NAMED: Final = f"{_OF} AND kind = ? AND name = ?"
_SOME: Final = "tenant = ?1 AND environment = ?2 AND (?3 IS NULL OR kind = ?3) AND (?4 IS NULL OR name = ?4)"
_HEADS: Final = f"SELECT {HEAD} FROM versions WHERE {_SOME} ORDER BY kind, name, number"  # noqa: S608 - no values
_FIND: Final = f"SELECT {VERSION} FROM versions WHERE {_NAMED} AND version = ?"  # noqa: S608
_CHILDREN: Final = f"""
    SELECT {VERSION} FROM versions WHERE place IN (
        SELECT child FROM parents WHERE tenant = ?1 AND environment = ?2 AND ref = ?3)
    AND (?4 IS NULL OR kind = ?4) ORDER BY place"""  # noqa: S608
_NEWEST: Final = f"SELECT coalesce(max(number), 0) FROM versions WHERE {_NAMED}"  # noqa: S608
_PUT: Final = "INSERT INTO versions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PARENT: Final = "INSERT OR IGNORE INTO parents VALUES (?, ?, ?, ?)"
_LAST: Final = f"SELECT id FROM moves WHERE {_NAMED} AND label = ? ORDER BY place DESC LIMIT 1"  # noqa: S608
_ADD_MOVE: Final = "INSERT INTO moves VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_MOVES: Final = f"SELECT {MOVE} FROM moves WHERE {_SOME} ORDER BY place"  # noqa: S608
_COUNT: Final = """
    INSERT INTO states VALUES (?, ?, ?, 1)
    ON CONFLICT (tenant, environment, kind) DO UPDATE SET count = count + 1"""
_STATE: Final = f"SELECT count FROM states WHERE {_OF} AND kind = ?"  # noqa: S608


class SqliteArchive:
    """Versions and moves in one SQLite file, which several processes may use at once.

    The file is opened for each question, in a thread: questions are few (a change, or twice a second "has anything
    changed?"), and so nothing is held over a fork or by a loop that ended. A file that is not there holds nothing, and
    is made by the first change.

    Args:
        path: the file; its folder is made where it is missing.
        patience: seconds to wait for other processes' locks.
    """

    def __init__(self, path: Path, *, patience: float = 10.0) -> None:
        self._path, self._patience = path, patience
        self._states: dict[tuple[Scope, str], tuple[_Print, int]] = {}
        self._closed = False

    async def put(self, scope: Scope, artifact: Artifact, /, *, author: str, reason: str, at: float) -> Version:
        """Keep an artifact, unless it is there already."""
        whose = (scope.tenant, scope.environment)
        named = (*whose, artifact.kind, artifact.name)
        version = artifact.version

        def act(db: sqlite3.Connection) -> Version:
            row = db.execute(_FIND, (*named, version)).fetchone()
            if row is not None:
                return to_version(row)
            number: int = db.execute(_NEWEST, named).fetchone()[0] + 1
            about = (author, reason, at, len(artifact.body), artifact.body)
            place = db.execute(_PUT, (*named, number, version, parents_text(artifact), *about)).lastrowid
            db.executemany(_PARENT, [(*whose, ref, place) for ref in artifact.parents])
            db.execute(_COUNT, (*whose, artifact.kind))
            return Version(number, artifact, author, reason, at)

        return await self._change(act)

    async def heads(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Head]:
        """What there is."""
        return [to_head(row) for row in await self._rows(_HEADS, scope, kind, name)]

    async def find(self, scope: Scope, kind: str, name: str, version: str, /) -> Version | None:
        """One by its content address."""
        rows = await self._rows(_FIND, scope, kind, name, version)
        return to_version(rows[0]) if rows else None

    async def children(self, scope: Scope, ref: str, kind: str | None = None, /) -> Sequence[Version]:
        """Those that have it as a parent."""
        return [to_version(row) for row in await self._rows(_CHILDREN, scope, ref, kind)]

    async def move(self, scope: Scope, move: Move, /, *, since: str | None = None) -> None:
        """Keep a move."""
        whose = (scope.tenant, scope.environment)

        def act(db: sqlite3.Connection) -> None:
            if since is not None:
                last = db.execute(_LAST, (*whose, move.kind, move.name, move.label)).fetchone()
                if (last[0] if last else "") != since:
                    raise moved_since(move)
            db.execute(_ADD_MOVE, (*whose, *move_row(move)))
            db.execute(_COUNT, (*whose, move.kind))

        await self._change(act)

    async def moves(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Move]:
        """The moves, oldest first."""
        return [to_move(row) for row in await self._rows(_MOVES, scope, kind, name)]

    async def state(self, scope: Scope, kind: str, /) -> int:
        """How many versions and moves of a kind were added; the file is not opened while it stays as it is."""
        print_, key = _fingerprint(self._path), (scope, kind)
        known = self._states.get(key)
        if known is not None and known[0] == print_:
            return known[1]
        now = time.time_ns()
        rows = await self._rows(_STATE, scope, kind)
        count: int = rows[0][0] if rows else 0
        self._states.pop(key, None)
        # what is written in the same tick of the file system's clock would leave no trace
        if print_ and now - max(changed for _, _, changed in print_) > _SETTLED_NS:
            self._states[key] = (print_, count)
        return count

    async def close(self) -> None:
        """Refuse whatever comes after."""
        self._closed = True

    # -- inside -----------------------------------------------------------------------------------

    async def _rows(self, sql: str, scope: Scope, *values: Any) -> list[Any]:
        self._check()
        if not self._path.exists():  # to look must make nothing
            return []
        whose = (scope.tenant, scope.environment)
        return await asyncio.to_thread(self._use, lambda db: db.execute(sql, (*whose, *values)).fetchall())

    async def _change(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        self._check()

        def changed(db: sqlite3.Connection) -> Result:
            db.execute("PRAGMA synchronous = FULL")  # a release outlives the machine's end as well as the process's
            patiently(lambda: db.execute("BEGIN IMMEDIATE"), self._patience)
            try:
                result = act(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return result

        return await asyncio.to_thread(self._use, changed)

    def _check(self) -> None:
        if self._closed:
            raise StoreError(f"the registry {self._path} is closed")

    def _use(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            with _using, closing(prepare(self._path, self._patience, _MIGRATIONS)) as db:
                return act(db)
        except (sqlite3.Error, OSError) as error:
            raise store_error(self._path, error) from error


def _fingerprint(path: Path) -> _Print:
    found: list[tuple[int, int, int]] = []
    for part in (path, path.with_name(f"{path.name}-wal")):
        with suppress(OSError):
            status = part.stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


# SQLite notes in the process's memory which locks it holds. A fork in the middle of a question would have the child
# believe for ever that it holds one which it never had. So a fork waits until nobody asks.
_using = threading.Lock()
os.register_at_fork(before=_using.acquire, after_in_parent=_using.release, after_in_child=_using.release)
