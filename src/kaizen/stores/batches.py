"""Which call went into which batch of a vendor's: a small SQLite file that outlives the process. Ids, no contents."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

from kaizen.core.scope import Scope
from kaizen.stores.schema import store_error

Result = TypeVar("Result")

# Vendors keep a batch's results for four weeks.
_KEPT_S: Final = 28 * 86_400.0
_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS batches (
        tenant, environment, batch, provider, batch_id, begun, touched, PRIMARY KEY (tenant, environment, batch)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS calls (
        tenant, environment, key, batch, call, PRIMARY KEY (tenant, environment, key)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS calls_batch ON calls (tenant, environment, batch)",
)


class BatchFile:
    """A ``Book`` in a file, for all processes of a machine that use it.

    What is written survives the machine's end as well as the process's: this is money. It is opened for each
    question, so that nothing is held over a fork, and forgets what is older than four weeks.

    Args:
        path: the file; made when first needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def place(self, scope: Scope, key: str, /) -> tuple[str, str] | None:
        """The batch that a call is in, and its id there."""
        row = await self._one(
            "SELECT batch, call FROM calls WHERE tenant = ? AND environment = ? AND key = ?", scope, key
        )
        return None if row is None else (row[0], row[1])

    async def intend(self, scope: Scope, batch: str, provider: str, calls: Mapping[str, str], /) -> None:
        """A batch is about to be handed in; calls that were in another are in this one now."""
        now, whose = time.time(), (scope.tenant, scope.environment)

        def write(db: sqlite3.Connection) -> None:
            old = "SELECT batch FROM batches WHERE tenant = ? AND environment = ? AND begun < ?"
            gone = (*whose, *whose, now - _KEPT_S)
            db.execute(f"DELETE FROM calls WHERE tenant = ? AND environment = ? AND batch IN ({old})", gone)  # noqa: S608 - a constant
            db.execute("DELETE FROM batches WHERE tenant = ? AND environment = ? AND begun < ?", gone[2:])
            db.execute("INSERT INTO batches VALUES (?, ?, ?, ?, NULL, ?, ?)", (*whose, batch, provider, now, now))
            rows = [(*whose, key, batch, call) for key, call in calls.items()]
            db.executemany("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?)", rows)

        await self._do(write)

    async def touch(self, scope: Scope, batch: str, /) -> None:
        """It is still being handed in."""
        await self._run("UPDATE batches SET touched = ?", scope, batch, time.time())

    async def submitted(self, scope: Scope, batch: str, batch_id: str, /) -> None:
        """It is in, under the vendor's id."""
        await self._run("UPDATE batches SET batch_id = ?", scope, batch, batch_id)

    async def batch(self, scope: Scope, batch: str, /) -> tuple[str | None, float, float] | None:
        """The vendor's id (None while that is not known), and the Unix seconds of ``intend`` and the last touch."""
        sql = "SELECT batch_id, begun, touched FROM batches WHERE tenant = ? AND environment = ? AND batch = ?"
        row = await self._one(sql, scope, batch)
        return None if row is None else (row[0], row[1], row[2])

    async def known(self, scope: Scope, provider: str, /) -> Collection[str]:
        """The vendor's ids of all batches that are known to be in, this scope's or not: they are nobody else's."""
        sql = "SELECT batch_id FROM batches WHERE provider = ? AND batch_id IS NOT NULL"
        return await self._do(lambda db: {row[0] for row in db.execute(sql, (provider,))})

    async def drop(self, scope: Scope, batch: str, touched: float | None = None, /) -> bool:
        """Forget a batch that was not handed in; not if it is in, or was touched since ``touched``."""
        whose = (scope.tenant, scope.environment, batch)
        where = " WHERE tenant = ? AND environment = ? AND batch = ?"

        def write(db: sqlite3.Connection) -> bool:
            unsent = f"DELETE FROM batches{where} AND batch_id IS NULL AND (? IS NULL OR touched = ?)"  # noqa: S608 - a constant
            if not db.execute(unsent, (*whose, touched, touched)).rowcount:
                return False
            db.execute(f"DELETE FROM calls{where}", whose)  # noqa: S608 - a constant
            return True

        return await self._do(write)

    async def release(self, scope: Scope, key: str, /) -> int:
        """Forget one call, which is asked in another way; how many its batch has left."""
        whose = (scope.tenant, scope.environment)

        def write(db: sqlite3.Connection) -> int:
            sql = "DELETE FROM calls WHERE tenant = ? AND environment = ? AND key = ? RETURNING batch"
            gone = db.execute(sql, (*whose, key)).fetchone()
            if gone is None:
                return 0
            sql = "SELECT count(*) FROM calls WHERE tenant = ? AND environment = ? AND batch = ?"
            return db.execute(sql, (*whose, gone[0])).fetchone()[0]

        return await self._do(write)

    # -- inside -----------------------------------------------------------------------------------

    async def _one(self, sql: str, scope: Scope, name: str) -> tuple[Any, ...] | None:
        return await self._do(lambda db: db.execute(sql, (scope.tenant, scope.environment, name)).fetchone())

    async def _run(self, sql: str, scope: Scope, batch: str, value: str | float) -> None:
        sql += " WHERE tenant = ? AND environment = ? AND batch = ?"
        await self._do(lambda db: db.execute(sql, (value, scope.tenant, scope.environment, batch)).close())

    async def _do(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        return await asyncio.to_thread(self._act, act)

    def _act(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=30.0)) as db:
                db.execute("PRAGMA synchronous = FULL")
                with db:
                    db.execute("BEGIN IMMEDIATE")
                    for statement in _SCHEMA:
                        db.execute(statement)
                    return act(db)
        except (sqlite3.Error, OSError) as error:
            raise store_error(self._path, error) from error
