"""The queue and the driver threads, with a llama.cpp that does what a test says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaizen.core.errors import ProviderError, Timeout, Unavailable
from kaizen.core.message import Message
from kaizen.core.request import Request
from kaizen.core.scope import LOCAL
from kaizen.providers import llama
from kaizen.providers.embedded import EmbeddedProvider
from kaizen.providers.llama import Generation, LlamaModel, LlamaOptions, default_threads

HEAD = b'{"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}]}'
WORD = b'{"choices":[{"delta":{"content":"word "},"finish_reason":null}]}'
END = b'{"choices":[{"delta":{},"finish_reason":"stop"}]}'
USAGE = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'

Write = Callable[[Callable[[bytes], bool]], None]


class Server:
    """A stand-in for xllamacpp's: writes what it is told to."""

    listening_address = "http://127.0.0.1:1"

    def __init__(self, write: Write) -> None:
        self.write = write
        self.calls = 0

    def handle_chat_completions(self, body: bytes, callback: Callable[[bytes], bool]) -> None:
        self.calls += 1
        self.write(callback)


def pieces_of(*pieces: bytes) -> Write:
    def write(callback: Callable[[bytes], bool]) -> None:
        for piece in pieces:
            if callback(piece):
                return

    return write


@pytest.fixture
def served(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[..., tuple[EmbeddedProvider, Server]]:
    def serve(write: Write, slots: int = 1) -> tuple[EmbeddedProvider, Server]:
        server = Server(write)
        monkeypatch.setattr(llama, "_load", lambda options: server)
        # a path of its own: loaded models are shared by all of the process
        path = Path(f"/nowhere/{request.node.name}-{id(server)}.gguf")
        return EmbeddedProvider("embedded", {"m": path}, threads=1, slots=slots), server

    return serve


def ask(**changes: Any) -> Request:
    return Request(scope=LOCAL, model="embedded/m", messages=(Message.of("user", "x"),), **changes)


async def test_a_whole_answer(served: Any) -> None:
    provider, _ = served(pieces_of(HEAD, WORD, WORD, END, USAGE))
    reply = await provider.complete(ask())
    assert (reply.text, reply.finish, reply.usage.tokens_in, reply.usage.tokens_cached) == ("word word ", "stop", 3, 0)


def _raise(error: Exception) -> Write:
    def write(_: object) -> None:
        raise error

    return write


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (_raise(ValueError("can't read the body")), ProviderError),
        (_raise(RuntimeError("it broke")), Unavailable),
        (pieces_of(HEAD, WORD), Unavailable),
        (pieces_of(HEAD, b'{"error":{"code":500,"type":"server_error","message":"it broke"}}'), Unavailable),
        (pieces_of(b'{"error":{"code":503,"type":"unavailable_error","message":"loading"}}'), Unavailable),
    ],
    ids=["refused", "broke", "cut", "error in the stream", "error at once"],
)
async def test_failures(served: Any, write: Write, kind: type[ProviderError]) -> None:
    provider, _ = served(write)
    with pytest.raises(ProviderError) as caught:
        await provider.complete(ask())
    assert type(caught.value) is kind
    assert caught.value.provider == "embedded"
    assert caught.value.model == "embedded/m"
    with pytest.raises(kind):
        async for _ in provider.stream(ask()):
            pass


async def test_a_load_that_fails_is_tried_again(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _ = served(pieces_of(HEAD, WORD, END, USAGE))
    works = llama._load
    monkeypatch.setattr(llama, "_load", _raise(RuntimeError("no memory")))
    with pytest.raises(Unavailable, match="no memory"):
        await provider.complete(ask())
    monkeypatch.setattr(llama, "_load", works)
    assert (await provider.complete(ask())).text == "word "


async def test_a_call_cancelled_in_the_queue_never_begins(served: Any) -> None:
    gate = threading.Event()

    def write(callback: Callable[[bytes], bool]) -> None:
        gate.wait(10)
        pieces_of(HEAD, WORD, END, USAGE)(callback)

    provider, server = served(write)
    first, second, third = (asyncio.create_task(provider.complete(ask())) for _ in range(3))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.wait([second], timeout=1)
    assert second.cancelled()
    gate.set()
    assert (await first).text == (await third).text == "word "
    assert server.calls == 2


async def test_a_deadline_passes_in_the_queue(served: Any) -> None:
    gate = threading.Event()

    def write(callback: Callable[[bytes], bool]) -> None:
        gate.wait(10)
        pieces_of(HEAD, WORD, END, USAGE)(callback)

    provider, server = served(write)
    first = asyncio.create_task(provider.complete(ask()))
    await asyncio.sleep(0.02)
    with pytest.raises(Timeout):
        await provider.complete(ask(deadline=time.monotonic() + 0.05))
    gate.set()
    await first
    assert server.calls == 1


async def test_pieces_that_come_faster_than_they_are_read_wake_the_loop_once(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    wakes = 0
    real = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal wakes
        wakes += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    generation = Generation(b"", each=True)
    assert not generation.take(HEAD)
    assert wakes == 0
    for _ in range(100):
        assert not generation.take(WORD)
    generation.end()
    assert [piece async for piece in generation.pieces()] == [HEAD] + [WORD] * 100
    assert wakes == 2
    generation.expire()
    assert not generation.expired  # it had ended before


async def test_closing_stops_what_runs_and_refuses_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def write(callback: Callable[[bytes], bool]) -> None:
        begun.set()
        while not callback(WORD):
            time.sleep(0.001)

    monkeypatch.setattr(llama, "_load", lambda options: Server(write))
    model = LlamaModel(LlamaOptions(Path("m.gguf"), 1, 1, 64))
    assert model.address == ""
    running, waiting = Generation(b"", each=False), Generation(b"", each=False)
    model.submit(running)
    model.submit(waiting)
    await asyncio.to_thread(begun.wait, 5)
    assert (model.busy, model.address) == (1, Server.listening_address)
    await asyncio.to_thread(model.close)
    assert model.busy == 0
    assert [piece async for piece in waiting.pieces()] == []
    assert str(waiting.failure) == "the process is ending"
    assert WORD in [piece async for piece in running.pieces()]


def test_threads_leave_a_core_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert default_threads() == threads
