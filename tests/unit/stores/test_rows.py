"""Any record becomes a row and comes back as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.stores import rows
from kaizen.stores.schema import MIGRATIONS, connect, prepare

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # SQLite takes no lone surrogates
count = st.integers(0, 2**63 - 1)
number = st.floats(allow_nan=False)
maybe = st.none() | text

any_record = st.builds(
    Record,
    id=text,
    kind=st.sampled_from(["program", "model", "score"]),
    ref=text,
    run_id=text,
    scope=st.builds(Scope, text, text),
    started_at=number,
    parent_id=maybe,
    step=text,
    principal=text,
    status=st.sampled_from(["ok", "error", "cancelled", "suspended"]),
    latency_ms=number,
    model=maybe,
    params=maybe,
    contract=maybe,
    tokens_in=count,
    tokens_out=count,
    tokens_cached=count,
    tokens_estimated=st.booleans(),
    cost_usd=st.none() | number,
    cache_tier=st.sampled_from(["model", "exact", "semantic", "step"]),
    attempts=count,
    model_calls=count,
    first_token_ms=st.none() | number,
    input_digest=maybe,
    output_digest=maybe,
    error_code=maybe,
    error=maybe,
    about=maybe,
    value=st.none() | number,
)


def memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for steps in MIGRATIONS:
        for sql in steps:
            connection.execute(sql)
    return connection


@given(any_record)
@settings(deadline=None)
def test_a_record_survives_the_table(record: Record) -> None:
    with closing(memory()) as connection:
        for sql, values in rows.record_inserts([rows.record_row(record.scope, record)]):
            connection.execute(sql, values)
        row = connection.execute(rows.RECORD, (record.scope.tenant, record.scope.environment, record.id)).fetchone()
        back = rows.to_record(record.scope, row)
    assert back == record
    for field in fields(Record):
        assert type(getattr(back, field.name)) is type(getattr(record, field.name))


def test_the_table_has_the_fields_of_a_record(tmp_path: Path) -> None:
    with closing(prepare(tmp_path / "x.db", 1)), closing(connect(tmp_path / "x.db", 1)) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(records)")}
    assert columns == {field.name for field in fields(Record)} - {"scope"} | {"tenant", "environment"}


def test_many_rows_go_in_few_statements() -> None:
    made = rows.record_inserts([(1, 2)] * (2 * rows.ROWS_A_STATEMENT + 1))
    assert [len(values) for _, values in made] == [2 * rows.ROWS_A_STATEMENT] * 2 + [2]
    assert rows.record_inserts([]) == []


def plan(query: RecordQuery, last: str | None = None) -> str:
    with closing(memory()) as connection:
        sql, values = rows.select(Scope(), query, last, 10)
        return "; ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))


def test_queries_find_by_index_and_never_sort() -> None:
    assert "records_about (tenant=? AND environment=? AND about=?" in plan(RecordQuery(about="r"))
    for query in (RecordQuery(), RecordQuery(about="r"), RecordQuery(newest_first=True)):
        for last in (None, "x"):
            found = plan(query, last)
            assert found.startswith("SEARCH records USING INDEX records_")
            assert "(tenant=? AND environment=?" in found
            assert ";" not in found  # a sort would be a second step


def test_a_run_is_found_by_two_indexes_and_never_sorted() -> None:
    for query in (RecordQuery(run_id="r"), RecordQuery(run_id="r", newest_first=True, kind="model", about="x")):
        for last in (None, "x"):
            found = plan(query, last)
            assert found.startswith("MERGE (UNION ALL); ")
            nested, lone = found.removeprefix("MERGE (UNION ALL); LEFT; ").split("; RIGHT; ")
            assert nested.startswith("SEARCH records USING INDEX records_run (tenant=? AND environment=? AND run_id=?")
            assert lone.startswith("SEARCH records USING INDEX records_id (tenant=? AND environment=? AND id=?")
            assert ";" not in nested + lone  # a sort would be another step
