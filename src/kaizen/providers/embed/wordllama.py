"""The embedded embedder: WordLlama's table of word vectors, read from the package that carries it.

WordLlama (https://github.com/dleemiller/WordLlama, MIT) is the token table of a large model, shrunk to 256 numbers a
token and trained so that their mean stands for a text. Of its package only two files are used, the table and the
tokenizer. Its code is never imported: it sets up the process's log, brings an HTTP client along, and would fetch what
it does not find. Nothing here can reach the network.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from kaizen.core.errors import Unavailable
from kaizen.core.protocols import Embeddings
from kaizen.core.request import Usage
from kaizen.core.scope import Scope

MODEL: Final = "embedded/wordllama-256"
DIM: Final = 256
_WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
_TOKENIZER: Final = "tokenizers/l2_supercat_tokenizer_config.json"
_TABLE: Final = "embedding.weight"
# From so many characters on, some 10 ms of work, texts are embedded in a thread.
_LARGE: Final = 40_000


@dataclass(frozen=True, slots=True)
class _Loaded:
    tokenizer: Any
    table: NDArray[np.float16]


class WordLlamaEmbedder:
    """Embeds texts in this process: some 30 µs a question. Satisfies ``Embedder``; needs no closing.

    The same text always gives the same point. A text without a word in it gives a fixed one. The table is mapped, not
    read: processes of a machine share its 16 MB. It is opened at the first call, in a thread.

    Args:
        folder: the folder with the package's files; None finds the installed package.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._loaded: _Loaded | None = None
        self._loading = threading.Lock()

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        """A point for each text, in order.

        Raises:
            Unavailable: the package is not installed, or its files are not as expected.
        """
        if self._loaded is None or sum(map(len, texts)) > _LARGE:
            return await asyncio.to_thread(self._embed, texts)
        return self._embed(texts)

    def _embed(self, texts: Sequence[str]) -> Embeddings:
        loaded = self._loaded or self._load()
        points = np.zeros((len(texts), DIM), np.float32)
        tokens = 0
        for at, text in enumerate(texts):
            # one by one: a batch would start threads, which a fork would not survive
            ids = loaded.tokenizer.encode(text, add_special_tokens=False).ids
            tokens += len(ids)
            mean = loaded.table[ids].sum(axis=0, dtype=np.float32) if ids else points[at]
            length = math.sqrt(float(mean @ mean))
            if length > 0.0:
                points[at] = mean / length
            else:
                points[at, 0] = 1.0
        return Embeddings(MODEL, DIM, points.astype("<f4", copy=False).tobytes(), Usage(tokens_in=tokens))

    def _load(self) -> _Loaded:
        with self._loading:
            if self._loaded is None:
                folder = self._folder or _installed()
                try:
                    tokenizer: Any = Tokenizer.from_file(str(folder / _TOKENIZER))
                    table = _mapped(folder / _WEIGHTS)
                except Exception as error:
                    raise _missing(f"WordLlama's files can't be read: {error}") from error
                tokenizer.no_padding()
                tokenizer.no_truncation()
                self._loaded = _Loaded(tokenizer, table)
            return self._loaded


def _installed() -> Path:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise _missing('WordLlama is not installed: pip install "kaizen-engine[semantic]"')
    return Path(spec.origin).parent


def _mapped(path: Path) -> NDArray[np.float16]:
    """The table of a safetensors file: eight bytes with the length of a JSON header, the header, then the numbers."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    entry = header[_TABLE]
    shape = tuple(entry["shape"])
    if entry["dtype"] != "F16" or shape[1:] != (DIM,):
        raise ValueError(f"the table is {entry['dtype']} {shape}, not F16 (..., {DIM})")
    mapped = np.memmap(path, dtype="<f2", mode="r", offset=8 + size + int(entry["data_offsets"][0]), shape=shape)
    return np.asarray(mapped)  # the plain view of it: a memmap takes twenty times as long to index


def _missing(message: str) -> Unavailable:
    return Unavailable(message, model=MODEL, retryable=False)
