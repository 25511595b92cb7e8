"""The composition root: the only package that imports concrete adapters and joins the parts."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kaizen.app.adapters import capabilities, default_params, endpoint_of, make_adapter, own_prices, same
from kaizen.app.layers import Counted, make_layers, retries
from kaizen.app.learn.embedder import LocalEmbedder
from kaizen.app.learn.feedback import feedback
from kaizen.app.learn.registry import make_releases
from kaizen.app.routes import with_route
from kaizen.app.storage import forget_cache, ledger_file, make_cache, make_store, process_cache
from kaizen.app.telemetry import make_exporter
from kaizen.core.answer import Answer
from kaizen.core.context import Budget, Context, Partial, Program, Run
from kaizen.core.errors import Denied
from kaizen.core.identity import Identity
from kaizen.core.ids import new_id
from kaizen.core.params import Params
from kaizen.core.protocols import Archive, Cache, Policy, Provider, Store, Suspended
from kaizen.core.record import Record
from kaizen.core.scope import Scope
from kaizen.inference.ceiling import Ceiling
from kaizen.inference.failover.health import Health
from kaizen.inference.onion import build_onion
from kaizen.inference.prices import PriceTable
from kaizen.inference.streams import telling
from kaizen.ledger.key import load_key
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.log import setup_logging
from kaizen.programs.runnable import current_call
from kaizen.programs.runner import Runner, Services
from kaizen.registry.releases import Releases
from kaizen.serve.portal import Portal
from kaizen.settings import Settings, merge, read


class App:
    """Everything one process needs to run programs, joined.

    Attributes:
        settings: what it was built from.
        provider: the onion.
        ledger: the records.
        cache: where steps and calls keep their answers.
        registry: versions and labels of what programs are made of.
        releases: which of them run.
        health: how each model does, as far as this process has asked it.
        counted: what the caches did, in this process.
        scope: whose data its runs are.
        closed: whether ``close`` was called.
    """

    def __init__(
        self,
        settings: Settings,
        provider: Provider,
        ledger: Ledger,
        runner: Runner,
        *,
        cache: Cache,
        releases: Releases,
        health: Health | None = None,
        counted: Counted | None = None,
    ) -> None:
        self.settings, self.provider, self.ledger, self.cache = settings, provider, ledger, cache
        self.registry, self.releases = releases.registry, releases
        self.health, self.counted = health or Health(), counted or Counted()
        self.scope = Scope(settings.tenant, settings.environment)
        self.closed = False
        self._runner = runner
        self._portal = Portal()

    async def start(
        self,
        program: Program,
        inputs: Mapping[str, Any],
        *,
        principal: str = "",
        run_id: str | None = None,
        seconds: float | None = None,
        budget: Budget | None = None,
        emit: Callable[[Partial], None] | None = None,
        overrides: Mapping[str, Params] | None = None,
    ) -> Answer | Suspended:
        """Run a program.

        Args:
            program: what to run.
            inputs: by field name.
            principal: who acts.
            run_id: an earlier run to go on with: steps it has a record of are not done again.
            seconds: how long the whole run may take.
            budget: what it may spend.
            emit: where partial outputs go.
            overrides: params by program name that come before all others.
        """
        run = Run(
            runtime=self._runner,
            scope=self.scope,
            run_id=run_id or new_id(),
            principal=principal,
            deadline=None if seconds is None else time.monotonic() + seconds,
            budget=budget,
            emit=emit,
            overrides=overrides,
            replay=await self.ledger.steps(self.scope, run_id) if run_id else None,
        )
        return await self._runner.start(run, program, inputs)

    async def new_run(self, run_id: str | None = None, *, seconds: float | None = None) -> Run:
        """A run that is to begin, for who wants more of it than ``start`` takes: ``replace(run, subject="ada")``.

        Args:
            run_id: an earlier run to go on with.
            seconds: how long it may take, from now on.
        """
        return Run(
            runtime=self._runner,
            scope=self.scope,
            run_id=run_id or new_id(),
            deadline=None if seconds is None else time.monotonic() + seconds,
            replay=await self.ledger.steps(self.scope, run_id) if run_id else None,
        )

    async def start_run(self, run: Run, program: Program, inputs: Mapping[str, Any]) -> Answer | Suspended:
        """Begin a run with a program; see ``new_run``. Versions that it does not name are those that are released."""
        return await self._runner.start(run, program, inputs)

    def context(self, identity: Identity, *, deadline: float | None = None) -> Context:
        """Surroundings for a lone model call of a caller: what it asks is decided, counted and recorded as theirs.

        Args:
            identity: whose call it is.
            deadline: ``time.monotonic()`` by which they want the answer.
        """
        run = Run(
            runtime=self._runner,
            scope=identity.scope,
            run_id=new_id(),
            principal=identity.principal,
            deadline=deadline,
            lone=True,
        )
        return Context(run)

    async def start_for(
        self, identity: Identity, program: Program, inputs: Mapping[str, Any], *, deadline: float | None = None
    ) -> Answer | Suspended:
        """Run a program for a caller, as theirs; see ``start`` and ``context``."""
        run = Run(
            runtime=self._runner,
            scope=identity.scope,
            run_id=new_id(),
            principal=identity.principal,
            deadline=deadline,
        )
        return await self._runner.start(run, program, inputs)

    def run(
        self, program: Program, inputs: Mapping[str, Any], emit: Callable[[Partial], None] | None = None
    ) -> Coroutine[Any, Any, Answer]:
        """A step of the call whose code runs here, else a run of its own: behind ``await Triage(...)``.

        Its place in program order is taken now, not when it is awaited.

        Raises:
            Denied: when policy asks for approval; ``detail["run_id"]`` names the run to go on with.
        """
        here = current_call()
        if here is None:
            return self._answered(program, inputs, emit)
        branch = here if emit is None else here.fork(emit=emit)
        return branch.call(program, **inputs)

    async def _answered(
        self, program: Program, inputs: Mapping[str, Any], emit: Callable[[Partial], None] | None
    ) -> Answer:
        answer = await self.start(program, inputs, emit=emit)
        if isinstance(answer, Suspended):
            raise Denied(
                f"the run waits for approval: {answer.question}",
                detail={"run_id": answer.run_id, "step": answer.step},
            )
        return answer

    def execute(self, program: Program, inputs: Mapping[str, Any]) -> Any:
        """``run`` for plain code: waits on the private loop."""
        return self._portal.call(lambda: self.run(program, inputs), program.spec.name.rsplit(".", 1)[-1])

    def score(
        self, about: Record, value: float, comment: str = "", correct: Mapping[str, Any] | None = None
    ) -> Awaitable[Record]:
        """Keep a person's word on an answer, see ``Record.score``: at once in plain code, else when it is awaited."""
        return feedback(self, about, value, comment, correct, self._portal)

    def stream(self, program: Program, inputs: Mapping[str, Any]) -> AsyncGenerator[Partial | Answer]:
        """Partial outputs as they are written, then the answer, whose record is kept by then.

        Closing the generator cancels the run.
        """
        return telling(partial(self.run, program, inputs))

    async def close(self) -> None:
        """Finish what is in the air and let go of the store; one that the process's App goes on with stays open.

        The process's App is built anew at the next call that needs it.
        """
        self.closed = True
        store = self.ledger.store
        if _current is None or _current is self or _current.ledger.store is not store:
            for place in [place for place, kept in _stores.items() if kept is store]:
                _stores.pop(place, None)
            await self.ledger.close()
        if _current is None or _current is self or _current.cache is not self.cache:
            forget_cache(self.cache)
            await self.cache.close()
        await self.registry.close()

    def close_blocking(self) -> None:
        """``close`` for plain code, the private loop included."""
        self._portal.call(self.close, "close")
        self._portal.close()


def build(
    settings: Settings,
    *,
    provider: Provider | None = None,
    store: Store | None = None,
    policy: Policy | None = None,
    cache: Cache | None = None,
    archive: Archive | None = None,
) -> App:
    """Join an App. The only wiring there is, readable top to bottom.

    Args:
        settings: as ``kaizen.settings`` reads them.
        provider: instead of the onion round the configured providers.
        store: instead of the settings': SQLite under ``home``, or PostgreSQL. The App closes it.
        policy: asked before every program call and every model call.
        cache: where steps and calls keep their answers, instead of the settings'. The App closes it.
        archive: where versions and labels lie, instead of the settings'. The App closes it.
    """
    endpoints = {name: endpoint_of(one) for name, one in settings.providers.items()}
    factories: dict[str, Callable[[], Provider]] = {
        name: partial(make_adapter, settings, name, one) for name, one in settings.providers.items()
    }
    factories |= {name: partial(same, one) for name, one in settings.custom.items()}
    prices = PriceTable(own_prices(settings), endpoints)
    cache = cache or make_cache(settings)
    store = store or make_store(settings)
    counted = Counted()
    layers = with_route(make_layers(settings, prices, cache, counted), settings, prices, store)
    onion = provider or build_onion(factories, prices=prices, retries=retries(settings), layers=layers)
    ledger = Ledger(
        store,
        load_key(settings.home),
        payloads=settings.ledger.payloads,
        log=True,
        exporter=make_exporter(settings),
    )
    defaults = default_params(settings, capabilities(settings, endpoints))
    written = {ref: model.max_output_tokens for ref, model in settings.models.items()}
    own = settings.inference
    ceiling = Ceiling(
        prices,
        written,
        layers.candidates,
        hedged=own.failover.enabled and own.failover.hedge,
        compared=own.compress.enabled and own.compress.sample > 0,
        cascade=own.route.cascade.models if own.route.enabled and own.route.cascade is not None else (),
    )
    health = layers.health or Health()
    releases = make_releases(settings, archive)
    runner = Runner(
        provider=onion,
        ledger=ledger,
        defaults=defaults,
        policy=policy,
        ceiling=ceiling,
        services=Services(cache=cache, scored=health.score, embedder=LocalEmbedder(), releases=releases.ready),
    )
    return App(settings, onion, ledger, runner, cache=cache, releases=releases, health=health, counted=counted)


_lock = threading.Lock()
_current: App | None = None
_settings: Settings | None = None


def current() -> App:
    """The process's App, built from ``kaizen.toml`` and the environment at the first call.

    The log is set up with it, since it is the process's too; who builds an App of their own sets up theirs.
    """
    global _current, _settings
    app = _current
    if app is None or app.closed:
        with _lock:
            if _current is None or _current.closed:
                _settings = _settings or read()
                _current = build(_settings, store=_process_store(_settings), cache=process_cache(_settings))
                setup_logging(_settings.log.level, sys.stderr)
            app = _current
    return app


def configure(**overrides: Any) -> None:
    """Set up the process's App: the same tree as ``kaizen.toml``, which it comes before.

    A later call replaces the keys it names; a failed one changes nothing. Calls in the air go on with what
    they began with.

    Raises:
        ConfigError: for a wrong key or value, with the key's name and the nearest right one.
    """
    global _current, _settings
    with _lock:
        _settings = merge(_settings, overrides) if _settings else read(overrides)
        _current = None


# -- stores ---

_stores: dict[Path | str, Store] = {}
_left: list[dict[Path | str, Store]] = []


def _start_anew() -> None:
    """In a forked child: build the App again.

    The parent's threads, the stores' among them, are not there, one of them may have held our lock, and SQLite's
    connections must not be used, nor closed, on both sides of a fork.
    """
    global _lock, _current, _stores
    _left.append(_stores)
    _lock, _current, _stores = threading.Lock(), None, {}


os.register_at_fork(after_in_child=_start_anew)


def _process_store(settings: Settings) -> Store:
    """The store of the process's Apps at one place: one, however often the process is configured anew."""
    url = settings.storage.database_url
    place = ledger_file(settings.home) if url is None else url.get_secret_value()
    if place not in _stores:
        _stores[place] = make_store(settings)
    return _stores[place]
