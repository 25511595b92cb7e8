"""What tokens cost, against the table's own arithmetic."""

from __future__ import annotations

import datetime
import itertools
import random
import time
from decimal import Decimal

import genai_prices
import pytest
from genai_prices import data_snapshot, types

from kaizen.core.request import Usage
from kaizen.inference import prices
from kaizen.inference.endpoint import Endpoint
from kaizen.inference.prices import FREE, Price, PriceTable

OPENAI = Endpoint("openai", "https://api.openai.com/v1")
ANTHROPIC = Endpoint("anthropic", "https://api.anthropic.com")


def test_prices_per_million_tokens() -> None:
    price = Price.per_mtok(10.0, 30.0)
    assert price.cost(Usage(tokens_in=1_000_000, tokens_out=100_000)) == pytest.approx(13.0)
    assert price.cost(Usage(tokens_in=1_000_000, tokens_cached=1_000_000)) == pytest.approx(10.0)
    assert price.cost(Usage()) == 0.0


def test_cached_and_written_tokens_have_their_own_price() -> None:
    price = Price.per_mtok(10.0, 30.0, cached_input_usd=1.0, cache_write_usd=12.0)
    usage = Usage(tokens_in=1_000_000, tokens_cached=500_000, tokens_cache_write=100_000)
    assert price.cost(usage) == pytest.approx(4.0 + 0.5 + 1.2)


def test_a_call_can_have_a_price_besides_its_tokens() -> None:
    price = Price.per_mtok(10.0, 30.0, call_usd=0.5)
    assert price.cost(Usage(tokens_in=1_000_000)) == pytest.approx(10.5)
    assert Price.per_mtok(0.0, 0.0, call_usd=0.04).cost(Usage(tokens_in=9, tokens_out=9)) == 0.04


def test_a_cached_token_can_be_free() -> None:
    assert Price.per_mtok(10.0, 30.0, cached_input_usd=0.0).cost(Usage(tokens_in=9, tokens_cached=9)) == 0.0


def test_own_prices_go_first_and_unknown_ones_are_none() -> None:
    own = Price.per_mtok(1.0, 2.0)
    table = PriceTable(
        {"openai/gpt-4o-mini": own, "embedded/big": own}, {"openai": OPENAI, "embedded": Endpoint("embedded")}
    )
    assert table.look_up("openai/gpt-4o-mini").price is own
    assert table.look_up("embedded/big").price is own
    assert table.look_up("embedded/smollm2-135m").price is FREE
    assert table.look_up("openai/gpt-99-nobody").price is None
    assert table.look_up("nobody/x").price is None


def test_a_server_of_ones_own_has_no_price_and_the_table_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "_listed", lambda *_: pytest.fail("the table was read"))
    table = PriceTable({}, {"ollama": Endpoint("openai", "http://127.0.0.1:11434/v1")})
    quote = table.quote("ollama/gpt-4o")
    assert quote is not None
    assert quote.price is None


def test_a_vendor_is_known_by_its_address_not_its_name() -> None:
    endpoints = {
        "openai": Endpoint("openai", "https://gateway.example.com/v1"),
        "router": Endpoint("openai", "https://openrouter.ai/api/v1"),
        "g": Endpoint("openai", "https://generativelanguage.googleapis.com/v1beta/openai"),
    }
    table = PriceTable({}, endpoints)
    assert table.look_up("openai/gpt-4o-mini").price is None
    assert table.look_up("router/openai/gpt-4o-mini").price is not None
    assert table.look_up("g/gemini-2.5-flash").price is not None


def test_a_ref_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = PriceTable({}, {"openai": OPENAI})
    assert table.quote("openai/gpt-4o-mini") is None
    first = table.look_up("openai/gpt-4o-mini")
    monkeypatch.setattr(prices, "_listed", lambda *_: pytest.fail("read again"))
    assert table.quote("openai/gpt-4o-mini") is first
    assert table.look_up("openai/gpt-4o-mini") is first


def test_what_changes_by_the_hour_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    clock = [now]
    monkeypatch.setattr(prices.time, "monotonic", lambda: clock[0])
    by_hour = types.ModelInfo(
        id="m",
        match=types.ClauseEquals("m"),
        prices=[
            types.ConditionalPrice(prices=types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2))),
            types.ConditionalPrice(
                types.StartDateConstraint(datetime.date(2020, 1, 1)),
                prices=types.ModelPrice(input_mtok=Decimal(3), output_mtok=Decimal(4)),
            ),
        ],
    )
    vendor = types.Provider(id="v", name="v", api_pattern=r"https://v\.example", models=[by_hour])
    monkeypatch.setattr(data_snapshot, "get_snapshot", lambda: data_snapshot.DataSnapshot([vendor], False))
    table = PriceTable({}, {"v": Endpoint("openai", "https://v.example")})
    quote = table.look_up("v/m")
    assert quote.price is not None
    assert quote.price.cost(Usage(tokens_in=1_000_000)) == pytest.approx(3.0)
    assert table.quote("v/m") is quote
    clock[0] += 61.0
    assert table.quote("v/m") is None
    assert table.look_up("v/m") is not quote


def listed() -> list[tuple[types.Provider, types.ModelInfo]]:
    """A sample of the table, all models with tiers, calls, reasoning or a missing price among them."""
    every = [(vendor, model) for vendor in data_snapshot.get_snapshot().providers for model in vendor.models]
    odd = [pair for pair in every if {"tier", "calls"} & kinds(pair[1])]
    return odd + random.Random(7).sample(every, 200)


def kinds(model: types.ModelInfo) -> set[str]:
    now = vars(model.get_prices(datetime.datetime.now(datetime.UTC)))
    found = {
        "calls"
        for key, value in now.items()
        if value is not None and key in ("requests_kcount", "output_reasoning_mtok")
    }
    return found | {"tier" for value in now.values() if isinstance(value, types.TieredPrices)}


def test_costs_are_the_tables_own() -> None:
    compared = 0
    usages = [
        Usage(tokens_in=tokens_in, tokens_out=tokens_out, tokens_cached=tokens_in // cached if cached else 0)
        for tokens_in, tokens_out, cached in itertools.product((1, 1000, 250_000, 2_000_000), (0, 700), (0, 2))
    ] + [Usage(tokens_in=9_000, tokens_out=900, tokens_cached=2_000, tokens_cache_write=5_000, tokens_reasoning=300)]
    for vendor, model in listed():
        now = model.get_prices(datetime.datetime.now(datetime.UTC))
        ours = prices._price(now)
        assert (ours is None) == (now.input_mtok is None)
        if ours is None:
            continue
        edges = [Usage(tokens_in=start + more, tokens_out=5) for start, _ in ours.tiers for more in (0, 1)]
        for usage in usages + edges:
            counts = {
                "input_tokens": usage.tokens_in,
                "output_tokens": usage.tokens_out,
                "cache_read_tokens": usage.tokens_cached,
                "cache_write_tokens": usage.tokens_cache_write,
                "output_reasoning_tokens": usage.tokens_reasoning,
            }
            theirs = now.calc_price(genai_prices.Usage(**counts))["total_price"]
            cost = ours.cost(usage)
            if now.output_mtok is None and usage.tokens_out:
                assert cost is None, (vendor.id, model.id)
                continue
            assert cost == pytest.approx(float(theirs), rel=1e-9), (vendor.id, model.id, usage, now)
            compared += 1
    assert compared > 2000


def test_a_count_that_does_not_add_up_never_lowers_the_cost() -> None:
    price = Price.per_mtok(10.0, 30.0)
    assert price.cost(Usage(tokens_in=10, tokens_cached=20)) == pytest.approx(20 * 10 / 1e6)
