"""What happens when a model fails, as the settings want it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from kaizen.app.adapters import embedded_models
from kaizen.core.errors import ConfigError
from kaizen.core.request import Request
from kaizen.inference.ceiling import Ceiling
from kaizen.inference.failover.chain import Failover, Fallbacks
from kaizen.inference.failover.health import Health
from kaizen.inference.failover.hedge import Hedge
from kaizen.inference.failover.vitals import Limits
from kaizen.inference.onion import Layers
from kaizen.inference.prices import PriceTable
from kaizen.settings import EmbeddedSettings, Settings


def with_failover(layers: Layers, settings: Settings, prices: PriceTable) -> Layers:
    """The layers with those of this page. Health is measured in any case: pages and routing live on it.

    Raises:
        ConfigError: for a fallback of a provider that is not there.
    """
    own = settings.inference.failover
    limits = Limits(own.window, own.minimum, own.errors, own.cooldown, own.slow, own.drop, breaks=own.enabled)
    health = Health(limits)
    if not own.enabled:
        return replace(layers, health=health)
    chains = {str(ref): refs for ref, refs in own.fallbacks.items()}
    _check(chains, settings)
    fallbacks = Fallbacks(chains, dict(_contexts(settings)) if chains else {}, own.patience)
    ceiling = Ceiling(prices, {ref: model.max_output_tokens for ref, model in settings.models.items()})

    def bound(request: Request) -> float | None:
        return ceiling(request)[1].usd

    return replace(
        layers,
        health=health,
        hedge=partial(Hedge, health=health, prices=prices, second=fallbacks.after, always=own.hedge),
        failover=partial(Failover, fallbacks=fallbacks, bound=bound) if chains else None,  # nobody to turn to
        patience=fallbacks.wait_for,
        candidates=fallbacks.candidates,
    )


def _contexts(settings: Settings) -> Iterator[tuple[str, int]]:
    for name, provider in settings.providers.items():
        if isinstance(provider, EmbeddedSettings):
            yield from ((f"{name}/{model}", provider.context) for model in embedded_models(provider))
    for ref, model in settings.models.items():
        if model.context_tokens is not None:
            yield ref, model.context_tokens


def _check(chains: dict[str, tuple[str, ...]], settings: Settings) -> None:
    known = {*settings.providers, *settings.custom}
    for ref, refs in chains.items():
        for name in (one.partition("/")[0] for one in refs):
            if name not in known:
                raise ConfigError(
                    f"inference.failover.fallbacks.{ref}: no provider {name!r}; they are {', '.join(sorted(known))}"
                )
