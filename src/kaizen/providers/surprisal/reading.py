"""The embedded model's surprisal of a text that is given, which llama.cpp's server does not report.

It reports log-probabilities of tokens that it writes, never of those it reads. What it does give is the last hidden
state of each token, as "embeddings" without pooling; the model's own table of token embeddings makes logits of those.
So a second instance of the model runs in that mode (the weights are mapped, and shared with the first), is asked over
the loopback address that xllamacpp opens, and the product with the table is done here. It costs about as much again as
reading the text: ``benchmarks/token_optimisation.py --surprisal`` has the figures.
"""

from __future__ import annotations

import asyncio
import http.client
import secrets
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from kaizen.core.errors import ConfigError, Unavailable
from kaizen.providers.surprisal.gguf import unembedding

_WINDOW: Final = 512
# Logits of so many tokens at once: 49,152 words of them are 25 MB.
_AT_ONCE: Final = 128
_SECONDS: Final = 120.0


class LlamaSurprisal:
    """Reads texts with a GGUF model in this process. Satisfies the layer's ``Surprisal``.

    The model is loaded at the first call, in a thread. Texts are read together, in order, 512 tokens at a time, so that
    each has what came before it for its context; the first token of a window counts as not expected at all.

    Args:
        path: the GGUF file of a model that writes with its token embeddings.
        threads: threads that compute.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._path, self._threads = path, threads
        self._key = secrets.token_hex()
        self._lock = threading.Lock()
        self._loaded: tuple[Any, NDArray[np.float32]] | None = None

    async def surprisal(self, texts: Sequence[str], /) -> Sequence[Sequence[tuple[str, float]]]:
        """The tokens of each text, and the nats of surprisal of each.

        Raises:
            ConfigError: if there is no xllamacpp or the file can't be used.
            Unavailable: if the model fails.
        """
        return await asyncio.to_thread(self._read, list(texts))

    def _read(self, texts: list[str]) -> list[list[tuple[str, float]]]:
        with self._lock:  # one window at a time is what the model has room for
            server, table = self._load()
            try:
                return self._of(server, table, texts)
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                raise Unavailable(f"the model that reads failed: {type(error).__name__}") from None

    def _of(self, server: Any, table: NDArray[np.float32], texts: list[str]) -> list[list[tuple[str, float]]]:
        pieces = [self._ask(server, "/tokenize", {"content": text, "with_pieces": True})["tokens"] for text in texts]
        ids = [int(token["id"]) for tokens in pieces for token in tokens]
        nats: list[float] = []
        for begin in range(0, len(ids), _WINDOW):
            nats += self._window(server, table, ids[begin : begin + _WINDOW])
        found: list[list[tuple[str, float]]] = []
        at = 0
        for text, tokens in zip(texts, pieces, strict=True):
            found.append(list(zip(_parts(text, tokens), nats[at : at + len(tokens)], strict=True)))
            at += len(tokens)
        return found

    def _window(self, server: Any, table: NDArray[np.float32], ids: list[int]) -> list[float]:
        states = np.array(self._ask(server, "/embedding", {"content": ids})[0]["embedding"], dtype=np.float32)
        nats = [float("inf")]
        for begin in range(0, len(ids) - 1, _AT_ONCE):
            end = min(begin + _AT_ONCE, len(ids) - 1)
            logits = states[begin:end] @ table.T
            highest = logits.max(axis=1)
            whole = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
            nats += (whole - logits[np.arange(end - begin), ids[begin + 1 : end + 1]]).tolist()
        return nats

    def _ask(self, server: Any, path: str, body: object) -> Any:
        address = urlsplit(str(server.listening_address))
        connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=_SECONDS)
        try:
            headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
            connection.request("POST", path, to_json(body), headers)
            reply = connection.getresponse()
            data = reply.read()
            if reply.status != http.client.OK:
                raise ValueError(f"status {reply.status}")
            return from_json(data)
        finally:
            connection.close()

    def _load(self) -> tuple[Any, NDArray[np.float32]]:
        if self._loaded is None:
            table = unembedding(self._path)
            try:
                llama: Any = import_module("xllamacpp")
            except ImportError:
                raise ConfigError(
                    'surprisal needs xllamacpp, which is not installed: pip install "kaizen-engine[embedded]"'
                ) from None
            params: Any = llama.CommonParams()
            params.model.path = str(self._path)
            params.n_parallel = params.n_threads_http = 1
            params.n_ctx = params.n_batch = params.n_ubatch = _WINDOW
            for part in (params.cpuparams, params.cpuparams_batch):
                part.n_threads = self._threads
            params.embedding = True
            params.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
            params.api_keys = [self._key]
            params.ui = False
            params.verbosity = -1
            try:
                self._loaded = llama.Server(params), table
            except RuntimeError:
                raise ConfigError(f"{self._path} is no model that llama.cpp can load (a GGUF file is wanted)") from None
        return self._loaded


def _parts(text: str, tokens: Sequence[dict[str, Any]]) -> list[str]:
    """The text of each token. A letter that several tokens share belongs to the last of them."""
    whole = text.encode()
    parts: list[str] = []
    begin = end = 0
    for token in tokens:
        piece = token["piece"]
        end += len(piece.encode() if isinstance(piece, str) else piece)
        try:
            parts.append(whole[begin:end].decode())
        except UnicodeDecodeError:
            parts.append("")
            continue
        begin = end
    return parts
