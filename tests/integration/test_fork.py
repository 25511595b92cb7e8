"""A process that has run programs may fork: the child gets an App of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kaizen.app
from kaizen.stores.memory import MemoryStore


def test_a_forked_child_runs_and_reads_as_its_parent_does(tmp_path: Path) -> None:
    program = Path(__file__).with_name("forking.py")
    environ = {**os.environ, "KAIZEN_HOME": str(tmp_path / "home")}
    # forking beside threads is what Python 3.12 warns of, and what is tried here
    command = [sys.executable, "-W", "ignore", program]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("0 14\n", "")


def test_a_child_takes_over_neither_app_nor_stores_nor_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    stores, lock = {Path("x"): MemoryStore()}, kaizen.app._lock
    for name, value in (("_stores", stores), ("_left", []), ("_lock", lock), ("_current", object())):
        monkeypatch.setattr(kaizen.app, name, value)
    kaizen.app._start_anew()
    assert (kaizen.app._stores, kaizen.app._current) == ({}, None)
    assert kaizen.app._left == [stores]  # kept: to close them would be to use them
    assert kaizen.app._lock is not lock
