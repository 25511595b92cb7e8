"""The semantic cache, as the settings want it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kaizen.core.errors import ConfigError
from kaizen.core.protocols import Cache
from kaizen.inference.onion import Layers
from kaizen.inference.prices import PriceTable
from kaizen.settings import Settings

if TYPE_CHECKING:
    from kaizen.inference.semantic import EvidenceBook


def with_semantic(
    layers: Layers, settings: Settings, prices: PriceTable, cache: Cache, book: EvidenceBook | None = None
) -> Layers:
    """The layers with the semantic cache, if it is on.

    Args:
        layers: those made so far.
        settings: whether it is on, and how.
        prices: what tokens cost.
        cache: where answers and evidence are kept.
        book: the evidence, for who wants to see its stats; by default one of the layer's own over the same cache.

    Raises:
        ConfigError: if what it needs is not installed.
    """
    own = settings.inference.semantic
    if not own.enabled:
        return layers
    missing = [name for name in ("numpy", "wordllama") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f'inference.semantic needs {" and ".join(missing)}, not installed: pip install "kaizen-engine[semantic]"'
        )
    from kaizen.inference.semantic import Questions, Rules, SemanticCache
    from kaizen.providers.embed.wordllama import WordLlamaEmbedder
    from kaizen.stores.vectors import MemoryVectors

    layer = partial(
        SemanticCache,
        questions=Questions(
            cache=cache,
            index=MemoryVectors(own.max_entries),
            embedder=WordLlamaEmbedder(),
            book=book or make_book(settings, cache),
            ttl=own.ttl,
        ),
        prices=prices,
        rules=Rules(false_hits=own.false_hits, explore=own.explore, wrong_usd=own.wrong_usd),
    )
    return replace(layers, semantic=layer)


def make_book(settings: Settings, cache: Cache) -> EvidenceBook:
    """The evidence that lies in a cache. What it counts is what its own process did."""
    from kaizen.inference.semantic import EvidenceBook

    own = settings.inference.semantic
    return EvidenceBook(cache, budget=own.false_hits, explore=own.explore)
