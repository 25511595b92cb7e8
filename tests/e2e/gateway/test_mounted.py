"""Other applications in the gateway, and what runs beside its calls."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaizen.app.gateway import gateway_settings
from kaizen.app.serving import make_gateway
from kaizen.serve.http import gateway as module
from kaizen.serve.http.call import Receive, Scope, Send
from kaizen.serve.http.gateway import Gateway
from kaizen.serve.http.learn.work import Jobs
from kaizen.serve.http.metrics import Metrics
from kaizen.serve.http.workers import address_of, bind, make_server
from kaizen.settings import load_settings

Serve = Callable[[Gateway], tuple[str, int]]


@pytest.fixture
def made(tmp_path: Path) -> Gateway:
    settings = gateway_settings(load_settings(tmp_path, {}, {"home": str(tmp_path / "home")}))
    (tmp_path / "counts").mkdir()
    return make_gateway(settings, Metrics(tmp_path / "counts", 0), local=True)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves a gateway in a thread until the test ends."""
    stops: list[Callable[[], None]] = []

    def serving(made: Gateway) -> tuple[str, int]:
        listener = bind("127.0.0.1", 0)
        server = make_server(made, grace=2)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(10)
            listener.close()

        stops.append(stop)
        host, _, port = address_of(listener).removeprefix("http://").partition(":")
        return host, int(port)

    yield serving
    for stop in stops:
        stop()


async def test_a_caller_who_leaves_another_application_cancels_it(made: Gateway, serve: Serve) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def waits(_: Scope, __: Receive, ___: Send) -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.set()
            raise

    made.mount(["/slow"], lambda: waits)
    _, writer = await asyncio.open_connection(*serve(made))
    writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await asyncio.to_thread(begun.wait, 5)
    writer.close()
    await writer.wait_closed()
    assert await asyncio.to_thread(ended.wait, 5)


async def test_another_applications_answers_leave_nothing_to_the_garbage_collector(made: Gateway, serve: Serve) -> None:
    async def answers(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    made.mount(["/quick"], lambda: answers)
    reader, writer = await asyncio.open_connection(*serve(made))

    async def calls(count: int) -> None:
        for _ in range(count):
            writer.write(b"GET /quick HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")

    await calls(3)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await calls(20)
        gc.collect()
        kinds = [type(one).__name__ for one in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.enable()
        gc.garbage.clear()
    writer.close()
    assert kinds.count("RequestResponseCycle") < 3


async def test_what_fails_beside_the_calls_is_told_and_begins_again(
    made: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    caplog.set_level(logging.ERROR)
    begun: list[str] = []
    steady, said = asyncio.Event(), list[Any]()

    async def failing() -> None:
        begun.append("failing")
        if len(begun) < 3:
            raise ValueError("a row was not as it should be")
        steady.set()
        await asyncio.sleep(30)

    made.beside.append(failing)

    async def receive() -> dict[str, Any]:
        if not said:
            return {"type": "lifespan.startup"}
        await steady.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    await asyncio.wait_for(made({"type": "lifespan"}, receive, send), 10)
    assert said[-1] == "lifespan.shutdown.complete"
    assert len(begun) == 3
    told = [record for record in caplog.records if "beside the calls" in record.message]
    assert len(told) == 2
    assert told[0].exc_info is not None


async def test_a_disk_that_is_full_at_the_end_does_not_keep_the_server(
    made: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    said, ends = list[Any](), list[Jobs]()

    def full(jobs: Jobs) -> None:
        ends.append(jobs)
        if len(ends) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Jobs, "close", full)

    async def receive() -> dict[str, Any]:
        if not said:
            return {"type": "lifespan.startup"}
        await asyncio.sleep(0.1)
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    await asyncio.wait_for(made({"type": "lifespan"}, receive, send), 5)
    assert (said[-1], len(ends)) == ("lifespan.shutdown.complete", 1)
    assert "failed as it ended" in caplog.text
