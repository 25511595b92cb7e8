"""Labelled rows from files: what fits, and what is said of what does not."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, Literal

import duckdb
import pytest

from kaizen import Signature, context
from kaizen.core.errors import ConfigError, InvalidInput
from kaizen.learn.data import parquet
from kaizen.learn.data.rows import Row, line_of, plain_values, read_rows


class Ticket(Signature):
    """File a ticket."""

    text: str = context.input("what was written")
    tries: int = context.input("how often", default=1)
    thought: str = context.intermediate("a thought")
    team: Literal["cards", "transfers"] = context.output("the team")
    due: datetime.date | None = context.output("when it is due")


def rows_of(tmp_path: Path, lines: list[dict[str, Any]], **how: Any) -> tuple[Row, ...]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return read_rows(path, Ticket.spec, **how)


def test_columns_go_where_the_contract_says(tmp_path: Path) -> None:
    line = {"text": "hi", "team": "cards", "due": "2031-02-03", "thought": "easy", "id": 7, "_group": "ada"}
    (row,) = rows_of(tmp_path, [line])
    assert row.inputs == {"text": "hi"}
    assert row.outputs == {"team": "cards", "due": "2031-02-03", "thought": "easy"}
    assert (row.group, row.others) == ("ada", {"id": 7})
    assert line_of(row) == line


def test_a_column_called_group_is_one_where_it_is_no_field(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, [{"text": "hi", "team": "cards", "group": 12}])
    assert (row.group, row.others) == ("12", {})


def test_a_row_may_lack_outputs_but_not_all_of_them(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, [{"text": "hi", "due": None}])
    assert row.outputs == {"due": None}
    with pytest.raises(InvalidInput, match=r"rows.jsonl:1 \(row 1\): no output: one of 'team', 'due' has to be there"):
        rows_of(tmp_path, [{"text": "hi"}])
    (unlabelled,) = rows_of(tmp_path, [{"text": "hi"}], labelled=False)
    assert unlabelled.outputs == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"team": "cards"}, "no input 'text'"),
        ({"txt": "hi", "team": "cards"}, r"no input 'text'; did you mean 'txt' by it\? \(--rename txt=text\)"),
        ({"number": 1, "team": "cards"}, "no input 'text'; other columns: number"),
        ({"text": "hi", "team": "card"}, "output 'team' = 'card': Input should be 'cards' or 'transfers'"),
        ({"text": 5, "team": "cards"}, "input 'text' = 5"),
        ({"text": "hi", "teem": "cards"}, "did you mean 'teem'"),
    ],
)
def test_what_does_not_fit_is_said_with_its_line(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as error:
        rows_of(tmp_path, [{"text": "a", "team": "cards"}, line])
    assert "rows.jsonl:2 (row 2)" in str(error.value)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no rows"):
        rows_of(tmp_path, [])


def test_a_csv_file_is_read_as_the_fields_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,tries,team,due,note\n12,3,cards,,x\nhi,1,transfers,2031-02-03,y\n")
    first, second = read_rows(path, Ticket.spec)
    assert first.inputs == {"text": "12", "tries": 3}
    assert first.outputs == {"team": "cards", "due": None}
    assert second.outputs["due"] == "2031-02-03"
    assert second.others == {"note": "y"}
    path.write_text("text,tries,team\nhi,many,cards\n")
    with pytest.raises(InvalidInput, match=r"rows.csv:2 \(row 1\): input 'tries' should be JSON \(integer\)"):
        read_rows(path, Ticket.spec)


def test_a_parquet_file_is_read_with_its_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = "SELECT 'hi' AS text, 2 AS tries, 'cards' AS team, DATE '2031-02-03' AS due, 1.5::DECIMAL(4, 2) AS weight"
    more = "UNION ALL SELECT 'ho', NULL, 'transfers', NULL, NULL"
    duckdb.connect().execute(f"COPY ({rows} {more}) TO '{path}' (FORMAT PARQUET)")
    first, second = read_rows(path, Ticket.spec)
    assert first == Row({"text": "hi", "tries": 2}, {"team": "cards", "due": "2031-02-03"}, None, {"weight": 1.5})
    assert second.inputs == {"text": "ho"}
    assert second.outputs == {"team": "transfers", "due": None}
    duckdb.connect().execute(f"COPY (SELECT 1 AS n) TO '{path}' (FORMAT PARQUET)")
    with pytest.raises(InvalidInput, match=r"rows\.parquet: row 1: no input 'text'"):
        read_rows(path, Ticket.spec)
    path.write_text("no parquet")
    with pytest.raises(InvalidInput, match="can't be read as Parquet"):
        read_rows(path, Ticket.spec)


def test_parquet_needs_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.parquet").write_text("x")
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"kaizen-engine\[parquet\]"):
        read_rows(tmp_path / "rows.parquet", Ticket.spec)


def test_a_key_says_what_a_row_holds_whatever_the_order() -> None:
    one = Row({"a": 1, "b": {"x": 1, "y": 2}}, {"c": "é"})
    same = Row({"b": {"y": 2, "x": 1}, "a": 1}, {"c": "é"}, group="g")
    assert one.key == same.key
    assert one.asked == same.asked
    assert Row({"a": 1}, {"c": "e"}).key != Row({"a": 1}, {"c": "f"}).key


def test_values_take_their_json_form() -> None:
    values = {"due": datetime.date(2031, 2, 3), "n": 1, "list": [datetime.date(2031, 2, 3)]}
    assert plain_values(values, ("due", "n", "list", "absent")) == {"due": "2031-02-03", "n": 1, "list": ["2031-02-03"]}
