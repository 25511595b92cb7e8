"""The command as users start it: a process of its own, in a project whose model is a server on a real socket."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaizen.testing.fault_server import FaultServer

COMMAND = (sys.executable, "-m", "kaizen")
ANSWER = '{"team": "cards", "urgency": 4}'
TRIAGE = '''\
from typing import Literal

from kaizen import Signature, context


class Triage(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers"] = context.output("the team")
    urgency: int = context.output("how urgent", ge=1, le=5)
'''


class CliProject:
    """A project folder, the commands run in it, and the server that answers them."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.folder, self.server = folder, server

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run([*COMMAND, *argv], cwd=self.folder, capture_output=True, text=True, check=False)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*COMMAND, *argv], cwd=self.folder, stdout=pipe, stderr=pipe, text=True)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text("utf-8").splitlines()]

    def answered(self) -> int:
        """How many whole lines the output has by now."""
        out = self.folder / "out.jsonl"
        return out.read_bytes().count(b"\n") if out.exists() else 0

    def batch(self, *more: str) -> tuple[str, ...]:
        return ("run", "triage.py:Triage", "--input", "rows.jsonl", "--output", "out.jsonl", *more)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[CliProject]:
    with FaultServer(ANSWER) as server:
        (tmp_path / "triage.py").write_text(TRIAGE)
        (tmp_path / "kaizen.toml").write_text(
            'model = "mine/large"\n'
            f'[providers.mine]\nkind = "openai"\nbase_url = "{server.base_url}"\napi_key = "sk-secret-value"\n'
            '[models."mine/large"]\ninput_usd_per_mtok = 10.0\noutput_usd_per_mtok = 30.0\n'
        )
        yield CliProject(tmp_path, server)
