"""The composition root: the only file that imports concrete adapters and joins the parts."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never

from pydantic import SecretStr

from kaizen.core.answer import Answer
from kaizen.core.context import Budget, Partial, Program, Run
from kaizen.core.errors import ConfigError, Denied
from kaizen.core.ids import new_id
from kaizen.core.params import OutputMode, Params
from kaizen.core.protocols import Policy, Provider, Store, Suspended
from kaizen.core.scope import Scope
from kaizen.inference.capabilities import Capabilities
from kaizen.inference.endpoint import Endpoint
from kaizen.inference.onion import build_onion
from kaizen.inference.prices import Price, PriceTable
from kaizen.inference.retry import Retries
from kaizen.ledger.key import load_key
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.log import setup_logging
from kaizen.programs.runnable import current_call
from kaizen.programs.runner import Runner
from kaizen.serve.doors import ModelInfo
from kaizen.serve.portal import Portal
from kaizen.settings import (
    AnthropicSettings,
    EmbeddedSettings,
    OpenAISettings,
    ProviderSettings,
    RemoteSettings,
    Settings,
    data_home,
    merge,
    read,
    resolve_key,
    resolve_proxy,
)

if TYPE_CHECKING:
    from kaizen.providers.http import TransportSettings

DEFAULT_MODEL: Final = "embedded/smollm2-135m"


class App:
    """Everything one process needs to run programs, joined.

    Attributes:
        settings: what it was built from.
        provider: the onion.
        ledger: the records.
        scope: whose data its runs are.
        closed: whether ``close`` was called.
    """

    def __init__(self, settings: Settings, provider: Provider, ledger: Ledger, runner: Runner) -> None:
        self.settings, self.provider, self.ledger = settings, provider, ledger
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

    async def stream(self, program: Program, inputs: Mapping[str, Any]) -> AsyncGenerator[Partial | Answer]:
        """Partial outputs as they are written, then the answer, whose record is kept by then.

        Closing the generator cancels the run.
        """
        queue: asyncio.Queue[Partial | None] = asyncio.Queue()
        task = asyncio.ensure_future(self.run(program, inputs, queue.put_nowait))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (item := await queue.get()) is not None:
                yield item
            yield await task
        finally:
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Finish what is in the air and let go of the store; one that the process's App goes on with stays open.

        The process's App is built anew at the next call that needs it.
        """
        self.closed = True
        store = self.ledger.store
        if _current is None or _current is self or _current.ledger.store is not store:
            for path in [path for path, kept in _stores.items() if kept is store]:
                _stores.pop(path, None)
            await self.ledger.close()

    def close_blocking(self) -> None:
        """``close`` for plain code, the private loop included."""
        self._portal.call(self.close, "close")
        self._portal.close()


def build(
    settings: Settings, *, provider: Provider | None = None, store: Store | None = None, policy: Policy | None = None
) -> App:
    """Join an App. The only wiring there is, readable top to bottom.

    Args:
        settings: as ``kaizen.settings`` reads them.
        provider: instead of the onion round the configured providers.
        store: instead of SQLite under ``settings.home``. The App closes it.
        policy: asked before every program call.
    """
    endpoints = {name: _endpoint(one) for name, one in settings.providers.items()}
    factories: dict[str, Callable[[], Provider]] = {
        name: partial(_adapter, settings, name, one) for name, one in settings.providers.items()
    }
    factories |= {name: partial(_same, one) for name, one in settings.custom.items()}
    onion = provider or build_onion(
        factories, prices=PriceTable(_prices(settings), endpoints), retries=_retries(settings)
    )
    ledger = Ledger(
        store or _sqlite(_file(settings.home)), load_key(settings.home), payloads=settings.ledger.payloads, log=True
    )
    defaults = _defaults(settings, _capabilities(settings, endpoints))
    runner = Runner(provider=onion, ledger=ledger, defaults=defaults, policy=policy)
    return App(settings, onion, ledger, runner)


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
                _current = build(_settings, store=_process_store(_settings.home))
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
        _settings = merge(_settings or read(), overrides)
        _current = None


# -- models -----------------------------------------------------------------------------------------


def known_models(settings: Settings) -> list[ModelInfo]:
    """The models the settings name, the embedded ones, and a line for each provider of which none is named."""
    default = settings.model or DEFAULT_MODEL
    refs = {default, *settings.models}
    for name, provider in settings.providers.items():
        if isinstance(provider, EmbeddedSettings):
            refs.update(f"{name}/{model}" for model in _embedded_models(provider))
        elif not any(ref.startswith(f"{name}/") for ref in refs):
            refs.add(f"{name}/...")
    endpoints = {name: _endpoint(one) for name, one in settings.providers.items()}
    prices = PriceTable(_prices(settings), endpoints)
    modes = _defaults(settings, _capabilities(settings, endpoints))
    return [_model_info(settings, ref, prices, modes) for ref in sorted(refs)]


def _model_info(
    settings: Settings, ref: str, prices: PriceTable, defaults: Callable[[str | None], Params]
) -> ModelInfo:
    name, _, model = ref.partition("/")
    ready, note = _readiness(settings, name, model)
    price = prices.look_up(ref).price if model != "..." and name in settings.providers else None
    output = price.rates.output if price else None
    return ModelInfo(
        ref=ref,
        kind=settings.providers[name].kind if name in settings.providers else "custom",
        default=ref == (settings.model or DEFAULT_MODEL),
        ready=ready,
        note=note,
        output_mode=defaults(ref).output_mode if model != "..." else None,
        input_usd_per_mtok=price.rates.input * 1e6 if price else None,
        output_usd_per_mtok=None if output is None else output * 1e6,
    )


def _readiness(settings: Settings, name: str, model: str) -> tuple[bool, str]:
    """Whether weights or key are there, and what to know about it; never the key itself."""
    provider = settings.providers.get(name)
    match provider:
        case None:
            return name in settings.custom, "" if name in settings.custom else f"no provider is called {name}"
        case EmbeddedSettings():
            path = _embedded_models(provider).get(model)
            if path is None or not path.is_file():
                return False, f"no weights: kaizen models pull {name}/{model}" if path is None else f"no file {path}"
            if importlib.util.find_spec("xllamacpp") is None:
                return False, 'not installed: pip install "kaizen-engine[embedded]"'
            return True, str(path)
        case OpenAISettings() | AnthropicSettings():
            try:
                key = resolve_key(provider)
            except ConfigError:
                return False, f"no key: the variable {provider.api_key_env} is not set"
            return True, f"{provider.base_url}, {'with a key' if key else 'without a key'}"
        case _:
            assert_never(provider)


def _embedded_models(provider: EmbeddedSettings) -> dict[str, Path | None]:
    """The weights of each embedded model, None where they are missing; the settings' own files go first."""
    from kaizen.providers.weights import PINNED, find_weights

    return {model: find_weights(model, data_home()) for model in PINNED} | dict(provider.models)


async def pull_model(name: str, on_progress: Callable[[str], None]) -> Path:
    """Bring an embedded model's weights into the user's data folder; see ``kaizen.providers.weights``."""
    from kaizen.providers.weights import pull_weights

    return await pull_weights(name, data_home(), on_progress)


# -- the parts --------------------------------------------------------------------------------------


def _endpoint(provider: ProviderSettings) -> Endpoint:
    match provider:
        case EmbeddedSettings():
            return Endpoint("embedded")
        case OpenAISettings() | AnthropicSettings():
            return Endpoint(provider.kind, provider.base_url)
        case _:
            assert_never(provider)


def _adapter(settings: Settings, name: str, provider: ProviderSettings) -> Provider:
    """The adapter of a configured provider. Each is imported when it is first used."""
    match provider:
        case EmbeddedSettings():
            from kaizen.providers.embedded import EmbeddedProvider

            models = {model: path for model, path in _embedded_models(provider).items() if path is not None}
            return EmbeddedProvider(
                name, models, threads=provider.threads, slots=provider.slots, context=provider.context
            )
        case OpenAISettings():
            from kaizen.providers.openai import OpenAIProvider

            return OpenAIProvider(
                name,
                base_url=provider.base_url,
                api_key=_revealed(resolve_key(provider)),
                api=provider.api,
                max_tokens_field=provider.max_tokens_field,
                transport=_transport(provider),
            )
        case AnthropicSettings():
            from kaizen.providers.anthropic import AnthropicProvider

            return AnthropicProvider(
                name,
                base_url=provider.base_url,
                api_key=_revealed(resolve_key(provider)),
                max_tokens=provider.max_tokens,
                transport=_transport(provider),
            )
        case _:
            assert_never(provider)


def _capabilities(settings: Settings, endpoints: Mapping[str, Endpoint]) -> Capabilities:
    modes: dict[str, OutputMode] = {
        ref: model.output_mode for ref, model in settings.models.items() if model.output_mode is not None
    }
    return Capabilities(modes, endpoints)


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _transport(provider: RemoteSettings) -> TransportSettings:
    from kaizen.providers.http import TransportSettings

    return TransportSettings(
        connections=provider.max_connections,
        connect_timeout=provider.connect_timeout,
        answer_timeout=provider.answer_timeout,
        idle_timeout=provider.idle_timeout,
        max_body=provider.max_body_bytes,
        proxy=_revealed(resolve_proxy(provider)),
    )


def _prices(settings: Settings) -> dict[str, Price]:
    return {
        ref: Price.per_mtok(
            model.input_usd_per_mtok,
            model.output_usd_per_mtok,
            model.cached_input_usd_per_mtok,
            model.cache_write_usd_per_mtok,
        )
        for ref, model in settings.models.items()
        if model.input_usd_per_mtok is not None and model.output_usd_per_mtok is not None
    }


_stores: dict[Path, Store] = {}
_left: list[dict[Path, Store]] = []


def _start_anew() -> None:
    """In a forked child: build the App again.

    The parent's threads, the stores' among them, are not there, one of them may have held our lock, and SQLite's
    connections must not be used, nor closed, on both sides of a fork.
    """
    global _lock, _current, _stores
    _left.append(_stores)
    _lock, _current, _stores = threading.Lock(), None, {}


os.register_at_fork(after_in_child=_start_anew)


def _process_store(home: Path) -> Store:
    """The store of the process's Apps at a home: one, however often the process is configured anew."""
    path = _file(home)
    if path not in _stores:
        _stores[path] = _sqlite(path)
    return _stores[path]


def _file(home: Path) -> Path:
    return home.absolute() / "ledger.db"


def _sqlite(path: Path) -> Store:
    from kaizen.stores.sqlite import SqliteStore

    return SqliteStore(path)


def _same(provider: Provider) -> Provider:
    return provider


def _retries(settings: Settings) -> Retries:
    own = settings.inference
    return Retries(own.attempts, own.backoff, own.backoff_max, own.retry_after_max)


def _defaults(settings: Settings, capabilities: Capabilities) -> Callable[[str | None], Params]:
    """The params a program falls back to: the settings', and the way its model can answer."""
    own = settings.defaults
    fallback = Params(
        temperature=own.temperature,
        top_p=own.top_p,
        max_tokens=own.max_tokens,
        seed=own.seed,
        stop=own.stop,
        output_mode=own.output_mode,
        repairs=1 if own.repairs is None else own.repairs,
    )

    def defaults(model: str | None) -> Params:
        ref = model or settings.model or DEFAULT_MODEL
        mode = fallback.output_mode or capabilities.output_mode(ref)
        return replace(fallback, model=ref, output_mode=mode)

    return defaults
