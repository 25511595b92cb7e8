"""Answers get their cost, and wait for no table on the loop."""

from __future__ import annotations

import threading
from contextlib import aclosing
from dataclasses import replace

import pytest

from kaizen.core.errors import Unavailable
from kaizen.core.request import Usage
from kaizen.inference import prices
from kaizen.inference.endpoint import Endpoint
from kaizen.inference.meter import Meter
from kaizen.inference.prices import Price, PriceTable, Quote
from tests.unit.inference.calls import HELLO, REPLY, Scripted, asking

OWN = {"mine/large": Price.per_mtok(10.0, 30.0)}
VENDOR = {"v": Endpoint("openai", "https://v.example/v1")}


async def test_a_reply_gets_its_cost() -> None:
    meter = Meter(Scripted(REPLY, letters=2), PriceTable(OWN, {}))
    reply = await meter.complete(HELLO)
    assert reply == replace(REPLY, cost_usd=pytest.approx(0.01 + 0.003))
    chunks = [chunk async for chunk in meter.stream(HELLO)]
    assert [chunk.text for chunk in chunks] == ["a", "b", ""]
    assert chunks[-1].reply == reply


async def test_the_model_that_answered_is_billed() -> None:
    meter = Meter(Scripted(REPLY), PriceTable(OWN, {}))
    assert (await meter.complete(asking("other/model"))).cost_usd == pytest.approx(0.013)


async def test_an_unknown_price_is_none_and_the_embedded_one_is_zero() -> None:
    table = PriceTable({}, {"embedded": Endpoint("embedded")})
    assert (await Meter(Scripted(REPLY), table).complete(HELLO)).cost_usd is None
    ours = replace(REPLY, model="embedded/smollm2-135m")
    assert (await Meter(Scripted(ours), table).complete(asking(ours.model))).cost_usd == 0.0


@pytest.mark.parametrize("cost", [0.0, 1.25])
async def test_a_cost_that_is_set_stays(cost: float) -> None:
    reply = replace(REPLY, cost_usd=cost)
    assert await Meter(Scripted(reply), PriceTable(OWN, {})).complete(HELLO) is reply


async def test_the_table_is_read_once_in_another_thread_while_the_model_works(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    read, answered = threading.Event(), []

    def listed(model: str, base_url: str) -> Quote:
        assert (model, base_url) == ("m", "https://v.example/v1")
        threads.append(threading.current_thread().name)
        read.set()
        return Quote(Price.per_mtok(1.0, 1.0))

    monkeypatch.setattr(prices, "_listed", listed)
    reply = replace(REPLY, model="v/m", usage=Usage(tokens_in=1_000_000))
    inner = Scripted(lambda: answered.append(read.wait(5.0)), reply)
    meter = Meter(inner, PriceTable({}, VENDOR))
    await meter.complete(asking("v/m"))
    assert answered == [True]
    assert (await meter.complete(asking("v/m"))).cost_usd == pytest.approx(1.0)
    assert len(threads) == 1
    assert threads[0] != threading.current_thread().name


async def test_a_model_not_asked_for_is_looked_up_after_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def listed(model: str, base_url: str) -> Quote:
        threads.append(threading.current_thread())
        return Quote(Price.per_mtok(1.0, 1.0))

    monkeypatch.setattr(prices, "_listed", listed)
    reply = replace(REPLY, model="v/m", usage=Usage(tokens_out=1_000_000))
    meter = Meter(Scripted(reply), PriceTable({}, VENDOR))
    assert (await meter.complete(HELLO)).cost_usd == pytest.approx(1.0)
    assert threads[0] is not threading.current_thread()


async def test_the_price_of_an_expired_quote_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    quotes = iter([Quote(Price.per_mtok(1.0, 1.0), until=0.0), Quote(Price.per_mtok(2.0, 2.0))])
    monkeypatch.setattr(prices, "_listed", lambda *_: next(quotes))
    table = PriceTable({}, VENDOR)
    table.look_up("v/m")
    reply = replace(REPLY, model="v/m", usage=Usage(tokens_in=1_000_000))
    assert (await Meter(Scripted(reply), table).complete(asking("v/m"))).cost_usd == pytest.approx(2.0)


async def test_errors_pass() -> None:
    with pytest.raises(Unavailable):
        await Meter(Scripted(Unavailable("503")), PriceTable(OWN, {})).complete(HELLO)


async def test_closing_a_stream_closes_the_one_below() -> None:
    inner = Scripted(REPLY, letters=3)
    async with aclosing(Meter(inner, PriceTable(OWN, {})).stream(HELLO)) as chunks:
        assert (await anext(chunks)).text == "a"
    assert inner.closed == 1
