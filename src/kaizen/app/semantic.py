"""The semantic cache, as the settings want it."""

from __future__ import annotations

import platform
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from kaizen.app.storage import not_installed
from kaizen.core.errors import ConfigError
from kaizen.core.protocols import Cache, VectorIndex
from kaizen.inference.onion import Layers
from kaizen.inference.prices import PriceTable
from kaizen.settings import Settings

if TYPE_CHECKING:
    from kaizen.inference.semantic import EvidenceBook

# A caller waits for the index: one that is out of reach costs a miss, not the caller's patience.
_PATIENCE_S: Final = 2.0


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
    book = book or make_book(settings, cache)
    from kaizen.inference.semantic import Questions, Rules, SemanticCache
    from kaizen.providers.embed.wordllama import WordLlamaEmbedder

    shared = settings.storage.database_url is not None
    layer = partial(
        SemanticCache,
        questions=Questions(
            cache=cache,
            index=_index(settings),
            embedder=WordLlamaEmbedder(),
            book=book,
            ttl=own.ttl,
            shared=shared,
            place=_place(settings) if shared else "",
        ),
        prices=prices,
        rules=Rules(false_hits=own.false_hits, explore=own.explore, wrong_usd=own.wrong_usd),
    )
    return replace(layers, semantic=layer)


def _index(settings: Settings) -> VectorIndex:
    """Where questions lie: in PostgreSQL where ``storage.database_url`` names one, else in this process.

    Raises:
        ConfigError: the extra is not installed.
    """
    own, url = settings.inference.semantic, settings.storage.database_url
    if url is None:
        from kaizen.stores.vectors import MemoryVectors

        return MemoryVectors(own.max_entries)
    try:
        from kaizen.stores.postgres.vectors import PgVectorIndex
    except ImportError as error:
        raise not_installed("storage.database_url", "postgres") from error
    return PgVectorIndex(url.get_secret_value(), patience=_PATIENCE_S, max_age=own.ttl)


def _place(settings: Settings) -> str:
    """What tells the answers of one cache from those of another, whose questions lie in the same database."""
    if settings.storage.redis_url is not None:
        return ""  # all who share the one may share the other
    return f"{platform.node()}:{settings.home.absolute()}"


def make_book(settings: Settings, cache: Cache) -> EvidenceBook:
    """The evidence that lies in a cache. What it counts is what its own process did.

    Raises:
        ConfigError: if what it needs is not installed.
    """
    missing = [name for name in ("numpy", "wordllama") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f'inference.semantic needs {" and ".join(missing)}, not installed: pip install "kaizen-engine[semantic]"'
        )
    from kaizen.inference.semantic import EvidenceBook

    own = settings.inference.semantic
    return EvidenceBook(cache, budget=own.false_hits, explore=own.explore)
