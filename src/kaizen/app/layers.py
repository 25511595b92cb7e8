"""The layers of the onion as the settings want them; ``kaizen.inference.onion`` has their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from kaizen.app.batches import with_batch
from kaizen.app.compression import with_compress
from kaizen.app.failover import with_failover
from kaizen.app.semantic import make_book, with_semantic
from kaizen.core.protocols import Cache
from kaizen.inference.exact import ExactCache, ExactCounts
from kaizen.inference.onion import Layer, Layers
from kaizen.inference.prices import PriceTable
from kaizen.inference.retry import Retries
from kaizen.settings import Settings

if TYPE_CHECKING:
    from kaizen.inference.semantic import EvidenceBook


@dataclass(slots=True)
class Counted:
    """What the caches of this process count as they go.

    Attributes:
        exact: the exact cache's.
        semantic: the semantic cache's, beside its evidence; None where it is off.
    """

    exact: ExactCounts = field(default_factory=ExactCounts)
    semantic: EvidenceBook | None = None

    def rows(self) -> list[tuple[str, str, int]]:
        """Layer, event, how often so far; of all scopes together."""
        rows = [("exact", name, getattr(self.exact, name)) for name in ExactCounts.__slots__]
        totals = dict[str, int]() if self.semantic is None else self.semantic.totals()
        return rows + [("semantic", name, count) for name, count in totals.items()]


def make_layers(settings: Settings, prices: PriceTable, cache: Cache, counted: Counted | None = None) -> Layers:
    """The layers that are on. Each is imported when it is.

    Args:
        settings: which.
        prices: what tokens cost.
        cache: where answers are kept.
        counted: where the caches count what they do.
    """
    own, counted = settings.inference, counted or Counted()
    layers = Layers(meter=own.meter.enabled, exact=_exact(settings, prices, cache, counted.exact))
    if own.semantic.enabled:
        counted.semantic = make_book(settings, cache)
        layers = with_semantic(layers, settings, prices, cache, counted.semantic)
    layers = with_compress(layers, settings, prices)
    return with_batch(with_failover(layers, settings, prices), settings, prices)


def _exact(settings: Settings, prices: PriceTable, cache: Cache, counts: ExactCounts) -> Layer | None:
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
