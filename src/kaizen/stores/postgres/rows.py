"""Records as PostgreSQL has them: the tables, and the SQL made of the columns once.

Tables grow at their end: ids are time-ordered, so the keys of records go to the right edge of each tenant's part of
their index, and so do those of runs. The digests of payloads are random: their index is what an append pays for as it
outgrows memory. A ``since`` or ``until`` is found by a BRIN index, of a page for some million rows, since rows lie in
the order they came. The key of a record ends in its time-ordered id: a table partitioned by ranges of it can take this
one's place without another change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.stores.rows import FIELDS, Row, record_row, to_record

PART: Final = "ledger"
# "C": ids sort by their bytes, whatever the database's language
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE records (
            tenant text COLLATE "C" NOT NULL, environment text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
            kind text NOT NULL, ref text NOT NULL, run_id text COLLATE "C" NOT NULL,
            started_at double precision NOT NULL, parent_id text, step text NOT NULL, principal text NOT NULL,
            status text NOT NULL, latency_ms double precision NOT NULL, model text, params text, contract text,
            tokens_in bigint NOT NULL, tokens_out bigint NOT NULL, tokens_cached bigint NOT NULL,
            tokens_estimated boolean NOT NULL, cost_usd double precision, cache_tier text NOT NULL,
            attempts bigint NOT NULL, model_calls bigint NOT NULL, first_token_ms double precision,
            input_digest text, output_digest text, error_code text, error text, about text COLLATE "C",
            value double precision, task text, saved_usd double precision, stages text,
            PRIMARY KEY (tenant, environment, id))""",
        "CREATE INDEX records_run ON records (tenant, environment, run_id, id)",
        "CREATE INDEX records_about ON records (tenant, environment, about, id) WHERE about IS NOT NULL",
        "CREATE INDEX records_time ON records USING brin (started_at) WITH (pages_per_range = 32)",
        """CREATE TABLE payloads (
            tenant text COLLATE "C" NOT NULL, environment text COLLATE "C" NOT NULL, digest text COLLATE "C" NOT NULL,
            data bytea NOT NULL, PRIMARY KEY (tenant, environment, digest))""",
    ),
    (
        "ALTER TABLE records ADD COLUMN version text",
        "ALTER TABLE records ADD COLUMN experiment text",
        "ALTER TABLE records ADD COLUMN subject text NOT NULL DEFAULT ''",
    ),
)

_TYPES: Final = {
    **dict.fromkeys(FIELDS, "text"),
    **dict.fromkeys(("started_at", "latency_ms", "cost_usd", "first_token_ms", "value", "saved_usd"), "float8"),
    **dict.fromkeys(("tokens_in", "tokens_out", "tokens_cached", "attempts", "model_calls"), "int8"),
    "tokens_estimated": "bool",
}
_COLUMNS: Final = ", ".join(f'"{name}"' for name in FIELDS)
_WIDTH: Final = 2 + len(FIELDS)
_ARRAYS: Final = ", ".join(
    f"${place}::{kind}[]" for place, kind in enumerate(("text", "text", *(_TYPES[name] for name in FIELDS)), 1)
)
_SCOPED: Final = "tenant = $1 AND environment = $2"
_EQUALS: Final = ("kind", "ref", "run_id", "status", "model", "params", "about", "version", "experiment")

# One statement for a whole group: one round trip, and all or nothing without a transaction round it.
APPEND: Final = f"""
    WITH kept AS (
        INSERT INTO payloads (tenant, environment, digest, data)
        SELECT * FROM unnest(
            ${_WIDTH + 1}::text[], ${_WIDTH + 2}::text[], ${_WIDTH + 3}::text[], ${_WIDTH + 4}::bytea[])
        ON CONFLICT DO NOTHING)
    INSERT INTO records (tenant, environment, {_COLUMNS}) SELECT * FROM unnest({_ARRAYS})"""  # noqa: S608 - columns are ours
RECORD: Final = f"SELECT {_COLUMNS} FROM records WHERE {_SCOPED} AND id = $3"  # noqa: S608
PAYLOAD: Final = f"SELECT data FROM payloads WHERE {_SCOPED} AND digest = $3"  # noqa: S608
ERASE: Final = f"DELETE FROM payloads WHERE {_SCOPED} AND ($3::text[] IS NULL OR digest = ANY($3))"  # noqa: S608


def append_values(records: Sequence[Row], payloads: Sequence[Row]) -> list[Sequence[Any]]:
    """The arrays for ``APPEND``, a column each.

    Payloads are in the order of their keys: two processes that add the same ones at once wait for each other in one
    order only.
    """
    columns: list[Sequence[Any]] = list(zip(*records, strict=True)) if records else [()] * _WIDTH
    others: list[Sequence[Any]] = list(zip(*sorted(payloads), strict=True)) if payloads else [()] * 4
    return [*columns, *others]


def row_of(scope: Scope, record: Record) -> Row:
    """A record's columns, the scope's first."""
    return tuple([escaped(value) if isinstance(value, str) else value for value in record_row(scope, record)])


def payload_of(scope: Scope, payload: Payload) -> Row:
    """A payload's columns."""
    return (escaped(scope.tenant), escaped(scope.environment), escaped(payload.digest), payload.data)


def record_of(scope: Scope, row: Sequence[Any]) -> Record:
    """The record that ``row_of`` made this of (without the scope's columns)."""
    return to_record(scope, tuple([plain(value) if isinstance(value, str) else value for value in row]))


def keys(*values: str) -> list[str]:
    """Values to look for."""
    return [escaped(value) for value in values]


def select(scope: Scope, query: RecordQuery, last: str | None, limit: int) -> tuple[str, list[Any]]:
    """One page of a query, going on after the record ``last``."""
    where, values = [_SCOPED], [*keys(scope.tenant, scope.environment)]
    bounds: list[tuple[str, Any]] = [(f'"{name}" = ', getattr(query, name)) for name in _EQUALS]
    bounds += [("started_at >= ", query.since), ("started_at < ", query.until), ("id > ", query.after)]
    bounds.append((f"id {'<' if query.newest_first else '>'} ", last))
    for condition, value in bounds:
        if value is not None:
            values.append(escaped(value) if isinstance(value, str) else value)
            where.append(f"{condition}${len(values)}")
    if query.root_only:
        where.append("parent_id IS NULL")
    order = "DESC" if query.newest_first else "ASC"
    sql = f"SELECT {_COLUMNS} FROM records WHERE {' AND '.join(where)} ORDER BY id {order} LIMIT {limit}"  # noqa: S608
    return sql, values


def escaped(text: str) -> str:
    r"""PostgreSQL's text can hold anything but NUL: ``\0`` stands for it, and so ``\\`` for a backslash."""
    if "\\" not in text and "\0" not in text:
        return text
    return text.replace("\\", "\\\\").replace("\0", "\\0")


def plain(text: str) -> str:
    """What ``escaped`` made this of."""
    if "\\" not in text:
        return text
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))
