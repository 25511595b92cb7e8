"""Points to find near ones by, in PostgreSQL with the extension pgvector (0.8 or newer)."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import Final

from kaizen.core.errors import StoreError
from kaizen.core.protocols import Neighbour
from kaizen.core.scope import Scope
from kaizen.stores.postgres.database import FAILURES, PREPARING, Connection, Database, store_error

_PART: Final = "vectors"
# The index has to know how many numbers a point has, so each length has a table of its own: see ``_table``.
_MIGRATIONS: Final = (("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public",),)
_MOST: Final = 2000  # numbers that an HNSW index takes
_REMOVED_AT_ONCE: Final = 10_000
_TIDY_EVERY_S: Final = 3600.0


class PgVectorIndex:
    """A VectorIndex in one PostgreSQL database.

    The points of a small space are compared one by one: the planner finds them by tenant, environment and space. For a
    large one it goes by an HNSW graph (Malkov and Yashunin, 2018) over the points of all tenants, which gives what is
    near, not surely the nearest; the search goes on until ``k`` of them are of the space that was asked about, or
    20,000 points were looked at (``hnsw.iterative_scan``), so another tenant's points cost time, never an answer.

    Args:
        url: ``postgresql://...``; it may hold a password and is never shown. The role may have to create the extension.
        schema: where the tables lie; it is made where it is missing.
        patience: seconds to connect, and for one statement.
        max_age: seconds after which points go: once an hour, whoever adds one then sees to it. None keeps them.
    """

    def __init__(
        self, url: str, *, schema: str = "kaizen", patience: float = 30.0, max_age: float | None = None
    ) -> None:
        self._database = Database(
            url, schema=schema, part=_PART, migrations=_MIGRATIONS, patience=patience, on_connect=_set_up
        )
        self._known: set[int] = set()
        self._max_age, self._tidy_at = max_age, 0.0

    async def add(self, scope: Scope, space: str, key: str, vector: bytes, /) -> None:
        """Keep a point under a key; one of that key is replaced, whatever its space was.

        Raises:
            StoreError: it can't be written, or is no point.
        """
        dim = await self._table(vector)
        sql = f"""INSERT INTO vectors_{dim} VALUES ($1, $2, $3, $4, $5, now()) ON CONFLICT (tenant, environment, key)
            DO UPDATE SET space = excluded.space, point = excluded.point, at = now()"""  # noqa: S608 - a number
        await self._do(sql, scope.tenant, scope.environment, key, space, vector)
        if self._max_age is not None and time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + _TIDY_EVERY_S
            sql = f"DELETE FROM vectors_{dim} WHERE at < now() - make_interval(secs => $1)"  # noqa: S608 - a number
            await self._do(sql, self._max_age)

    async def search(self, scope: Scope, space: str, vector: bytes, k: int, /) -> Sequence[Neighbour]:
        """The ``k`` nearest of this space, nearest first."""
        dim = await self._table(vector)
        sql = f"""SELECT key, 1 - (point <=> $4) FROM vectors_{dim}
            WHERE tenant = $1 AND environment = $2 AND space = $3 ORDER BY point <=> $4 LIMIT $5"""  # noqa: S608
        found = await self._database.fetch(sql, scope.tenant, scope.environment, space, vector, k)
        return [Neighbour(row[0], row[1]) for row in found]

    async def remove(self, scope: Scope, keys: Sequence[str], /) -> None:
        """Drop these; one that is not there is no error."""
        tables = await self._database.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'vectors\\_%'"
        )
        for (name,) in tables:
            sql = f"DELETE FROM {name} WHERE tenant = $1 AND environment = $2 AND key = ANY($3)"  # noqa: S608 - ours
            for at in range(0, len(keys), _REMOVED_AT_ONCE):
                await self._do(sql, scope.tenant, scope.environment, list(keys[at : at + _REMOVED_AT_ONCE]))

    async def close(self) -> None:
        """Let go of this loop's connections; those of other loops close with them."""
        await self._database.close()

    async def _table(self, vector: bytes) -> int:
        """The length of a point, whose table is there when this returns."""
        dim, left = divmod(len(vector), 4)
        if left or not 1 <= dim <= _MOST:
            raise StoreError(f"a point has 1 to {_MOST} numbers of four bytes, not {len(vector)} bytes")
        if dim not in self._known:
            await self._do(_table(dim))
            self._known.add(dim)
        return dim

    async def _do(self, sql: str, *values: object) -> None:
        try:
            await self._database.execute(sql, *values)
        except FAILURES as error:
            raise store_error(error) from None


def _table(dim: int) -> str:
    # one text, so one transaction: who comes at the same moment waits, and finds it made
    return f"""
        SELECT pg_advisory_xact_lock({PREPARING});
        CREATE TABLE IF NOT EXISTS vectors_{dim} (
            tenant text COLLATE "C" NOT NULL, environment text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
            space text COLLATE "C" NOT NULL, point vector({dim}) NOT NULL, at timestamptz NOT NULL,
            PRIMARY KEY (tenant, environment, key));
        CREATE INDEX IF NOT EXISTS vectors_{dim}_space ON vectors_{dim} (tenant, environment, space);
        CREATE INDEX IF NOT EXISTS vectors_{dim}_near ON vectors_{dim} USING hnsw (point vector_cosine_ops)"""


async def _set_up(connection: Connection) -> None:
    found = await connection.fetch(
        "SELECT nspname FROM pg_type JOIN pg_namespace n ON n.oid = typnamespace WHERE typname = 'vector'"
    )
    # somebody may have put the extension elsewhere, and its operators have to be found
    await connection.execute(
        "SELECT set_config('search_path', current_setting('search_path') || ', ' || quote_ident($1), false)",
        found[0][0],
    )
    await connection.execute("SET hnsw.iterative_scan = strict_order")
    # points are made of answers that are kept elsewhere: after a crash of the server some may be missing
    await connection.execute("SET synchronous_commit = off")
    await connection.set_type_codec("vector", schema=found[0][0], encoder=_encoded, decoder=_decoded, format="binary")


def _encoded(vector: bytes) -> bytes:
    """As pgvector sends points: their length, two bytes for later, and the numbers, all big endian."""
    return (len(vector) // 4).to_bytes(2) + b"\0\0" + _swapped(vector)


def _decoded(data: bytes) -> bytes:
    return _swapped(data[4:])


def _swapped(data: bytes) -> bytes:
    numbers = array("f")
    numbers.frombytes(data)
    numbers.byteswap()
    return numbers.tobytes()
