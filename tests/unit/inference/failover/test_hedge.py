"""The second call: when it is sent, who wins, and what it costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from kaizen.core.errors import RateLimited, Unavailable
from kaizen.core.request import Chunk, Options, Reply, Request
from kaizen.inference.failover.health import Health
from kaizen.inference.failover.hedge import Hedge
from kaizen.inference.failover.vitals import Limits
from kaizen.inference.prices import Price, PriceTable
from tests.unit.inference.calls import HELLO, REPLY, read_into

A, B = HELLO.model, "other/large"
HEDGED = replace(HELLO, options=Options(hedge=True))
COST = 1000 * 10 / 1e6 + 100 * 30 / 1e6


class Models:
    """Two models: how long each takes (a list is call by call), and what it raises then."""

    def __init__(self, a: list[float], b: list[float], /, **errors: Exception) -> None:
        self.waits, self.errors = {A: a, B: b}, {A: errors.get("a"), B: errors.get("b")}
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    async def complete(self, request: Request, /) -> Reply:
        self.asked.append(request.model)
        try:
            await asyncio.sleep(self.waits[request.model].pop(0))
        except asyncio.CancelledError:
            self.cancelled.append(request.model)
            raise
        if (error := self.errors[request.model]) is not None:
            raise error
        return replace(REPLY, model=request.model)

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
        reply = await self.complete(request)
        for letter in request.model[:5]:
            yield Chunk(letter)
            await asyncio.sleep(0)
        yield Chunk(reply=reply)


def hedge(models: Models, *, known: bool = True, always: bool = False, priced: tuple[str, ...] = (A, B)) -> Hedge:
    health = Health(Limits(minimum=1))
    if known:  # the p95 is 20 ms
        for ref in (A, B):
            vitals = health.of(ref)
            vitals.end(health.clock(), "ok", vitals.admit(health.clock()), ms=20.0, first=20.0)
    prices = PriceTable({ref: Price.per_mtok(10.0, 30.0) for ref in priced}, {})
    return Hedge(models, health, prices, second=lambda request: (B,), always=always)


async def test_a_usual_answer_is_one_call() -> None:
    models = Models([0.0], [])
    assert await hedge(models).complete(HEDGED) == REPLY
    assert models.asked == [A]


@pytest.mark.parametrize(
    ("request_", "known", "always"), [(HELLO, True, False), (HEDGED, False, False)], ids=["not asked for", "unknown"]
)
async def test_no_second_call(request_: Request, known: bool, always: bool) -> None:
    models = Models([0.06, 0.06], [])
    layer = hedge(models, known=known, always=always)
    assert await layer.complete(request_) == REPLY
    await read_into([], layer.stream(request_))
    assert models.asked == [A, A]


async def test_the_setting_hedges_all_but_those_who_refuse() -> None:
    models = Models([5.0, 0.06], [0.0])
    layer = hedge(models, always=True)
    assert (await layer.complete(HELLO)).model == B
    assert (await layer.complete(replace(HELLO, options=Options(hedge=False)))).model == A
    assert models.asked == [A, B, A]


async def test_the_second_wins_and_the_first_is_cancelled() -> None:
    models = Models([5.0], [0.0])
    reply = await hedge(models).complete(HEDGED)
    assert (reply.model, reply.attempts, models.cancelled) == (B, 2, [A])
    assert reply.cost_usd == pytest.approx(2 * COST)
    note = reply.stages[0].note["hedge"]
    assert (note["won"], note["other_usd"], note["estimated"]) == ("second", pytest.approx(COST), True)


async def test_the_first_may_still_win() -> None:
    models = Models([0.08], [5.0])
    reply = await hedge(models).complete(HEDGED)
    assert (reply.model, reply.attempts, models.cancelled) == (A, 2, [B])
    assert reply.stages[0].note["hedge"]["won"] == "first"


async def test_a_second_that_fails_is_not_the_answer_and_costs_nothing() -> None:
    models = Models([0.08], [0.0], b=RateLimited("x"))
    reply = await hedge(models).complete(HEDGED)
    assert (reply.model, reply.attempts, reply.cost_usd) == (A, 2, pytest.approx(COST))
    assert reply.stages[0].note["hedge"]["estimated"] is False


async def test_where_both_fail_it_is_the_firsts_error() -> None:
    models = Models([0.06], [0.0], a=Unavailable("first"), b=RateLimited("second"))
    with pytest.raises(Unavailable, match="first") as caught:
        await hedge(models).complete(HEDGED)
    assert caught.value.detail["attempts"] == 2
    streamed = Models([0.06], [0.0], a=Unavailable("first"), b=RateLimited("second"))
    with pytest.raises(Unavailable, match="first"):
        await read_into([], hedge(streamed).stream(HEDGED))


async def test_a_first_that_fails_at_once_is_left_to_the_chain() -> None:
    models = Models([0.0], [], a=Unavailable("x"))
    with pytest.raises(Unavailable):
        await hedge(models).complete(HEDGED)
    assert models.asked == [A]


async def test_an_unknown_price_makes_an_unknown_cost() -> None:
    models = Models([5.0], [0.0])
    reply = await hedge(models, priced=(B,)).complete(HEDGED)
    assert (reply.cost_usd, reply.stages[0].note["hedge"]["other_usd"]) == (None, None)


async def test_a_cost_that_the_provider_tells_is_kept() -> None:
    class Telling(Models):
        async def complete(self, request: Request, /) -> Reply:
            return replace(await super().complete(request), cost_usd=1.0)

    reply = await hedge(Telling([5.0], [0.0])).complete(HEDGED)
    assert reply.cost_usd == pytest.approx(1.0 + COST)


async def test_who_does_badly_gets_no_second_call() -> None:
    models = Models([0.06, 0.06, 0.06], [])
    layer = hedge(models)

    def fail(ref: str) -> None:
        vitals = layer._health.of(ref)
        for _ in range(4):
            vitals.admit(0.0)
            vitals.end(layer._health.clock(), "fault", "pass")

    fail(B)
    await layer.complete(HEDGED)
    assert models.asked == [A, A]  # the same model, since the other is open
    fail(A)
    await layer.complete(HEDGED)
    assert models.asked == [A, A, A]


async def test_no_second_call_after_the_deadline() -> None:
    models = Models([0.05], [])
    await hedge(models).complete(replace(HEDGED, deadline=time.monotonic() + 0.01))
    assert models.asked == [A]


async def test_of_streams_the_first_chunk_decides() -> None:
    models = Models([5.0], [0.0])
    chunks = [chunk async for chunk in hedge(models).stream(HEDGED)]
    assert "".join(chunk.text for chunk in chunks) == "other"
    reply = chunks[-1].reply
    assert reply is not None
    assert (reply.model, reply.attempts, models.cancelled) == (B, 2, [A])


async def test_a_usual_stream_is_one_call_and_may_be_left() -> None:
    models = Models([0.0, 0.0], [])
    layer = hedge(models)
    seen: list[str] = []
    await read_into(seen, layer.stream(HEDGED))
    assert "".join(seen) == "mine/"
    stream = layer.stream(HEDGED)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined] - a generator
    assert models.asked == [A, A]


async def test_whoever_is_cancelled_cancels_both() -> None:
    models = Models([5.0], [5.0])
    task = asyncio.ensure_future(hedge(models).complete(HEDGED))
    await asyncio.sleep(0.06)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert models.cancelled == [A, B]
