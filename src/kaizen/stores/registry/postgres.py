"""An archive in PostgreSQL, for many workers and machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kaizen.core.artifact import Artifact, Head, Move, Version
from kaizen.core.scope import Scope
from kaizen.stores.postgres.database import Database, Row
from kaizen.stores.postgres.rows import escaped, plain
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

# Both functions begin by locking the row that counts the scope's changes of the kind, so changes come one after another
# and each statement after it sees what the one before did: numbers have no gaps, and ``place`` is their order.
_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE registry_states (
            tenant text COLLATE "C" NOT NULL, environment text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL,
            count bigint NOT NULL, PRIMARY KEY (tenant, environment, kind))""",
        """CREATE TABLE registry_versions (
            place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tenant text COLLATE "C" NOT NULL, environment text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL,
            name text COLLATE "C" NOT NULL, number bigint NOT NULL, version text COLLATE "C" NOT NULL,
            parents text NOT NULL, refs text[] COLLATE "C" NOT NULL, author text NOT NULL, reason text NOT NULL,
            at double precision NOT NULL, size bigint NOT NULL, body bytea NOT NULL,
            UNIQUE (tenant, environment, kind, name, number), UNIQUE (tenant, environment, kind, name, version))""",
        "CREATE INDEX registry_parents ON registry_versions USING gin (refs)",
        """CREATE TABLE registry_moves (
            place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tenant text COLLATE "C" NOT NULL, environment text COLLATE "C" NOT NULL, id text NOT NULL,
            kind text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, label text COLLATE "C" NOT NULL,
            arms text NOT NULL, actor text NOT NULL, reason text NOT NULL, at double precision NOT NULL,
            undoes text NOT NULL)""",
        "CREATE INDEX registry_moves_name ON registry_moves (tenant, environment, kind, name, label, place)",
        """CREATE FUNCTION registry_turn(of_tenant text, of_environment text, of_kind text) RETURNS void
        LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO registry_states VALUES (of_tenant, of_environment, of_kind, 0) ON CONFLICT DO NOTHING;
            PERFORM count FROM registry_states WHERE tenant = of_tenant AND environment = of_environment
                AND kind = of_kind FOR UPDATE;
        END $$""",
        """CREATE FUNCTION registry_put(
            of_tenant text, of_environment text, of_kind text, of_name text, new_version text, new_parents text,
            new_refs text[], new_author text, new_reason text, new_at double precision, new_body bytea)
        RETURNS SETOF registry_versions LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM registry_turn(of_tenant, of_environment, of_kind);
            RETURN QUERY SELECT * FROM registry_versions v WHERE v.tenant = of_tenant
                AND v.environment = of_environment AND v.kind = of_kind AND v.name = of_name
                AND v.version = new_version;
            IF FOUND THEN RETURN; END IF;
            UPDATE registry_states s SET count = s.count + 1
                WHERE s.tenant = of_tenant AND s.environment = of_environment AND s.kind = of_kind;
            RETURN QUERY INSERT INTO registry_versions
                (tenant, environment, kind, name, number, version, parents, refs, author, reason, at, size, body)
                SELECT of_tenant, of_environment, of_kind, of_name, coalesce(max(v.number), 0) + 1, new_version,
                    new_parents, new_refs, new_author, new_reason, new_at, length(new_body), new_body
                FROM registry_versions v WHERE v.tenant = of_tenant AND v.environment = of_environment
                    AND v.kind = of_kind AND v.name = of_name
                RETURNING *;
        END $$""",
        """CREATE FUNCTION registry_move(
            of_tenant text, of_environment text, new_id text, of_kind text, of_name text, of_label text,
            new_arms text, new_actor text, new_reason text, new_at double precision, new_undoes text, seen text)
        RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM registry_turn(of_tenant, of_environment, of_kind);
            IF seen IS NOT NULL AND seen <> coalesce((
                SELECT m.id FROM registry_moves m WHERE m.tenant = of_tenant AND m.environment = of_environment
                    AND m.kind = of_kind AND m.name = of_name AND m.label = of_label
                ORDER BY m.place DESC LIMIT 1), '')
            THEN
                RETURN false;
            END IF;
            UPDATE registry_states s SET count = s.count + 1
                WHERE s.tenant = of_tenant AND s.environment = of_environment AND s.kind = of_kind;
            INSERT INTO registry_moves
                (tenant, environment, id, kind, name, label, arms, actor, reason, at, undoes)
                VALUES (of_tenant, of_environment, new_id, of_kind, of_name, of_label, new_arms, new_actor,
                    new_reason, new_at, new_undoes);
            RETURN true;
        END $$""",
    ),
)

_OF: Final = "tenant = $1 AND environment = $2"
_SOME: Final = f"{_OF} AND ($3::text IS NULL OR kind = $3) AND ($4::text IS NULL OR name = $4)"
_PUT: Final = f"SELECT {VERSION} FROM registry_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"  # noqa: S608 - no values
_HEADS: Final = f"SELECT {HEAD} FROM registry_versions WHERE {_SOME} ORDER BY kind, name, number"  # noqa: S608
_FIND: Final = f"""
    SELECT {VERSION} FROM registry_versions WHERE {_OF} AND kind = $3 AND name = $4 AND version = $5"""  # noqa: S608
_CHILDREN: Final = f"""
    SELECT {VERSION} FROM registry_versions WHERE {_OF} AND refs @> ARRAY[$3::text]
        AND ($4::text IS NULL OR kind = $4) ORDER BY place"""  # noqa: S608
_MOVE: Final = "SELECT registry_move($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
_MOVES: Final = f"SELECT {MOVE} FROM registry_moves WHERE {_SOME} ORDER BY place"  # noqa: S608
_STATE: Final = f"SELECT count FROM registry_states WHERE {_OF} AND kind = $3"  # noqa: S608


class PostgresArchive:
    """Versions and moves in tables of PostgreSQL.

    Args:
        url: the database; it may hold a password and is never shown.
        schema: where its tables are made.
        patience: seconds before a call fails.
    """

    def __init__(self, url: str, *, schema: str = "kaizen", patience: float = 10.0) -> None:
        self._database = Database(url, schema=schema, part="registry", migrations=_MIGRATIONS, patience=patience)

    async def put(self, scope: Scope, artifact: Artifact, /, *, author: str, reason: str, at: float) -> Version:
        """Keep an artifact, unless it is there already."""
        refs = [escaped(ref) for ref in artifact.parents]
        rows = await self._ask(
            _PUT,
            scope,
            artifact.kind,
            artifact.name,
            artifact.version,
            parents_text(artifact),
            refs,
            author,
            reason,
            at,
            artifact.body,
        )
        return to_version(rows[0])

    async def heads(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Head]:
        """What there is."""
        return [to_head(row) for row in await self._ask(_HEADS, scope, kind, name)]

    async def find(self, scope: Scope, kind: str, name: str, version: str, /) -> Version | None:
        """One by its content address."""
        rows = await self._ask(_FIND, scope, kind, name, version)
        return to_version(rows[0]) if rows else None

    async def children(self, scope: Scope, ref: str, kind: str | None = None, /) -> Sequence[Version]:
        """Those that have it as a parent."""
        return [to_version(row) for row in await self._ask(_CHILDREN, scope, ref, kind)]

    async def move(self, scope: Scope, move: Move, /, *, since: str | None = None) -> None:
        """Keep a move."""
        (row,) = await self._ask(_MOVE, scope, *move_row(move), since)
        if not row[0]:
            raise moved_since(move)

    async def moves(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Move]:
        """The moves, oldest first."""
        return [to_move(row) for row in await self._ask(_MOVES, scope, kind, name)]

    async def state(self, scope: Scope, kind: str, /) -> int:
        """How many versions and moves of a kind were added."""
        rows = await self._ask(_STATE, scope, kind)
        return rows[0][0] if rows else 0

    async def close(self) -> None:
        """Let go of this loop's connections."""
        await self._database.close()

    async def _ask(self, sql: str, scope: Scope, *values: Any) -> list[Row]:
        whose = (scope.tenant, scope.environment)
        given = [escaped(value) if isinstance(value, str) else value for value in (*whose, *values)]
        rows = await self._database.fetch(sql, *given)
        return [tuple(plain(value) if isinstance(value, str) else value for value in row) for row in rows]
