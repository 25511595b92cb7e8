"""``kaizen serve``: the gateway of one process, and what comes before and round it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from kaizen.app import App, build
from kaizen.app.adapters import DEFAULT_MODEL
from kaizen.app.gateway import gateway_settings, is_loopback, make_backend
from kaizen.app.govern import Governance, make_govern, make_keys
from kaizen.app.learn.served import load_served, make_learning, watch_all
from kaizen.app.passthrough import add_passing
from kaizen.app.storage import counts_folder, make_cache
from kaizen.core.errors import ConfigError
from kaizen.core.identity import SCOPES
from kaizen.core.protocols import Policy
from kaizen.core.record import Record
from kaizen.core.scope import Scope
from kaizen.ledger.log import setup_logging
from kaizen.ledger.scores import FEEDBACK
from kaizen.serve.doors import Serving
from kaizen.serve.http.backend import Backend
from kaizen.serve.http.gateway import Application, Gateway, Route
from kaizen.serve.http.learn.programs import PATH as PROGRAMS
from kaizen.serve.http.learn.programs import Programs
from kaizen.serve.http.learn.scores import PATH as SCORES
from kaizen.serve.http.learn.scores import Scores
from kaizen.serve.http.learn.seams import Learning, Served
from kaizen.serve.http.metrics import Metrics
from kaizen.serve.http.page.page import FILES, Page
from kaizen.serve.http.traces import Traces
from kaizen.serve.http.workers import Workers, address_of, bind, serve_here
from kaizen.settings import Settings, read

_MOUNTED: Final = (
    "/docs",
    "/openapi.json",
    "/api/v1/admin/*",
    *(
        path
        for name in (
            "prompts",
            "registry",
            "evaluations",
            "optimizations",
            "jobs",
            "candidates",
            "experiments",
            "loops",
        )
        for path in (f"/api/v1/{name}", f"/api/v1/{name}/*")
    ),
    "/api/v1/queue",
)
"""Paths of the FastAPI application."""


def serve(serving: Serving) -> int:
    """Listen, see to it that there is a key, say where, and answer until told to end; the exit code.

    Raises:
        ConfigError: it can't listen there, or there is no key and other machines could call.
    """
    server = {name: value for name in ("host", "port", "workers") if (value := getattr(serving, name)) is not None}
    settings = gateway_settings(read({"server": server} if server else {}, config=serving.config))
    # a server's failures have to be told somewhere
    setup_logging("warning" if settings.log.level == "off" else settings.log.level, sys.stderr)
    own = settings.server
    local = is_loopback(own.host)
    programs = load_served(serving.programs)
    listener = bind(own.host, own.port)
    try:
        key = asyncio.run(_first_key(settings, local=local))
        folder = _fresh(counts_folder(settings) / str(listener.getsockname()[1]))
        make = partial(_worker, settings, folder, local, programs)
        told = partial(_announce, address_of(listener), settings, key)
        if own.workers == 1:
            serve_here(make, listener, grace=own.grace, begun=told)
            return 0
        return Workers(make, listener, own.workers, grace=own.grace).run(begun=told)
    finally:
        listener.close()


def make_gateway(
    settings: Settings,
    metrics: Metrics,
    *,
    local: bool,
    loops: bool = False,
    programs: Mapping[str, Served] | None = None,
) -> Gateway:
    """The application of one process; it closes what it was made of when its server ends.

    Args:
        settings: as ``gateway_settings`` has them.
        metrics: what it counts.
        local: whether only this machine reaches it.
        loops: whether it looks after experiments and the Kaizen loops: one process of a gateway does.
        programs: that callers may run, by name.
    """
    govern = make_govern(settings)
    cache = make_cache(settings, sole=settings.server.workers == 1)
    app = build(settings, policy=govern.policy, cache=cache)

    async def close() -> None:
        await app.close()
        await govern.close()

    backend = replace(make_backend(app, govern.authenticator, govern.policy), close=close)
    gateway = Gateway(backend, metrics, max_body=settings.server.max_body_bytes, local=local)
    learning = make_learning(app, programs or {})
    gateway.mount(_MOUNTED, partial(_admin, gateway, govern, learning, settings.server.max_body_bytes))
    served = Programs(learning, gateway.door, settings.server.max_body_bytes)
    gateway.add(PROGRAMS, Route("programs", {"GET": served.list}))
    gateway.add(f"{PROGRAMS}/*", Route("programs", {"POST": served.run}))
    gateway.beside.append(learning.jobs.watch)
    _add_page(gateway, app, backend, govern.policy)
    add_passing(gateway, app, backend, govern.policy)
    if loops:
        gateway.beside.append(partial(watch_all, app, learning.programs, partial(_tenants, govern)))
    return gateway


def _add_page(gateway: Gateway, app: App, backend: Backend, policy: Policy) -> None:
    """The page, what it shows, and other applications' traces."""
    page = Page(app.ledger, gateway.door)
    for path in FILES:
        gateway.add(path, Route("page", {"GET": page.file}))
    gateway.add("/api/v1/records", Route("page", {"GET": page.records}))
    gateway.add("/api/v1/runs", Route("page", {"GET": page.run}))
    gateway.add("/api/v1/contents", Route("page", {"GET": page.contents}))
    gateway.add("/api/v1/costs", Route("page", {"GET": page.costs}))
    most = app.settings.server.max_body_bytes
    traces = Traces(app.ledger, gateway.door, most, contexts=backend.contexts, policy=policy)
    gateway.add("/v1/traces", Route("traces", {"POST": traces.take}))
    _add_scores(gateway, app, backend, policy)


def _add_scores(gateway: Gateway, app: App, backend: Backend, policy: Policy) -> None:
    """People's words on answers."""

    def told(about: Record, value: float) -> None:
        if about.model is not None:
            app.health.score(about.model, FEEDBACK, value)

    scores = Scores(app.ledger, gateway.door, contexts=backend.contexts, policy=policy, told=told)
    gateway.add(f"{SCORES}*", Route("scores", {"POST": scores.take}))


def _worker(settings: Settings, folder: Path, local: bool, programs: Mapping[str, Served], number: int) -> Gateway:
    return make_gateway(settings, Metrics(folder, number), local=local, loops=number == 0, programs=programs)


async def _tenants(govern: Governance) -> Sequence[Scope]:
    """Those that have keys."""
    return list(dict.fromkeys(key.scope for key in await govern.keys.list()))


def _admin(gateway: Gateway, govern: Governance, learning: Learning, max_body: int) -> Application:
    from kaizen.serve.http.admin.application import make_admin

    return make_admin(gateway.door, govern.keys, learning, max_body=max_body)


async def _first_key(settings: Settings, *, local: bool) -> str | None:
    """The secret of a key that is made for a gateway without any; None where there are keys, or tokens are taken.

    Raises:
        ConfigError: there is none, and other machines could call.
    """
    keys = make_keys(settings)
    try:
        now = time.time()
        if settings.auth.jwt.enabled or any(key.live(now) for key in await keys.list()):
            return None
        if not local:
            raise ConfigError(
                f"other machines could reach {settings.server.host}, and there is no key that they would need: "
                "make one with `kaizen keys create`",
                detail={"host": settings.server.host},
            )
        scope = Scope(settings.tenant, settings.environment)
        return (await keys.create(scope, name="made by kaizen serve", scopes=SCOPES)).secret
    finally:
        await keys.close()


def _announce(address: str, settings: Settings, key: str | None) -> None:
    workers, model = settings.server.workers, settings.model or DEFAULT_MODEL
    lines = [f"kaizen serves {model} at {address} with {workers} worker{'s' if workers > 1 else ''}"]
    if key is not None:
        lines.append(f"key, shown this once: {key}")
    # the key stands where no server is sent it
    lines.append(f"page: {address}/#key={key}" if key is not None else f"page: {address}/ (a key with the scope admin)")
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello."}}]}}'
    lines.append(f"curl {address}/v1/chat/completions -H 'authorization: Bearer {key or '<key>'}' -d '{body}'")
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


def _fresh(folder: Path) -> Path:
    """An empty folder for the counts: they begin anew with the gateway."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder
