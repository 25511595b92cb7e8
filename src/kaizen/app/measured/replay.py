"""What the semantic cache and the token optimisation would have done with recorded calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Final

from kaizen.app import App
from kaizen.app.adapters import endpoint_of, own_prices
from kaizen.app.compression import make_compressor, make_evidence
from kaizen.app.measured.recorded import recorded
from kaizen.core.record import RecordQuery
from kaizen.core.request import Usage
from kaizen.core.scope import Scope
from kaizen.inference.advise.recorded import Recorded
from kaizen.inference.advise.traffic import Advice
from kaizen.inference.prices import PriceTable

_NEWEST: Final = 5000  # each is embedded and looked for: some milliseconds
_BYTES: Final = 256 * 1024 * 1024


async def replay(app: App, scope: Scope, query: RecordQuery) -> Sequence[Advice]:
    """Replay the newest calls whose contents are kept, 5,000 at most; nothing where what it takes is not installed."""
    if any(find_spec(name) is None for name in ("numpy", "wordllama")):
        return ()
    newest = replace(query, newest_first=True, limit=_NEWEST)
    calls = [one async for one in recorded(app, scope, newest)]
    endpoints = {name: endpoint_of(one) for name, one in app.settings.providers.items()}
    prices = PriceTable(own_prices(app.settings), endpoints)
    return [*await _semantic(app, calls, prices), *await _compress(app, calls, _reprice(prices))]


async def _semantic(app: App, calls: Sequence[Recorded], prices: PriceTable) -> list[Advice]:
    from kaizen.inference.advise.semantic import advise_semantic
    from kaizen.inference.semantic import Rules
    from kaizen.providers.embed.wordllama import WordLlamaEmbedder
    from kaizen.stores.cache.memory import MemoryCache
    from kaizen.stores.vectors import MemoryVectors

    own = app.settings.inference.semantic
    return await advise_semantic(
        _each(calls[::-1]),
        cache=MemoryCache(_BYTES),
        index=MemoryVectors(own.max_entries),
        embedder=WordLlamaEmbedder(),
        prices=prices,
        rules=Rules(false_hits=own.false_hits, wrong_usd=own.wrong_usd),
    )


async def _compress(app: App, calls: Sequence[Recorded], reprice: Callable[[str, Usage], float | None]) -> list[Advice]:
    from kaizen.inference.advise.compress import advise_compress

    return await advise_compress(
        _each(calls),
        compressor=make_compressor(app.settings),
        evidence=make_evidence(app.settings),
        limit=app.settings.inference.compress.risk,
        reprice=reprice,
    )


async def _each(calls: Sequence[Recorded]) -> AsyncIterator[Recorded]:
    for call in calls:
        yield call


def _reprice(prices: PriceTable) -> Callable[[str, Usage], float | None]:
    def reprice(ref: str, usage: Usage) -> float | None:
        price = prices.look_up(ref).price
        return None if price is None else price.cost(usage)

    return reprice
