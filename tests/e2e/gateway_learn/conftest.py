"""A gateway that serves a program, before a fault server that plays the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from kaizen.serve.http.learn.seams import Served
from kaizen.testing.fault_server import FaultServer
from tests.desk import Desk, by_body
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.conftest import gateway as gateway
from tests.e2e.gateway.conftest import upstream as upstream
from tests.e2e.gateway.http import Answer, post

ADMIN = frozenset({"infer", "admin"})
NAME = Desk.spec.name
PROGRAMS = {NAME: Served(Desk, "tests/desk.py:Desk")}


@pytest.fixture
def here(gateway: Callable[..., Running], upstream: FaultServer) -> Running:
    upstream.reply = by_body
    return gateway(programs=PROGRAMS, log={"level": "error"})


def ask(here: Running, method: str, path: str, key: str | None, body: Any = None, **options: Any) -> Answer:
    """A request to one of the routes."""
    return post(here, f"/api/v1/{path}", body, key=key, method=method, **options)


def ended(here: Running, key: str, job_id: str, within: float = 30.0) -> Any:
    """A job, once it is over."""
    end = time.monotonic() + within
    while (job := ask(here, "GET", f"jobs/{job_id}", key).json)["state"] == "running":
        assert time.monotonic() < end, job
        time.sleep(0.05)
    return job
