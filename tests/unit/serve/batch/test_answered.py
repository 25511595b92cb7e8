from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.core.errors import Conflict, StoreError
from kaizen.learn.data.files import row_key
from kaizen.serve.batch.answered import LineFile, RowKeys, answered_rows

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.integers(0, 3) | st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 3)))
def test_a_bag_gives_each_key_as_often_as_it_was_put_in(put: list[int], asked: list[int]) -> None:
    keys, left = RowKeys(put), Counter(put)
    for key in [*asked, *put]:
        assert keys.take(key) == (left[key] > 0)
        left[key] = max(0, left[key] - 1)
        assert keys.left == left.total()
    assert keys.left == 0


@given(st.lists(st.dictionaries(st.text(min_size=1).filter(lambda name: name[0] != "_"), JSON, max_size=3), max_size=4))
def test_what_is_written_is_known_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "out.jsonl"
    with LineFile(path) as file:
        for row in rows:
            file.append({**row, "_team": {"x": [1.5]}, "_record": "id"})
        keys = answered_rows(file, {"_team", "_record"})
    assert keys.left == len(rows)
    assert all(keys.take(row_key(row)) for row in rows)


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"", b""),
        (b"one\n", b"one\n"),
        (b'one\n{"tw', b"one\n"),
        (b"one\n{", b"one\n"),
        (b'{"torn"', b""),
        (b'{"a": 1, "_record": "x"}', b""),
        (b"one\n{" + b"x" * 3_000_000, b"one\n"),
        (b"{" + b"x" * 3_000_000, b""),
    ],
)
def test_a_torn_last_line_is_cut_off(tmp_path: Path, data: bytes, left: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(data)
    with LineFile(path) as file:
        assert file.repair() == (data != left)
        assert path.read_bytes() == left
        assert not file.repair()


@pytest.mark.parametrize("tail", [b"my notes", b'{"setting": 1}', b"[1, 2", b"\0\0"])
def test_what_no_batch_wrote_is_not_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(tail)
    with LineFile(path) as file, pytest.raises(Conflict, match=r"out\.jsonl, last line: no line of a batch"):
        file.repair()
    assert path.read_bytes() == tail


def test_a_file_torn_anywhere_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with LineFile(path) as file:
        for number in range(50):
            file.append({"a": "x" * random.Random(number).randrange(40), "_record": str(number)})
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with LineFile(path) as file:
            whole = data[:size].count(b"\n")
            assert sum(1 for _ in file.lines()) == whole
            assert file.repair() == (not data[:size].endswith(b"\n") and size > 0)
            assert path.read_bytes().count(b"\n") == sum(1 for _ in file.lines()) == whole


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b'{"a": 1}\n'])
def test_a_file_that_no_batch_wrote_is_left_alone(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"a": 1, "_record": "x"}\n' + line)
    with LineFile(path) as file, pytest.raises(Conflict, match=r"out\.jsonl:2: no line of a batch"):
        list(file.lines())


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with LineFile(path), pytest.raises(Conflict, match="another process is writing to"):
        LineFile(path)
    with LineFile(path) as file:
        file.append({"_record": "x"})
        file.clear()
        assert path.read_bytes() == b""


def test_what_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        LineFile(tmp_path / "gone" / "out.jsonl")
    with pytest.raises(Conflict, match="is no regular file"):
        LineFile(Path(os.devnull))


def test_a_full_disk_is_a_store_error() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    file = LineFile.__new__(LineFile)
    file.path, file._file = full, os.open(full, os.O_WRONLY)
    with file, pytest.raises(StoreError, match="can't write to /dev/full: No space left on device"):
        file.append({"a": 1})
