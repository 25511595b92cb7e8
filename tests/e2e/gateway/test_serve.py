"""``kaizen serve`` as people start it: in a process of its own, with workers that may die."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from kaizen.app.storage import make_store
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.settings import load_settings
from kaizen.testing.fault_server import FaultServer, slow

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer("Hello.") as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: FaultServer) -> Path:
    """A folder whose settings name a provider."""
    (tmp_path / "mine.toml").write_text(
        f'model = "mine/large"\nhome = "home"\n[providers.mine]\nkind = "openai"\nbase_url = "{server.base_url}"\n'
    )
    return tmp_path


@pytest.fixture
def start(project: Path) -> Iterator[Start]:
    """Starts ``kaizen serve`` on a free port."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str, port: int = 0) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kaizen", "serve", "--config", "mine.toml", "--port", str(port), *words]
        environ = {name: value for name, value in os.environ.items() if name != "KAIZEN_HOME"}
        process = subprocess.Popen(
            command, cwd=project, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> tuple[str, str | None]:
    """The address and the key that it prints."""
    assert process.stdout is not None
    address = re.search(r"http://\S+", process.stdout.readline())
    assert address is not None
    key: str | None = None
    while not (line := process.stdout.readline()).startswith(f"curl {address[0]}/v1/chat/completions"):
        assert line, "it printed no line to try"
        if (found := re.fullmatch(r"key, shown this once: (kz_\S+)\n", line)) is not None:
            key = found[1]
    return address[0], key


def chat(address: str, key: str, text: str = "hello", model: str = "mine/large") -> tuple[str, Any]:
    """A call: its record's id, and its answer."""
    body = to_json({"model": model, "messages": [{"role": "user", "content": text}]})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)) as connection:
        connection.request("POST", "/v1/chat/completions", body, headers)
        with connection.getresponse() as answer:
            assert answer.status == 200
            return answer.headers["x-kaizen-record"], from_json(answer.read())


def read(address: str, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address}{path}", timeout=20) as answer:
        return answer.read().decode()


async def records(project: Path) -> list[Record]:
    store = make_store(load_settings(project, {}, {}, config=project / "mine.toml"))
    found = [one async for one in store.records(Scope("local", "dev"), RecordQuery())]
    await store.close()
    return found


async def test_it_prints_a_key_once_and_ends_when_told(start: Start, project: Path) -> None:
    begun = time.monotonic()
    process = start()
    address, key = told(process)
    assert key is not None
    record, answer = chat(address, key)
    assert time.monotonic() - begun < 10  # under two seconds on an idle machine, see benchmarks
    assert answer["choices"][0]["message"]["content"] == "Hello."
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
    assert [one.id for one in await records(project)] == [record]
    again = start()
    address, none = told(again)
    assert none is None
    assert chat(address, key)[0] != record


def test_a_port_that_is_taken_is_one_clear_line(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(port=port)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert err == f"error: can't listen on 127.0.0.1:{port}: address already in use; give another --port\n"


def test_where_others_could_call_it_does_not_start_without_a_key(start: Start) -> None:
    out, err = start("--host", "0.0.0.0").communicate(timeout=20)  # noqa: S104 - what is tested
    assert out == ""
    assert err.startswith("error: other machines could reach 0.0.0.0, and there is no key")
    process = start()
    address, key = told(process)
    assert key is not None
    read(address, "/health/live")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 0
    process = start("--host", "0.0.0.0")  # noqa: S104 - what is tested
    address, key = told(process)
    assert key is None
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        read(address.replace("0.0.0.0", "127.0.0.1"), "/metrics")  # noqa: S104 - what was printed
    refused.value.close()


def test_a_config_that_there_is_not_is_said(start: Start) -> None:
    process = start("--config", "other.toml")
    assert "there is no file" in process.communicate(timeout=20)[1]
    assert process.returncode == 2


def test_a_second_signal_ends_it_at_once(start: Start, server: FaultServer) -> None:
    process = start()
    address, key = told(process)
    assert key is not None
    server.queue(slow(30))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(chat, address, key)
        while server.count == 0:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
        with pytest.raises(AssertionError, match="503"):
            asked.result(timeout=10)


async def test_workers_die_and_no_answered_call_is_lost(start: Start, project: Path) -> None:
    process = start("--workers", "2")
    address, key = told(process)
    assert key is not None
    for _ in range(100):
        with contextlib.suppress(OSError):
            chat(address, key, "first")
            break
        await asyncio.sleep(0.05)
    answered: list[str] = []
    children = _children(process.pid)
    assert len(children) == 2

    def work(number: int) -> None:
        for turn in range(40):
            with contextlib.suppress(OSError, http.client.HTTPException):  # who was being answered by the dead one
                answered.append(chat(address, key, f"{number} {turn}")[0])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, number) for number in range(4)]
        await asyncio.sleep(0.3)
        os.kill(children[0], signal.SIGKILL)
        for future in futures:
            future.result(timeout=60)
    assert len(answered) > 100
    kept = {one.id for one in await records(project)}
    assert set(answered) <= kept
    assert len(_children(process.pid)) == 2
    counted = re.search(r'kaizen_requests_total\{route="chat",status="200"\} (\d+)', read(address, "/metrics"))
    assert counted is not None
    assert int(counted[1]) >= len(answered)  # summed over the workers, the dead one's included
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 0
    assert "it is started again" in err


def test_workers_end_with_their_parent(start: Start) -> None:
    process = start("--workers", "2")
    told(process)
    children = _children(process.pid)
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def _children(pid: int) -> list[int]:
    """The processes that a process has started; none may be there yet."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("this system does not list a process's children")
    for _ in range(100):
        if len(found := path.read_text().split()) >= 2:
            return [int(one) for one in found]
        time.sleep(0.02)
    return []
