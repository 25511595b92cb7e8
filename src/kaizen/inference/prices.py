"""What tokens cost: the user's own prices, then the maintained table of ``genai-prices``, else unknown."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kaizen.core.request import Usage
from kaizen.inference.endpoint import Endpoint

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

_MTOK: Final = 1e6
# Prices that change by the hour or from a day on are looked up again after this many seconds.
_REFRESH: Final = 60.0


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per token, and per call. ``output`` is None where it is not known."""

    input: float
    output: float | None
    cached: float
    cache_write: float
    reasoning: float
    call: float = 0.0


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost.

    Args:
        rates: dollars per token.
        tiers: by rising number of prompt tokens, the rates for all tokens of a longer prompt.
    """

    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()

    @classmethod
    def per_mtok(
        cls,
        input_usd: float,
        output_usd: float,
        cached_input_usd: float | None = None,
        cache_write_usd: float | None = None,
        call_usd: float = 0.0,
    ) -> Price:
        """A price in US dollars per million tokens; cached and cache-written ones cost the input's if not given.

        ``call_usd`` is what each call costs besides.
        """
        cached = input_usd if cached_input_usd is None else cached_input_usd
        written = input_usd if cache_write_usd is None else cache_write_usd
        out = output_usd / _MTOK
        return cls(Rates(input_usd / _MTOK, out, cached / _MTOK, written / _MTOK, out, call_usd))

    def cost(self, usage: Usage) -> float | None:
        """US dollars for this usage; None where a token was written and its price is not known."""
        rates = self.rates
        tokens_in, tokens_out = usage.tokens_in, usage.tokens_out
        for start, above in self.tiers:
            if tokens_in > start:
                rates = above
        cached, written, reasoning = usage.tokens_cached, usage.tokens_cache_write, usage.tokens_reasoning
        cost = rates.call + rates.input * max(0, tokens_in - cached - written)
        if cached or written:
            cost += rates.cached * cached + rates.cache_write * written
        if tokens_out:
            if rates.output is None:
                return None
            cost += rates.output * max(0, tokens_out - reasoning) + rates.reasoning * reasoning
        return cost


FREE: Final = Price.per_mtok(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Quote:
    """A looked-up price, None where it is not known, and the ``time.monotonic()`` until which it holds."""

    price: Price | None
    until: float = math.inf


class PriceTable:
    """Prices by model ref, each looked up once.

    The table that ``genai-prices`` carries is read at the first need, never fetched. It lists vendors by
    address, so a provider's base URL decides whose price a model has, not its name: a model that
    somebody serves himself has no price there. The embedded models run on your own machine and cost 0.

    Args:
        own: prices from the settings by model ref; they go before all others.
        endpoints: providers by name. One that is missing has no price beyond ``own``.
    """

    def __init__(self, own: Mapping[str, Price], endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints
        self._quotes = {ref: Quote(price) for ref, price in own.items()}
        self._reading = threading.Lock()

    def quote(self, ref: str) -> Quote | None:
        """The price of a ref if it is at hand, or None: then ``look_up`` has to read the table."""
        quote = self._quotes.get(ref)
        if quote is not None:
            return quote if quote.until > time.monotonic() else None
        endpoint = self._endpoints.get(ref.partition("/")[0])
        if endpoint is None or endpoint.local:
            free = endpoint is not None and endpoint.kind == "embedded"
            quote = self._quotes[ref] = Quote(FREE if free else None)
        return quote

    def look_up(self, ref: str) -> Quote:
        """The price of a ref, read from the table where need be: slow the first time, so call it in a thread."""
        with self._reading:  # importing half a table in two threads at once helps nobody
            quote = self.quote(ref)
            if quote is None:
                name, _, model = ref.partition("/")
                quote = self._quotes[ref] = _listed(model, self._endpoints[name].base_url)
            return quote

    async def price(self, ref: str) -> Price | None:
        """The price of a ref, or None where it is not known; the table is read in a thread."""
        quote = self.quote(ref) or await asyncio.to_thread(self.look_up, ref)
        return quote.price


def _listed(model: str, base_url: str) -> Quote:
    """What the maintained table says about a vendor's model."""
    from genai_prices import data_snapshot

    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return Quote(None)
    # a list is a choice by date or hour of day
    until = time.monotonic() + _REFRESH if isinstance(found.prices, list) else math.inf
    return Quote(_price(found.get_prices(datetime.now(tz=UTC))), until)


def _price(listed: ModelPrice) -> Price | None:
    """A listed price in our terms; None where it says nothing about prompt tokens."""
    from genai_prices.types import TieredPrices

    keys = ("input", "output", "cache_read", "cache_write", "output_reasoning")
    prices = [getattr(listed, f"{key}_mtok") for key in keys]
    calls = float(listed.requests_kcount or 0) / 1e3 if not isinstance(listed.requests_kcount, TieredPrices) else 0.0
    starts = sorted({tier.start for price in prices if isinstance(price, TieredPrices) for tier in price.tiers})

    def rates(tokens_in: int) -> Rates | None:
        at: list[float | None] = []
        for price in prices:
            if isinstance(price, TieredPrices):
                price = next((t.price for t in reversed(price.tiers) if tokens_in > t.start), price.base)
            at.append(None if price is None else float(price) / _MTOK)
        usd_in, out, cached, written, reasoning = at
        if usd_in is None:
            return None
        return Rates(
            usd_in,
            out,
            usd_in if cached is None else cached,
            usd_in if written is None else written,
            (out or 0.0) if reasoning is None else reasoning,
            calls,
        )

    base = rates(0)
    return base and Price(base, tuple((start, above) for start in starts if (above := rates(start + 1))))
