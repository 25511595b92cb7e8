"""What is asked of llama.cpp, over its loopback address, and what is made of the answers."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kaizen.core.errors import ConfigError, Unavailable
from kaizen.inference.compress.surprisal import Surprisal
from kaizen.providers.surprisal import reading
from kaizen.providers.surprisal.reading import LlamaSurprisal

WORDS = ("red ", "green ", "blue ")
TABLE = np.eye(3, dtype=np.float32) * 2


class Llama:
    """A stand-in for llama.cpp: a vocabulary of three words, and a state that expects the word to be said again."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[Any] = []
        self.keys: set[str] = set()
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                outer.keys.add(self.headers["authorization"])
                data = json.dumps(outer.tokens(body) if self.path == "/tokenize" else outer.states(body)).encode()
                self.send_response(outer.status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.listening_address = f"http://127.0.0.1:{self.server.server_port}"

    def tokens(self, body: Any) -> Any:
        if body["content"] == "\u00e9":
            return {"tokens": [{"id": 0, "piece": [0xC3]}, {"id": 1, "piece": [0xA9]}]}
        found = [WORDS.index(f"{word} ") for word in body["content"].split()]
        return {"tokens": [{"id": one, "piece": WORDS[one]} for one in found]}

    def states(self, body: Any) -> Any:
        return [{"index": 0, "embedding": [[float(one == row) * 2 for row in range(3)] for one in body["content"]]}]


@pytest.fixture
def llama() -> Iterator[Llama]:
    running = Llama()
    yield running
    running.server.shutdown()
    running.server.server_close()
    running.thread.join()


@pytest.fixture
def reader(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> LlamaSurprisal:
    params = SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

    def serve(given: object) -> Llama:
        return llama

    def table(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
        return TABLE

    module = SimpleNamespace(
        CommonParams=lambda: params,
        Server=serve,
        llama_pooling_type=SimpleNamespace(LLAMA_POOLING_TYPE_NONE=0),
    )
    monkeypatch.setitem(sys.modules, "xllamacpp", module)
    monkeypatch.setattr(reading, "unembedding", table)
    return LlamaSurprisal(Path("model.gguf"))


async def test_a_token_is_as_surprising_as_the_model_thinks(reader: Surprisal, llama: Llama) -> None:
    again, other = -math.log(math.exp(4) / (math.exp(4) + 2)), -math.log(1 / (math.exp(4) + 2))
    first, second = await reader.surprisal(["red red green ", "green blue "])
    assert [token for token, _ in first] == ["red ", "red ", "green "]
    assert [nats for _, nats in first] == [math.inf, pytest.approx(again, abs=1e-5), pytest.approx(other, abs=1e-5)]
    # the texts are read one after the other: the second has the first for its context
    assert [nats for _, nats in second] == pytest.approx([again, other], abs=1e-5)
    assert llama.bodies[-1] == {"content": [0, 0, 1, 1, 2]}
    assert len(llama.keys) == 1
    assert len(next(iter(llama.keys))) > 40


async def test_long_texts_are_read_in_windows(reader: Surprisal, llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_WINDOW", 2)
    monkeypatch.setattr(reading, "_AT_ONCE", 1)
    (found,) = await reader.surprisal(["red red red blue blue "])
    assert [len(body["content"]) for body in llama.bodies if isinstance(body["content"], list)] == [2, 2, 1]
    assert [math.isinf(nats) for _, nats in found] == [True, False, True, False, True]


async def test_a_letter_of_several_tokens_is_whole(reader: Surprisal) -> None:
    (found,) = await reader.surprisal(["\u00e9"])
    assert [token for token, _ in found] == ["", "\u00e9"]


async def test_a_model_that_fails_is_named_unavailable(reader: Surprisal, llama: Llama) -> None:
    llama.status = 500
    with pytest.raises(Unavailable, match="reads failed"):
        await reader.surprisal(["red "])


async def test_what_can_not_be_loaded_is_a_mistake_of_the_settings(
    reader: LlamaSurprisal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(given: Any) -> None:
        raise RuntimeError("no model")

    monkeypatch.setattr(sys.modules["xllamacpp"], "Server", refuse)
    with pytest.raises(ConfigError, match="can load"):
        await reader.surprisal(["red "])
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # as if it were not installed
    with pytest.raises(ConfigError, match="not installed"):
        await reader.surprisal(["red "])
