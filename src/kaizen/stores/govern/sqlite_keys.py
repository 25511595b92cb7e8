"""Keys in a SQLite file, for all processes of one machine."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from kaizen.core.errors import Conflict, StoreError
from kaizen.core.identity import Key
from kaizen.stores.govern.file import open_file
from kaizen.stores.govern.key_rows import COLUMNS, key_row, to_key
from kaizen.stores.schema import is_busy, patiently, store_error

Result = TypeVar("Result")

_FIND: Final = f"SELECT {COLUMNS} FROM keys WHERE id = ?"  # noqa: S608 - no values
_LIST: Final = f"SELECT {COLUMNS} FROM keys WHERE ?1 IS NULL OR tenant = ?1 ORDER BY created_at, id"  # noqa: S608
_ADD: Final = "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REVOKE: Final = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
_ROTATE: Final = """
    UPDATE keys SET previous = digest, previous_until = ?, digest = ?
    WHERE id = ? AND digest = ? AND revoked_at IS NULL"""
_TOUCH: Final = "UPDATE keys SET last_used_at = ?1 WHERE id = ?2 AND coalesce(last_used_at, 0) < ?1"


class SqliteKeys:
    """Keys in one SQLite file, which several processes may use at once.

    One key is read on the loop: a row found by its id, from memory mostly, in some microseconds. All else goes to a
    thread.

    Args:
        path: the file; its folder is made where it is missing.
        patience: seconds to wait for other processes' locks.
    """

    def __init__(self, path: Path, *, patience: float = 10.0) -> None:
        self._path, self._patience = path, patience
        self._connection: sqlite3.Connection | None = None
        self._using = threading.Lock()
        self._closed = False

    async def add(self, key: Key, /) -> None:
        """Keep a new key."""
        try:
            await self._change(_ADD, key_row(key))
        except sqlite3.IntegrityError:
            raise Conflict(f"there is a key {key.id} already") from None

    async def find(self, key_id: str, /) -> Key | None:
        """One key."""
        connection = self._connection
        if connection is not None and self._using.acquire(blocking=False):
            try:
                row = connection.execute(_FIND, (key_id,)).fetchone()
                return None if row is None else to_key(row)
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise store_error(self._path, error) from error
            finally:
                self._using.release()
        rows = await self._rows(_FIND, (key_id,))
        return to_key(rows[0]) if rows else None

    async def list(self, tenant: str | None, /) -> Sequence[Key]:
        """A tenant's keys, or everybody's, oldest first."""
        return [to_key(row) for row in await self._rows(_LIST, (tenant,))]

    async def revoke(self, key_id: str, at: float, /) -> bool:
        """Note that it is good no longer; whether it was until now."""
        return await self._change(_REVOKE, (at, key_id)) > 0

    async def rotate(self, key_id: str, old: bytes, new: bytes, previous_until: float, /) -> bool:
        """Put a digest in another's place."""
        return await self._change(_ROTATE, (previous_until, new, key_id, old)) > 0

    async def touch(self, used: Mapping[str, float], /) -> None:
        """Note when keys were used last."""
        for key_id, at in used.items():
            await self._change(_TOUCH, (at, key_id))

    async def close(self) -> None:
        """Let go of the file."""
        await asyncio.to_thread(self._let_go)

    # -- inside -----------------------------------------------------------------------------------

    async def _rows(self, sql: str, values: Sequence[Any]) -> Sequence[Any]:
        return await asyncio.to_thread(self._use, lambda connection: connection.execute(sql, values).fetchall())

    async def _change(self, sql: str, values: Sequence[Any]) -> int:
        return await asyncio.to_thread(self._use, lambda connection: connection.execute(sql, values).rowcount)

    def _use(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            with self._using:
                if self._closed:
                    raise StoreError(f"{self._path} is closed")
                if self._connection is None:
                    self._connection = open_file(self._path, self._patience)
                connection = self._connection
                return patiently(lambda: act(connection), self._patience)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise store_error(self._path, error) from error

    def _let_go(self) -> None:
        with self._using:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
            self._connection = None
