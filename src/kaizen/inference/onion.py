"""The order of the layers round the adapters. The one place to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kaizen.core.protocols import Provider
from kaizen.core.request import Request
from kaizen.inference.deadline import Deadline
from kaizen.inference.dispatch import Dispatch
from kaizen.inference.failover.health import Health
from kaizen.inference.failover.watch import Watch
from kaizen.inference.meter import Meter
from kaizen.inference.prices import PriceTable
from kaizen.inference.retry import Retries, Retry

Layer: TypeAlias = Callable[[Provider], Provider]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The layers that may be left out: what puts each round the provider below it, or None.

    Args:
        exact: identical calls answered from what was answered before.
        semantic: questions of the same meaning, too.
        compress: fewer tokens.
        route: which model answers.
        batch: calls that wait for others.
        failover: another model where one fails.
        hedge: a second call where the first takes long.
        health: what each attempt is measured in; a model whose circuit is open is not asked.
        patience: for ``Retry``: how long a rate-limited model is waited for that another could stand in for.
        candidates: the models that may come to answer a request, for its ceiling; None is its own.
        meter: whether costs are counted.
    """

    exact: Layer | None = None
    semantic: Layer | None = None
    compress: Layer | None = None
    route: Layer | None = None
    batch: Layer | None = None
    failover: Layer | None = None
    hedge: Layer | None = None
    health: Health | None = None
    patience: Callable[[Request], float | None] | None = None
    candidates: Callable[[Request], Sequence[str]] | None = None
    meter: bool = True


def build_onion(
    adapters: Mapping[str, Callable[[], Provider]],
    *,
    prices: PriceTable,
    retries: Retries,
    layers: Layers = Layers(),
) -> Provider:
    """All layers round the adapters.

    Args:
        adapters: by provider name, what makes its adapter; called at the first request that needs it.
        prices: what a model's tokens cost.
        retries: how often and how patiently to ask again.
        layers: those that may be left out.
    """
    onion: Provider = Dispatch(adapters)  # the adapter that the ref names
    if layers.health is not None:
        onion = Watch(onion, layers.health)  # sees every attempt
    onion = Retry(onion, retries, patience=layers.patience)  # asks again; no client below does
    for layer in (
        layers.hedge,
        layers.failover,
        layers.batch,
        layers.route,
        layers.compress,
        layers.semantic,
        layers.exact,
    ):
        if layer is not None:
            onion = layer(onion)
    onion = Deadline(onion)  # bounds all attempts together
    return Meter(onion, prices) if layers.meter else onion  # what the answer cost
