"""Keys in PostgreSQL, for many workers and machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from asyncpg import UniqueViolationError  # pyright: ignore[reportMissingTypeStubs] - it carries no types

from kaizen.core.errors import Conflict
from kaizen.core.identity import Key
from kaizen.stores.govern.key_rows import COLUMNS, key_row, to_key
from kaizen.stores.govern.postgres import Database

_ADD: Final = f"INSERT INTO keys ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"  # noqa: S608 - no values
_FIND: Final = f"SELECT {COLUMNS} FROM keys WHERE id = $1"  # noqa: S608
_LIST: Final = f"SELECT {COLUMNS} FROM keys WHERE $1::text IS NULL OR tenant = $1 ORDER BY created_at, id"  # noqa: S608
_REVOKE: Final = "UPDATE keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL RETURNING id"
_ROTATE: Final = """
    UPDATE keys SET previous = digest, previous_until = $1, digest = $2
    WHERE id = $3 AND digest = $4 AND revoked_at IS NULL RETURNING id"""
_TOUCH: Final = "UPDATE keys SET last_used_at = $1 WHERE id = $2 AND coalesce(last_used_at, 0) < $1"


class PostgresKeys:
    """Keys in a table of PostgreSQL.

    Args:
        url: the database; it may hold a password and is never shown.
        schema: where its tables are made.
        patience: seconds before a call fails.
    """

    def __init__(self, url: str, *, schema: str = "kaizen_govern", patience: float = 10.0) -> None:
        self._database = Database(url, schema=schema, patience=patience, lasting=True)

    async def add(self, key: Key, /) -> None:
        """Keep a new key."""
        try:
            await self._database.fetch(_ADD, *key_row(key))
        except UniqueViolationError:
            raise Conflict(f"there is a key {key.id} already") from None

    async def find(self, key_id: str, /) -> Key | None:
        """One key."""
        rows = await self._database.fetch(_FIND, key_id)
        return to_key(rows[0]) if rows else None

    async def list(self, tenant: str | None, /) -> Sequence[Key]:
        """A tenant's keys, or everybody's, oldest first."""
        return [to_key(row) for row in await self._database.fetch(_LIST, tenant)]

    async def revoke(self, key_id: str, at: float, /) -> bool:
        """Note that it is good no longer; whether it was until now."""
        return bool(await self._database.fetch(_REVOKE, at, key_id))

    async def rotate(self, key_id: str, old: bytes, new: bytes, previous_until: float, /) -> bool:
        """Put a digest in another's place."""
        return bool(await self._database.fetch(_ROTATE, previous_until, new, key_id, old))

    async def touch(self, used: Mapping[str, float], /) -> None:
        """Note when keys were used last."""
        for key_id, at in used.items():
            await self._database.fetch(_TOUCH, at, key_id)

    async def close(self) -> None:
        """Let go of this loop's connection."""
        await self._database.close()
