"""The layers of the onion as the settings want them; ``kaizen.inference.onion`` has their order."""

from __future__ import annotations

from functools import partial

from kaizen.app.batches import with_batch
from kaizen.app.compression import with_compress
from kaizen.app.failover import with_failover
from kaizen.app.semantic import with_semantic
from kaizen.core.protocols import Cache
from kaizen.inference.exact import ExactCache, ExactCounts
from kaizen.inference.onion import Layer, Layers
from kaizen.inference.prices import PriceTable
from kaizen.inference.retry import Retries
from kaizen.settings import Settings


def make_layers(settings: Settings, prices: PriceTable, cache: Cache, counts: ExactCounts | None = None) -> Layers:
    """The layers that are on. Each is imported when it is.

    Args:
        settings: which.
        prices: what tokens cost.
        cache: where answers are kept.
        counts: where the exact cache counts what it does.
    """
    own = settings.inference
    layers = Layers(meter=own.meter.enabled, exact=_exact(settings, prices, cache, counts))
    layers = with_compress(with_semantic(layers, settings, prices, cache), settings, prices)
    return with_batch(with_failover(layers, settings, prices), settings, prices)


def _exact(settings: Settings, prices: PriceTable, cache: Cache, counts: ExactCounts | None) -> Layer | None:
    own = settings.inference.exact
    if own.enabled is False:
        return None
    return partial(
        ExactCache,
        cache=cache,
        prices=prices,
        by_default=own.enabled is True,
        ttl=own.ttl,
        max_bytes=own.max_bytes,
        counts=counts,
    )


def retries(settings: Settings) -> Retries:
    """How often and how patiently to ask again."""
    own = settings.inference
    return Retries(own.attempts, own.backoff, own.backoff_max, own.retry_after_max)
