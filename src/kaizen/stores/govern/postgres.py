"""A connection to PostgreSQL for keys and accounts, and the tables made at the first one."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it carries no types

from kaizen.core.errors import StoreError
from kaizen.stores.govern.postgres_schema import BATCH, SWEEP, TABLES
from kaizen.stores.loops import PerLoop

Connection: TypeAlias = Any  # asyncpg carries no types
_asyncpg: Any = asyncpg

_PREPARING: Final = 0x6B61697A656E  # whoever holds this advisory lock makes the tables
FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    ValueError,
)
Row: TypeAlias = Any  # a value for each column, in order


class Database:
    """One connection for each event loop, used by one call at a time; opened anew where it broke.

    Args:
        url: ``postgresql://...``; it may hold a password and is never shown.
        schema: where the tables are made.
        patience: seconds for one statement, and to connect.
        lasting: whether a commit waits until it is on disk.
    """

    def __init__(self, url: str, *, schema: str, patience: float, lasting: bool) -> None:
        self._url, self._schema, self._patience, self._lasting = url, schema, patience, lasting
        self._links = PerLoop(self._open, self._end)
        self._prepared = False

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        """The rows of a statement.

        Raises:
            StoreError: it failed; whether it was done is not known.
        """
        try:
            link = await self._links.get()
            async with link.turn:
                connection = link.connection
                if connection is None or connection.is_closed():
                    connection = link.connection = await self._connect()
                return await connection.fetch(sql, *values, timeout=self._patience)
        except asyncpg.UniqueViolationError:
            raise
        except FAILURES as error:
            raise _store_error(error) from None

    async def close(self) -> None:
        """Let go of this loop's connection; others close with their loops."""
        await self._links.close()

    async def _open(self) -> _Link:
        return _Link()

    async def _end(self, link: _Link) -> None:
        if link.connection is not None:
            await link.connection.close(timeout=self._patience)

    async def _connect(self) -> Connection:
        connection: Connection = await _asyncpg.connect(
            self._url,
            timeout=self._patience,
            server_settings={
                "application_name": "kaizen",
                "search_path": f'"{self._schema}"',
                "synchronous_commit": "on" if self._lasting else "off",
            },
        )
        try:
            if not self._prepared:
                await self._prepare(connection)
                self._prepared = True
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _prepare(self, connection: Connection) -> None:
        """Make the tables, or bring older ones up to date; several processes may do so at once."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _PREPARING)
            await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            await connection.execute("CREATE TABLE IF NOT EXISTS govern_version (version integer NOT NULL)")
            version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM govern_version")
            if version > len(TABLES):
                error = StoreError(
                    f"the tables in schema {self._schema} have version {version}; this Kaizen knows {len(TABLES)}: "
                    "install a newer one"
                )
                error.retryable = False
                raise error
            if version == len(TABLES):
                return
            for part in TABLES[version:]:
                await connection.execute(part)
            await connection.execute(BATCH)
            await connection.execute(SWEEP)
            await connection.execute("DELETE FROM govern_version")
            await connection.execute("INSERT INTO govern_version VALUES ($1)", len(TABLES))


class _Link:
    """A loop's connection."""

    __slots__ = ("connection", "turn")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.turn = asyncio.Lock()


def _store_error(error: Exception) -> StoreError:
    text = " ".join((str(error) or type(error).__name__).split())
    return StoreError(f"the database of keys and limits: {text}")
