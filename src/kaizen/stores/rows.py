"""Records as rows: columns taken from the dataclass once, and the SQL made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, Final, TypeAlias

from pydantic_core import from_json, to_json

from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.request import Stage
from kaizen.core.scope import Scope

Row: TypeAlias = tuple[Any, ...]

# ``scope`` becomes the two leading columns; every other field is a column of its own name.
FIELDS: Final = tuple(field.name for field in fields(Record) if field.name != "scope")
_FLAGS: Final = tuple(
    place for place, field in enumerate(f for f in fields(Record) if f.name != "scope") if field.type == "bool"
)
_COLUMNS: Final = ", ".join(f'"{name}"' for name in FIELDS)
_STAGES: Final = FIELDS.index("stages")
_values: Callable[[Record], Row] = attrgetter(*FIELDS)

_SCOPED: Final = "tenant = ? AND environment = ?"
_EQUALS: Final = ("kind", "ref", "run_id", "status", "model", "params", "about", "version", "experiment")

# A statement carries this many rows at most. One statement for many rows, and not a statement for each:
# SQLite gives up the interpreter lock at every step and gets it back up to 5 ms later when another thread
# is busy, all the while holding the write lock that other processes wait for.
ROWS_A_STATEMENT: Final = 32

RECORD: Final = f"SELECT {_COLUMNS} FROM records WHERE {_SCOPED} AND id = ?"  # noqa: S608 - columns are ours
# Named parameters: the address and the tail are asked for the same thing.
PAYLOAD: Final = """
    SELECT data FROM payloads WHERE place = (
        SELECT place FROM addresses WHERE tenant = :tenant AND environment = :environment AND digest = :digest)
    UNION ALL
    SELECT data FROM payloads WHERE place > (SELECT indexed FROM upkeep)
        AND tenant = :tenant AND environment = :environment AND digest = :digest
    LIMIT 1"""


def record_row(scope: Scope, record: Record) -> Row:
    """A record's columns, the scope's first."""
    values = _values(record)
    stages = to_json(record.stages).decode() if record.stages else None
    return (scope.tenant, scope.environment, *values[:_STAGES], stages, *values[_STAGES + 1 :])


def payload_row(scope: Scope, payload: Payload) -> Row:
    """A payload's columns."""
    return (scope.tenant, scope.environment, payload.digest, payload.data)


def to_record(scope: Scope, row: Row) -> Record:
    """The record that ``record_row`` made this of (without the scope's columns)."""
    values = dict(zip(FIELDS, row, strict=True))
    for place in _FLAGS:
        values[FIELDS[place]] = bool(row[place])
    kept = values["stages"]
    values["stages"] = tuple(Stage(**stage) for stage in from_json(kept)) if kept else ()
    return Record(scope=scope, **values)


def record_inserts(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Statements that insert these records; an id that is there already fails."""
    return _statements(f"INSERT INTO records (tenant, environment, {_COLUMNS})", rows)


def payload_inserts(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Statements that add these payloads to the tail; ``stores.upkeep`` drops those that were there already."""
    return _statements("INSERT INTO payloads (tenant, environment, digest, data)", rows)


def select(scope: Scope, query: RecordQuery, last: str | None, limit: int) -> tuple[str, Row]:
    """One page of a query, going on after the record ``last``.

    A run and the records about a record are found by index; other conditions are checked on every row from
    ``after`` (or ``last``) on.
    """
    where: list[str] = [_SCOPED]
    values: list[Any] = [scope.tenant, scope.environment]
    bounds: list[tuple[str, Any]] = [(f'"{name}" = ?', getattr(query, name)) for name in _EQUALS]
    bounds += [("started_at >= ?", query.since), ("started_at < ?", query.until), ("id > ?", query.after)]
    bounds.append((f"id {'<' if query.newest_first else '>'} ?", last))
    for condition, value in bounds:
        if value is not None:
            where.append(condition)
            values.append(value)
    if query.root_only:
        where.append("parent_id IS NULL")
    order = "DESC" if query.newest_first else "ASC"
    sql = f"SELECT {_COLUMNS} FROM records WHERE {' AND '.join(where)}"  # noqa: S608
    if query.run_id is not None:  # the index of runs lacks the record that has its run's id
        sql, values = f"{sql} AND run_id != id UNION ALL {sql} AND id = ?", [*values, *values, query.run_id]
    return f"{sql} ORDER BY id {order} LIMIT ?", (*values, limit)


def _statements(into: str, rows: Sequence[Row]) -> list[tuple[str, Row]]:
    made: list[tuple[str, Row]] = []
    for start in range(0, len(rows), ROWS_A_STATEMENT):
        part = rows[start : start + ROWS_A_STATEMENT]
        made.append((_insert(into, len(part[0]), len(part)), tuple(chain.from_iterable(part))))
    return made


@lru_cache(maxsize=4 * ROWS_A_STATEMENT)
def _insert(into: str, width: int, rows: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{into} VALUES {', '.join([row] * rows)}"
