from __future__ import annotations

import time
from pathlib import Path

import pytest

from kaizen.core.errors import ConfigError, InvalidInput, NotFound
from kaizen.learn.data.files import RowFile, row_key

BOM = b"\xef\xbb\xbf"


def rows_of(path: Path, data: bytes, **renames: str) -> list[tuple[int, int, dict[str, object]]]:
    path.write_bytes(data)
    return [(row.number, row.line, dict(row.values)) for row in RowFile(path, renames).rows()]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.NDJSON"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    data = BOM + b'{"a": 1, "b": "\\u00e9"}\r\n{"a": null}\n\n  \n'
    assert rows_of(tmp_path / name, data) == [(1, 1, {"a": 1, "b": "é"}), (2, 2, {"a": None})]


def test_csv(tmp_path: Path) -> None:
    data = BOM + 'a,b\r\n1,"two\nlines, ""quoted"""\r\né,\n\n'.encode()
    assert rows_of(tmp_path / "rows.csv", data) == [
        (1, 3, {"a": "1", "b": 'two\nlines, "quoted"'}),
        (2, 4, {"a": "é", "b": ""}),
    ]


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    text = "x" * 1_000_000
    assert rows_of(tmp_path / "rows.csv", f"a,b\n{text},1\n".encode())[0][2] == {"a": text, "b": "1"}


def test_columns_can_be_renamed(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "rows.csv", b"text,team\nhi,x\n", text="message", team="given") == [
        (1, 2, {"message": "hi", "given": "x"})
    ]
    # a row of JSON lines need not have every column
    assert rows_of(tmp_path / "rows.jsonl", b'{"text": 1}\n{"x": 2}\n', text="message") == [
        (1, 1, {"message": 1}),
        (2, 2, {"x": 2}),
    ]


@pytest.mark.parametrize(
    ("renames", "said"),
    [
        ({"c": "d"}, "has no column c to rename"),
        ({"a": "b"}, r":2 \(row 1\): a renamed column has the name of another"),
    ],
)
def test_wrong_renames(tmp_path: Path, renames: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rows_of(tmp_path / "rows.csv", b"a,b\n1,2\n", **renames)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("rows.jsonl", b'{"a": 1}\n\n{"a": 2}\n', ":2: an empty line between rows; remove it"),
        ("rows.jsonl", b'{"a": 1}\n{"a": \n', ":2: no JSON: "),
        ("rows.jsonl", b'{"a": NaN}\n', ":1: no JSON: "),
        ("rows.jsonl", b'{"a": "\xff"}\n', ":1: no JSON: "),
        ("rows.jsonl", b"[1]\n", ":1: a row is a JSON object, not list"),
        ("rows.csv", b"", ":1: a CSV file begins with a line of column names"),
        ("rows.csv", b"\na\n", ":1: a CSV file begins with a line of column names"),
        ("rows.csv", b"a,b,a, \n", ":1: column names have to be there and different: ' ', 'a'"),
        ("rows.csv", b"a,b\n1,2\n3\n", ":3: 1 cells for 2 columns"),
        ("rows.csv", b"a,b\n1,2\n\n3,4\n", ":3: an empty line between rows; remove it"),
        ("rows.csv", b'a,b\n1,"2" 3\n', ":2: ',' expected after '\"'"),
        ("rows.csv", b"a,b\n1,\xff\n", ": not UTF-8 after line "),
    ],
)
def test_what_can_not_be_read_names_its_line(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    path = tmp_path / name
    with pytest.raises(InvalidInput) as caught:
        rows_of(path, data)
    assert str(caught.value).startswith(f"{path}{said}")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"files named \.csv, \.jsonl, \.ndjson"):
        RowFile(tmp_path / "rows.xlsx", {}).rows()
    with pytest.raises(NotFound, match="there is no file"):
        RowFile(tmp_path / "rows.csv", {}).rows()


def test_rows_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\nbroken\n')
    rows = RowFile(path, {}).rows()
    assert next(rows).values == {"a": 1}
    with pytest.raises(InvalidInput):
        next(rows)


def test_keys_tell_contents_apart() -> None:
    assert row_key({"a": 1}) == row_key({"a": 1})
    different = ({"a": 1}, {"a": "1"}, {"a": 1.0}, {"b": 1}, {"a": 1, "b": None}, {}, {"a": True})
    assert len({row_key(values) for values in different}) == len(different)
    assert all(0 <= row_key(values) < 2**64 for values in different)


def test_a_header_of_very_many_columns_costs_time_by_its_length_only(tmp_path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(100_000))
    began = time.process_time()
    with pytest.raises(InvalidInput, match="1 cells for 100000 columns"):
        rows_of(tmp_path / "wide.csv", f"{names}\n1\n".encode())
    assert time.process_time() - began < 5  # minutes where each name was looked for among all
