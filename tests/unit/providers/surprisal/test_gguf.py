"""The table of token embeddings, out of files written here."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from kaizen.core.errors import ConfigError
from kaizen.providers.surprisal.gguf import unembedding

ROWS = np.arange(3 * 32, dtype=np.float32).reshape(3, 32)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(name: str = "token_embd.weight", kind: int = 0, data: bytes | None = None, alignment: int = 64) -> bytes:
    keys = [
        text("general.alignment") + struct.pack("<II", 4, alignment),
        text("a.name") + struct.pack("<I", 8) + text("x"),
        text("a.list") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("y"),
        text("a.numbers") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3),
        text("a.flag") + struct.pack("<IB", 7, 1),
    ]
    tensors = [
        text("output_norm.weight") + struct.pack("<IQIQ", 1, 32, 0, 0),
        text(name) + struct.pack("<IQQIQ", 2, 32, 3, kind, alignment),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys + tensors)
    head += b"\0" * (-len(head) % alignment)
    return head + b"\0" * alignment + (ROWS.astype("<f4").tobytes() if data is None else data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (0, ROWS.astype("<f4").tobytes()),
        (1, ROWS.astype("<f2").tobytes()),
        (8, b"".join(struct.pack("<e", 1.0) + row.astype("i1").tobytes() for row in ROWS)),
    ],
)
def test_the_table_is_read_however_it_is_stored(kind: int, data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf(kind=kind, data=data))
    assert unembedding(file).tolist() == ROWS.tolist()


@pytest.mark.parametrize(
    "data",
    [
        b"no model at all",
        b"",
        gguf(kind=3),
        gguf(name="other.weight"),
        gguf(name="output.weight"),
        gguf()[:200],
        gguf(data=b"\0" * 8),
    ],
)
def test_what_gives_no_table_is_refused_with_its_path(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=r"model\.gguf"):
        unembedding(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        unembedding(tmp_path / "nowhere")
