"""Advice is what recorded calls would have cost otherwise, with the quality that was measured on them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic_core import to_json

from kaizen.core.ids import new_id
from kaizen.core.message import ToolCall
from kaizen.core.record import Payload, Record
from kaizen.core.request import Reply, Usage
from kaizen.core.scope import LOCAL, Scope
from kaizen.inference.advise.traffic import Advice, advise
from kaizen.ledger.intervals import wilson
from kaizen.ledger.ledger import Ledger
from kaizen.stores.memory import MemoryStore

DAY = 86_400.0


class Traffic:
    """Recorded calls, as the runner keeps them."""

    def __init__(self) -> None:
        self.ledger = Ledger(MemoryStore(), bytes(32))
        self.clock = 1e9

    async def call(self, asked: str, said: str, *, scope: Scope = LOCAL, after: float = 1.0, **more: Any) -> Record:
        self.clock += after
        given = {"model": "mine/large", "cost_usd": 0.5, "tokens_in": 100, "tokens_out": 10, "status": "ok"} | more
        call = self.ledger.seal(scope, asked.encode())
        calls = given.pop("calls", ())
        reply = self.ledger.seal(scope, to_json(Reply(model=given["model"], text=said, tool_calls=calls)))
        kept = Record(
            id=new_id(), kind="model", ref=given["model"], run_id=new_id(), scope=scope, started_at=self.clock,
            input_digest=call.digest, output_digest=reply.digest, attempts=1, model_calls=1, step="0", **given,
        )  # fmt: skip
        await self.ledger.append(scope, [kept], [Payload(call.digest, call.data), reply])
        return kept

    async def score(self, about: str, value: float) -> None:
        score = Record(
            id=new_id(),
            kind="score",
            ref="right",
            run_id=new_id(),
            scope=LOCAL,
            started_at=1e9,
            about=about,
            value=value,
        )
        await self.ledger.append(LOCAL, [score])

    async def advise(self, **how: Any) -> Sequence[Advice]:
        prices = {"mine/large": 1e-3, "mine/small": 1e-4}

        def reprice(ref: str, usage: Usage) -> float | None:
            price = prices.get(ref)
            return None if price is None else price * (usage.tokens_in + usage.tokens_out)

        return await advise(self.ledger, LOCAL, reprice, **how)


async def test_without_repeats_and_scores_there_is_no_advice() -> None:
    traffic = Traffic()
    await traffic.call("a", "1")
    await traffic.call("b", "1")
    assert await traffic.advise() == []


async def test_repeated_calls_are_what_the_exact_cache_would_have_saved() -> None:
    traffic = Traffic()
    await traffic.call("a", "yes")
    await traffic.call("a", " yes\n")
    await traffic.call("a", "no")
    await traffic.call("a", "yes", scope=Scope("other", "dev"))
    await traffic.call("a", "", cost_usd=None, status="error")
    await traffic.call("a", "yes", cache_tier="exact", cost_usd=0.0)
    (found,) = await traffic.advise()
    assert (found.calls, found.saved_usd, found.quality, found.n) == (2, 1.0, 0.5, 2)
    assert (found.low, found.high) == pytest.approx(wilson(1, 2))
    assert "inference.exact.enabled" in found.change


async def test_tool_calls_count_as_what_was_said_but_not_their_ids() -> None:
    traffic = Traffic()
    for number, arguments in enumerate(("{}", "{}", "[]")):
        await traffic.call("a", "", calls=(ToolCall(str(number), "look", arguments),))
    (found,) = await traffic.advise()
    assert (found.quality, found.n) == (0.5, 2)


async def test_a_repeat_after_the_ttl_would_have_been_asked_again() -> None:
    traffic = Traffic()
    await traffic.call("a", "yes")
    await traffic.call("a", "yes", after=DAY + 1)
    assert await traffic.advise() == []
    assert [one.calls for one in await traffic.advise(ttl=2 * DAY)] == [1]


async def test_contents_that_are_gone_leave_the_quality_unknown() -> None:
    traffic = Traffic()
    await traffic.call("a", "yes")
    await traffic.call("a", "yes")
    await traffic.ledger.erase(LOCAL)
    (found,) = await traffic.advise()
    assert (found.calls, found.quality, found.low, found.n) == (1, None, None, 0)


async def scored(traffic: Traffic, model: str, share: float, n: int = 200, **more: Any) -> None:
    draw = random.Random(model)
    for number in range(n):
        call = await traffic.call(f"{model} {number} {more}", "x", model=model, **more)
        await traffic.score(call.id, float(draw.random() < share))


async def test_a_cheaper_model_is_advised_only_where_its_scores_are_no_worse() -> None:
    traffic = Traffic()
    await scored(traffic, "mine/large", 0.99, task="label")
    await scored(traffic, "mine/small", 1.0, task="label", cost_usd=0.01)
    await scored(traffic, "mine/large", 0.95, task="reason")
    await scored(traffic, "mine/small", 0.60, task="reason", cost_usd=0.01)
    (found,) = await traffic.advise()
    assert found.change == "ask mine/small instead of mine/large for label"
    assert found.saved_usd == pytest.approx(200 * 0.5 - 200 * 110 * 1e-4)
    assert (found.quality, found.n, found.calls) == (1.0, 200, 200)


async def test_few_scores_or_an_unknown_price_advise_nothing() -> None:
    traffic = Traffic()
    await scored(traffic, "mine/large", 1.0, n=19)
    await scored(traffic, "mine/small", 1.0, cost_usd=0.01)
    assert await traffic.advise() == []
    await scored(traffic, "mine/large", 1.0, principal="key:b")
    await scored(traffic, "mine/other", 1.0, cost_usd=0.01)
    assert [one.change for one in await traffic.advise()] == ["ask mine/small instead of mine/large"]


async def test_half_of_the_price_could_be_saved_where_there_is_a_batch_api() -> None:
    traffic = Traffic()
    await traffic.call("a", "x")
    await traffic.call("b", "x", model="other/large")
    (found,) = await traffic.advise(batched=lambda ref: ref.startswith("mine/"))
    assert (found.calls, found.saved_usd, found.quality) == (1, 0.25, None)
