"""``kaizen serve --program`` with two workers: either runs it, and tells of and stops the other's jobs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from kaizen.testing.fault_server import FaultServer, slow

TRIAGE = '''from typing import Literal

from kaizen import Signature, context


class Triage(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "accounts"] = context.output("the team")
'''


@pytest.fixture
def model() -> Iterator[FaultServer]:
    with FaultServer('{"team": "cards"}') as running:
        yield running


@pytest.fixture
def served(tmp_path: Path, model: FaultServer) -> Iterator[tuple[str, str]]:
    """The address and the key that it prints."""
    (tmp_path / "triage.py").write_text(TRIAGE)
    (tmp_path / "kaizen.toml").write_text(
        f'model = "mine/large"\nhome = "home"\n[providers.mine]\nkind = "openai"\nbase_url = "{model.base_url}"\n'
    )
    words = ["serve", "--config", "kaizen.toml", "--port", "0", "--workers", "2", "--program", "triage.py:Triage"]
    environ = {name: value for name, value in os.environ.items() if name != "KAIZEN_HOME"}
    command = [sys.executable, "-m", "kaizen", *words]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        address, key = re.search(r"http://\S+", process.stdout.readline()), process.stdout.readline().split()[-1]
        assert address is not None, process.communicate()
        yield address[0], key
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def ask(served: tuple[str, str], method: str, path: str, body: Any = None) -> Any:
    """A request over a connection of its own, which any of the workers may take."""
    request = urllib.request.Request(f"{served[0]}/api/v1/{path}", method=method)  # noqa: S310 - loopback
    request.add_header("authorization", f"Bearer {served[1]}")
    request.add_header("content-type", "application/json")
    data = None if body is None else to_json(body)
    with _opener.open(request, data, timeout=20) as answer:
        return from_json(answer.read())


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def test_two_workers_serve_a_program_and_share_its_jobs(served: tuple[str, str], model: FaultServer) -> None:
    answer = ask(served, "POST", "programs/Triage", {"message": "my card"})
    assert answer["outputs"] == {"team": "cards"}
    with _opener.open(f"{served[0]}/openapi.json", timeout=20) as shown:
        document = from_json(shown.read())
    assert document["components"]["schemas"]["triage.Triage.Inputs"]["required"] == ["message"]
    model.default = slow(0.3)
    rows = [{"message": f"no. {n}", "team": "cards"} for n in range(40)]
    plan = {"program": "Triage", "data": {"rows": rows}, "concurrency": 1}
    job = ask(served, "POST", "evaluations", plan)["id"]
    seen = [ask(served, "GET", f"jobs/{job}")["state"] for _ in range(20)]
    assert set(seen) == {"running"}
    for _ in range(5):
        ask(served, "DELETE", f"jobs/{job}")
    end = time.monotonic() + 20
    while {ask(served, "GET", f"jobs/{job}")["state"] for _ in range(8)} != {"stopped"}:
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(0.4)
    paid = len(model.calls)
    time.sleep(0.6)
    assert len(model.calls) == paid < 30
