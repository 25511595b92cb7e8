"""One tensor out of a GGUF file: the table of token embeddings, which is also what a tied model writes with.

The format is described in ggml's ``docs/gguf.md``. Only what that table may be stored as is read: 32 and 16 bit floats,
and Q8_0 (blocks of 32 signed bytes behind a 16 bit scale).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kaizen.core.errors import ConfigError

TABLE: Final = "token_embd.weight"
_OWN_HEAD: Final = "output.weight"
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING: Final = 8
_ARRAY: Final = 9
_F32, _F16, _Q8_0 = 0, 1, 8
_BLOCK: Final = 32


def unembedding(path: Path) -> NDArray[np.float32]:
    """The table that turns a last hidden state into logits: a row a token of the vocabulary.

    Raises:
        ConfigError: if the file is no GGUF model that writes with its embeddings, or stores them another way.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reading(data).table()
    except (OSError, ValueError, struct.error) as error:
        raise ConfigError(f"{path} can't be read for its token embeddings: {error}") from None


class _Reading:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def table(self) -> NDArray[np.float32]:
        if self._data[:4] != b"GGUF":
            raise ValueError("it is no GGUF file")
        self._at = 8
        tensors, keys = self._unpack("<QQ")
        alignment = 32
        for _ in range(keys):
            name, kind = self._string(), self._one("<I")
            value = self._value(kind)
            if name == b"general.alignment":
                alignment = int(value)
        found: dict[bytes, tuple[list[int], int, int]] = {}
        for _ in range(tensors):
            name = self._string()
            shape = [self._one("<Q") for _ in range(self._one("<I"))]
            found[name] = (shape, self._one("<I"), self._one("<Q"))
        if TABLE.encode() not in found or _OWN_HEAD.encode() in found:
            raise ValueError("the model does not write with its token embeddings")
        shape, kind, offset = found[TABLE.encode()]
        return self._tensor(shape, kind, -(-self._at // alignment) * alignment + offset)

    def _tensor(self, shape: list[int], kind: int, begin: int) -> NDArray[np.float32]:
        wide, rows = shape
        count = wide * rows
        read: dict[int, Callable[[], NDArray[Any]]] = {
            _F32: lambda: np.frombuffer(self._data, "<f4", count, begin).copy(),
            _F16: lambda: np.frombuffer(self._data, "<f2", count, begin),
            _Q8_0: lambda: self._blocks(count // _BLOCK, begin),
        }
        if kind not in read:
            raise ValueError(f"its embeddings are of type {kind}; 32 or 16 bit floats or Q8_0 are wanted")
        return read[kind]().astype(np.float32).reshape(rows, wide)

    def _blocks(self, count: int, begin: int) -> NDArray[np.float32]:
        block = np.dtype([("scale", "<f2"), ("bytes", "i1", (_BLOCK,))])
        blocks = np.frombuffer(self._data, block, count, begin)
        return blocks["scale"].astype(np.float32)[:, None] * blocks["bytes"].astype(np.float32)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            inner, count = self._one("<I"), self._one("<Q")
            if inner in _SIZES:
                self._at += _SIZES[inner] * count
            else:
                for _ in range(count):
                    self._value(inner)
            return None
        size = _SIZES[kind]
        self._at += size
        return int.from_bytes(self._data[self._at - size : self._at], "little")

    def _string(self) -> bytes:
        size = self._one("<Q")
        self._at += size
        return self._data[self._at - size : self._at]

    def _one(self, form: str) -> int:
        return self._unpack(form)[0]

    def _unpack(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return found
