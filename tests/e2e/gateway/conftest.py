"""A gateway on a loopback socket, in a thread, with real keys, before fault servers that play the providers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kaizen.app.gateway import gateway_settings
from kaizen.app.govern import make_keys
from kaizen.app.serving import make_gateway
from kaizen.app.storage import make_store
from kaizen.core.identity import Limits
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.serve.http.metrics import Metrics
from kaizen.serve.http.workers import address_of, bind, make_server
from kaizen.settings import Settings, load_settings
from kaizen.testing.fault_server import FaultServer

ACME = Scope("acme", "prod")
PRICE = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0}


@dataclass
class Running:
    """A gateway that runs, and its keys."""

    address: str
    settings: Settings
    upstream: FaultServer
    _stop: Callable[[], None] = field(repr=False)

    def key(self, tenant: str = "acme", **options: Any) -> str:
        """A new key's secret; ``options`` are those of ``Keys.create``."""

        async def create() -> str:
            keys = make_keys(self.settings)
            limits = Limits(**options.pop("limits", {}))
            made = await keys.create(Scope(tenant, "prod"), limits=limits, **options)
            await keys.close()
            return made.secret

        return asyncio.run(create())

    def records(self, tenant: str = "acme") -> list[Record]:
        """What is on record for a tenant."""

        async def read() -> list[Record]:
            store = make_store(self.settings)
            found = [one async for one in store.records(Scope(tenant, "prod"), RecordQuery())]
            await store.close()
            return found

        return asyncio.run(read())

    def stop(self) -> None:
        """End it, after the answers in the air."""
        self._stop()


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    with FaultServer("Hello from the far side.") as server:
        yield server


@pytest.fixture
def gateway(upstream: FaultServer, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a gateway whose providers ``mine`` (chat), ``answers`` (responses) and ``claude`` are one fault server."""
    started: list[Running] = []

    def start(**overrides: Any) -> Running:
        local, programs = overrides.pop("local", True), overrides.pop("programs", None)
        base = {"base_url": upstream.base_url, "api_key": "sk-upstream-secret"}
        settings = {
            "model": "mine/large",
            "home": str(tmp_path / "home"),
            "providers": {
                "mine": {"kind": "openai", **base},
                "answers": {"kind": "openai", "api": "responses", **base},
                "claude": {"kind": "anthropic", **base},
                **overrides.pop("providers", {}),
            },
            "models": {"mine/large": PRICE, "claude/large": PRICE},
            "inference": {"attempts": 1},
        }
        whole = gateway_settings(load_settings(tmp_path, {}, settings | overrides))
        listener = bind("127.0.0.1", 0)
        made = make_gateway(whole, Metrics(tmp_path / "counts"), local=local, programs=programs)
        server = make_server(made, grace=2)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(10)
            listener.close()

        started.append(Running(address_of(listener), whole, upstream, stop))
        return started[-1]

    yield start
    for one in started:
        one.stop()
