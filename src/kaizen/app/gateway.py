"""The gateway, joined: an App, who may call it, and what it serves."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Final

from kaizen.app import App
from kaizen.app.adapters import DEFAULT_MODEL, embedded_models, own_prices
from kaizen.app.batches import Embedders
from kaizen.core.errors import ConfigError, NotFound
from kaizen.core.identity import Authenticator
from kaizen.core.ids import new_id
from kaizen.core.protocols import Embedder, Policy
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Usage
from kaizen.core.scope import Scope
from kaizen.programs.embed import Embedding
from kaizen.serve.http.backend import Backend, Model, Readiness
from kaizen.settings import EmbeddedSettings, RemoteSettings, Settings, merge, resolve_key
from kaizen.settings.tree import LiteLLMSettings

WORDLLAMA: Final = "embedded/wordllama"
_PROBE_S: Final = 3.0
_NOBODY: Final = Scope("kaizen", "health")


class Names:
    """The models that callers can name, and what their names stand for.

    Args:
        settings: aliases, models and providers.
    """

    def __init__(self, settings: Settings) -> None:
        self._aliases = dict(settings.aliases)
        self._default = settings.model or DEFAULT_MODEL
        self._providers = frozenset(
            {*settings.custom, *(name for name in settings.providers if _has_key(settings, name))}
            | ({"route"} if settings.inference.route.enabled else set())  # names of choices: route/auto, route/<group>
        )
        self._kinds = {name: one.kind for name, one in settings.providers.items()}
        self._refs = sorted(
            {self._default, *settings.models, *settings.aliases.values(), *_embedded(settings), *_embedders(settings)}
        )
        self._started = int(time.time())
        # a name without its provider, where only one model is called so
        short: dict[str, list[str]] = {}
        for ref in self._refs:
            short.setdefault(ref.partition("/")[2], []).append(ref)
        self._short = {name: refs[0] for name, refs in short.items() if len(refs) == 1}

    def resolve(self, name: str, vendor: str) -> str:
        """The ref that a name stands for: an alias, a ref, a known model's short name, or a model of the vendor's.

        Raises:
            NotFound: it stands for none.
        """
        ref = self._aliases.get(name)
        if ref is not None:
            return ref
        provider, slash, model = name.partition("/")
        if slash and model and provider in self._providers:
            return name
        if name == "default":
            return self._default
        if name in self._short:
            return self._short[name]
        # such as meta/llama-3 of a provider that names its models so, or gpt-4o-mini, as the vendor's clients say
        if name and not slash and vendor in self._providers:
            return f"{vendor}/{name}"
        if slash and provider in self._kinds:
            raise NotFound(f"the provider {provider!r} has no key on this gateway", detail={"param": "model"})
        known = ", ".join([*self._aliases, *self._refs])
        raise NotFound(f"no model is called {name[:100]!r}; there are {known}", detail={"param": "model"})

    def models(self) -> Sequence[Model]:
        """All that are known by name. Others of a provider can be asked too."""
        names: dict[str, list[str]] = {}
        for alias, ref in self._aliases.items():
            names.setdefault(ref, []).append(alias)
        return [
            Model(ref, self._kinds.get(ref.partition("/")[0], "custom"), self._started, tuple(names.get(ref, ())))
            for ref in self._refs
        ]


def _has_key(settings: Settings, name: str) -> bool:
    """Whether a provider has the key that it wants."""
    provider = settings.providers[name]
    if isinstance(provider, EmbeddedSettings | LiteLLMSettings):
        return True
    try:
        resolve_key(provider)
    except ConfigError:
        return False
    return True


def make_backend(app: App, authenticator: Authenticator, policy: Policy | None) -> Backend:
    """What is behind the gateway.

    Args:
        app: runs the calls.
        authenticator: who a credential belongs to.
        policy: the App's own, for calls that pass no onion.
    """
    settings = app.settings
    names = Names(settings)
    factories = Embedders(settings, dict.fromkeys(_embedders(settings), _make_embedder))
    embed = Embedding(factories, ledger=app.ledger, policy=policy, cost=_cost(settings))

    async def steps(record: Record) -> Sequence[Record]:
        query = RecordQuery(run_id=record.run_id, kind="program")
        found = [one async for one in app.ledger.records(record.scope, query) if one.parent_id == record.id]
        return sorted(found, key=lambda one: one.id)

    return Backend(
        contexts=app.context,
        runs=app.start_for,
        steps=steps,
        layers=layers_of(settings),
        authenticator=authenticator,
        resolve=names.resolve,
        models=names.models,
        ready=partial(readiness, app),
        conditions=app.health.snapshot,
        counts=app.counted.rows,
        embed=embed,
        close=app.close,
    )


def layers_of(settings: Settings) -> frozenset[str]:
    """The keys of the layers that are on in a gateway."""
    own = settings.inference
    on = {name: getattr(own, name).enabled for name in ("meter", "semantic", "compress", "route", "batch", "failover")}
    on["exact"] = own.exact.enabled is not False
    return frozenset(name for name, enabled in on.items() if enabled)


def gateway_settings(settings: Settings) -> Settings:
    """The settings as they are in a gateway, where the exact cache is on unless it is switched off."""
    if settings.inference.exact.enabled is not None:
        return settings
    return merge(settings, {"inference": {"exact": {"enabled": True}}})


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


# -- health ---


async def readiness(app: App) -> Readiness:
    """Asks the store for a record and each provider in use for anything.

    It is ready where the store and at least one provider answer.
    """
    settings = app.settings
    names = {ref.partition("/")[0] for ref in _in_use(settings)}
    probes = {f"provider {name}": _provider_state(settings, name) for name in sorted(names)}
    stated = await asyncio.gather(_store_state(app), *probes.values())
    parts = {"store": stated[0], **dict(zip(probes, stated[1:], strict=True))}
    answering = [state == "ok" for name, state in parts.items() if name != "store"]
    return Readiness(parts["store"] == "ok" and any(answering), parts)


def _in_use(settings: Settings) -> set[str]:
    """The refs that the settings name."""
    own = settings.inference
    fallbacks = [ref for refs in own.failover.fallbacks.values() for ref in refs]
    named = {*settings.models, *settings.aliases.values(), *own.route.candidates, *fallbacks}
    return {settings.model or DEFAULT_MODEL, *named}


async def _store_state(app: App) -> str:
    try:
        async with asyncio.timeout(_PROBE_S):
            await app.ledger.store.record(_NOBODY, new_id())
    except Exception as error:  # noqa: BLE001 - whatever a store raises, it does not answer; shown, not swallowed
        return f"does not answer ({type(error).__name__})"
    return "ok"


async def _provider_state(settings: Settings, name: str) -> str:
    provider = settings.providers.get(name)
    match provider:
        case None:
            return "ok" if name in settings.custom else "is not configured"
        case EmbeddedSettings():
            found = embedded_models(provider)
            missing = [
                ref for ref in _in_use(settings) if ref.startswith(f"{name}/") and not found.get(ref[len(name) + 1 :])
            ]
            return f"has no weights for {', '.join(missing)}" if missing else "ok"
        case LiteLLMSettings():
            # it chooses the address by the model's name, so there is nothing to ask without a call
            return "ok" if find_spec("litellm") is not None else "is not installed"
        case _:
            return await asyncio.to_thread(_reached, provider)


def _reached(provider: RemoteSettings) -> str:
    """Whether anything answers at a provider's address. An error of 4xx is an answer: no key is sent."""
    try:
        # the scheme is http or https, as the settings check
        with urllib.request.urlopen(f"{provider.base_url}/models", timeout=_PROBE_S) as reply:  # noqa: S310
            status = reply.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"can't be reached ({type(reason).__name__})"
    return "ok" if status < 500 else f"answers {status}"


# -- embedders ---


def _embedded(settings: Settings) -> set[str]:
    """The embedded models whose weights are there."""
    return {
        f"{name}/{model}"
        for name, provider in settings.providers.items()
        if isinstance(provider, EmbeddedSettings)
        for model, path in embedded_models(provider).items()
        if path is not None
    }


def _embedders(settings: Settings) -> tuple[str, ...]:
    """The embedders that can be asked."""
    return (WORDLLAMA,) if "embedded" in settings.providers and find_spec("wordllama") is not None else ()


def _make_embedder() -> Embedder:
    from kaizen.providers.embed.wordllama import WordLlamaEmbedder

    return WordLlamaEmbedder()


def _cost(settings: Settings) -> Callable[[str, Usage], float | None]:
    """What embedding costs: the settings' prices, and nothing for what runs in this process."""
    prices = own_prices(settings)
    local = {name for name, one in settings.providers.items() if isinstance(one, EmbeddedSettings)}

    def cost(ref: str, usage: Usage) -> float | None:
        if ref in prices:
            return prices[ref].cost(usage)
        return 0.0 if ref.partition("/")[0] in local else None

    return cost
