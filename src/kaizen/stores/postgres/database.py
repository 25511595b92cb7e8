"""Connections to a PostgreSQL database, and the tables made where they are missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeAlias

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it carries no types

from kaizen.core.errors import StoreError
from kaizen.stores.loops import PerLoop

Row: TypeAlias = Sequence[Any]


class Asked(Protocol):
    """What a connection and a pool of them can be asked."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        """PostgreSQL's word on what was done."""
        ...

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Row]:  # noqa: ASYNC109
        """The rows."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...

    def terminate(self) -> None:
        """Let go without a word."""
        ...


class Connection(Asked, Protocol):
    """One connection."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A transaction."""
        ...

    async def set_type_codec(
        self, typename: str, *, schema: str, encoder: Callable[..., Any], decoder: Callable[..., Any], format: str
    ) -> None:
        """How values of a type are written and read."""
        ...


_driver: Any = asyncpg
FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    UnicodeError,
    OverflowError,
    ValueError,
)
# With these the connection is gone, and nobody knows whether the statement was done.
LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what it says of a connection that was cut in the middle of a message
    OSError,
    TimeoutError,
)
PREPARING: Final = 0x6B61697A656E  # whoever holds this advisory lock makes the tables
_CONNECTIONS: Final = 8


class Database:
    """A pool of connections for each event loop; the first makes the tables.

    Args:
        url: ``postgresql://...``; it may hold a password and is never shown.
        schema: where the tables lie.
        part: names the tables among others in the schema.
        migrations: the statements that take the part from version n to n + 1; what is released is never edited.
        patience: seconds to connect, and for one statement.
        on_connect: called with each new connection.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        part: str,
        migrations: Sequence[Sequence[str]],
        patience: float,
        on_connect: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._url, self._schema, self._part, self._patience = url, schema, part, patience
        self._migrations, self._on_connect = migrations, on_connect
        self._pools: PerLoop[Asked] = PerLoop(self._open, _end)
        self._prepared = self._closed = False

    async def execute(self, sql: str, *values: Any) -> str:
        """Have a statement done; PostgreSQL's word on it, such as ``DELETE 3``.

        Raises:
            StoreError: the database is closed.
            asyncpg.PostgresError and the other FAILURES: it was refused, or can't be reached.
        """
        return await (await self._pool()).execute(sql, *values, timeout=self._patience)

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        """The rows of a query.

        Raises:
            StoreError: it can't be answered.
        """
        try:
            return await (await self._pool()).fetch(sql, *values, timeout=self._patience)
        except FAILURES as error:
            raise store_error(error) from None

    async def close(self) -> None:
        """Let go of this loop's connections; those of other loops close with them."""
        self._closed = True
        await self._pools.close()

    async def _pool(self) -> Asked:
        if self._closed:
            raise closed()
        return await self._pools.get()

    async def _open(self) -> Asked:
        if not self._prepared:
            await self._prepare()
            self._prepared = True
        return await _driver.create_pool(
            self._url,
            min_size=0,
            max_size=_CONNECTIONS,
            init=self._on_connect,
            # we leave no state behind, and the usual reset is a round trip after every statement
            reset=_nothing,
            timeout=self._patience,
            server_settings={"application_name": "kaizen", "search_path": f'"{self._schema}", public'},
        )

    async def _prepare(self) -> None:
        """Bring the tables up to date. Several processes may do so at once."""
        connection: Connection = await _driver.connect(self._url, timeout=self._patience)
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", PREPARING)
                await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
                await connection.execute(f'SET LOCAL search_path = "{self._schema}", public')
                await connection.execute(
                    "CREATE TABLE IF NOT EXISTS versions (part text PRIMARY KEY, version integer NOT NULL)"
                )
                found = await connection.fetch("SELECT version FROM versions WHERE part = $1", self._part)
                version: int = found[0][0] if found else 0
                if version > len(self._migrations):
                    error = StoreError(
                        f"the tables {self._part} have version {version}; this Kaizen knows {len(self._migrations)}: "
                        "install a newer one"
                    )
                    error.retryable = False
                    raise error
                for steps in self._migrations[version:]:
                    for sql in steps:
                        await connection.execute(sql)
                await connection.execute(
                    "INSERT INTO versions VALUES ($1, $2) ON CONFLICT (part) DO UPDATE SET version = excluded.version",
                    self._part,
                    len(self._migrations),
                )
        finally:
            await connection.close()


def store_error(error: BaseException) -> StoreError:
    """The house's error for what the database or the way to it said: no values, no address."""
    said = str(error).splitlines()[0] if isinstance(error, asyncpg.PostgresError) and str(error) else ""
    made = StoreError(f"the database: {type(error).__name__}{': ' if said else ''}{said}")
    made.retryable = isinstance(error, (*LOST, asyncpg.OperatorInterventionError, asyncpg.InsufficientResourcesError))
    return made


def closed() -> StoreError:
    """For who uses a closed one."""
    return StoreError("the record store in PostgreSQL is closed")


async def _end(pool: Asked) -> None:
    await pool.close()


async def _nothing(connection: Connection) -> None:
    pass
