"""Failover from end to end: what two real servers were asked, and the rows that were kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaizen import Signature, best_of, context, errors
from kaizen.app import App, build
from kaizen.core.context import Context
from kaizen.core.identity import Identity
from kaizen.core.message import Message
from kaizen.core.protocols import Allow, Need
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Options, Reply
from kaizen.settings import load_settings
from kaizen.testing.fault_server import Fault, FaultServer, slow, status
from tests.unit.inference.calls import read_into

Make = Callable[..., App]
MESSAGE = "Someone stole my card"
FIRST, SECOND = "mine/large", "other/large"
PRICES = {
    FIRST: {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0},
    SECOND: {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 3.0},
}
USD = (20 * 10 + 7 * 30) / 1e6


class Triage(Signature):
    """Name the team that owns a bank customer's message."""

    message: str = context.input()
    team: str = context.output()


@pytest.fixture
def mine() -> Iterator[FaultServer]:
    with FaultServer('{"team": "cards"}') as running:
        yield running


@pytest.fixture
def other() -> Iterator[FaultServer]:
    with FaultServer('{"team": "loans"}') as running:
        yield running


@pytest.fixture
async def app(mine: FaultServer, other: FaultServer, tmp_path: Path) -> AsyncIterator[Make]:
    """An App whose default model is served by ``mine``; keywords are settings of failover."""
    made: list[App] = []

    def make(*, attempts: int = 1, models: dict[str, Any] = PRICES, policy: Any = None, **failover: Any) -> App:
        providers = {
            name: {"kind": "openai", "base_url": server.base_url, "api_key": "k"}
            for name, server in (("mine", mine), ("other", other))
        }
        inference = {"attempts": attempts, "backoff": 0.001, "backoff_max": 0.002, "failover": failover}
        tree = {"model": FIRST, "home": str(tmp_path / "home"), "providers": providers, "models": models}
        made.append(build(load_settings(tmp_path, {}, tree | {"inference": inference}), policy=policy))
        return made[-1]

    yield make
    for one in made:
        await one.close()


CHAIN = {"fallbacks": {"*": [SECOND]}}


async def model_records(app: App, least: int = 1) -> list[Record]:
    """Oldest first. Outside a program a failed call's record may follow its error."""
    rows: list[Record] = []
    while len(rows) < least:
        await asyncio.sleep(0.005)
        rows = [one async for one in app.ledger.records(app.scope, RecordQuery(kind="model"))]
    return rows


def surroundings(app: App, *, seconds: float | None = None) -> Context:
    deadline = None if seconds is None else time.monotonic() + seconds
    return app.context(Identity(app.scope, "key:1"), deadline=deadline)


async def ask(app: App, *, seconds: float | None = None, **options: Any) -> Reply:
    """One model call outside any program."""
    ctx = surroundings(app, seconds=seconds)
    request = ctx.request(FIRST, (Message.of("user", MESSAGE),))
    return await ctx.complete(replace(request, options=Options(**options)))


async def read(app: App, **options: Any) -> tuple[str, Reply | None]:
    """A streamed model call: its text, and its reply."""
    ctx = surroundings(app)
    request = replace(ctx.request(FIRST, (Message.of("user", MESSAGE),)), options=Options(**options))
    text, reply = "", None
    async for chunk in ctx.stream(request):
        text, reply = text + chunk.text, chunk.reply
    return text, reply


# -- the chain ------------------------------------------------------------------------------------


async def test_another_model_answers_where_one_is_down(app: Make, mine: FaultServer, other: FaultServer) -> None:
    mine.queue(status(503))
    here = app(**CHAIN)
    answer = await here.run(Triage, {"message": MESSAGE})
    assert answer.outputs["team"] == "loans"
    assert (mine.count, other.count) == (1, 1)
    [row] = await model_records(here)
    assert (row.ref, row.model, row.attempts) == (FIRST, SECOND, 2)
    assert (row.cost_usd, row.saved_usd) == (pytest.approx(USD / 10), 0.0)
    assert row.stages[0].layer == "failover"
    assert row.stages[0].note == {"asked": [FIRST, SECOND], "why": {FIRST: "unavailable"}}


async def test_without_failover_the_failure_is_the_answer(app: Make, mine: FaultServer, other: FaultServer) -> None:
    mine.queue(status(503))
    here = app(enabled=False, **CHAIN)
    with pytest.raises(errors.Unavailable):
        await here.run(Triage, {"message": MESSAGE})
    assert (mine.count, other.count) == (1, 0)


async def test_retries_come_before_another_model(app: Make, mine: FaultServer, other: FaultServer) -> None:
    mine.queue(status(503), status(503), status(503))
    here = app(attempts=3, **CHAIN)
    assert (await ask(here)).model == SECOND
    assert (mine.count, other.count) == (3, 1)
    assert [row.attempts for row in await model_records(here)] == [4]


@pytest.mark.parametrize("code", [400, 401, 404, 422])
async def test_a_wrong_request_is_not_passed_on(app: Make, mine: FaultServer, other: FaultServer, code: int) -> None:
    mine.queue(status(code))
    with pytest.raises(errors.ProviderError):
        await ask(app(**CHAIN))
    assert (mine.count, other.count) == (1, 0)


@pytest.mark.alone
async def test_a_rate_limit_is_waited_for_or_passed_on(app: Make, mine: FaultServer, other: FaultServer) -> None:
    here = app(attempts=3, patience=0.05, **CHAIN)
    mine.queue(status(429, retry_after="0.01"))
    assert (await ask(here)).model == FIRST
    mine.queue(status(429, retry_after="0.2"))
    begun = time.monotonic()
    assert (await ask(here)).model == SECOND
    assert time.monotonic() - begun < 0.2
    assert (mine.count, other.count) == (3, 1)


@pytest.mark.parametrize(("context", "answered"), [(8000, False), (128_000, True)])
async def test_a_prompt_too_long_goes_to_a_longer_context(
    app: Make, mine: FaultServer, other: FaultServer, context: int, answered: bool
) -> None:
    mine.queue(status(400, error="context_length_exceeded"))
    here = app(models={FIRST: {"context_tokens": 8000}, SECOND: {"context_tokens": context}}, **CHAIN)
    if answered:
        assert (await ask(here)).model == SECOND
    else:
        with pytest.raises(errors.ContextTooLong):
            await ask(here)
    assert (mine.count, other.count) == (1, int(answered))


async def test_where_nobody_answers_the_error_is_the_callers_own_models(
    app: Make, mine: FaultServer, other: FaultServer
) -> None:
    mine.queue(status(503))
    other.queue(status(500))
    here = app(**CHAIN)
    with pytest.raises(errors.Unavailable, match="mine answered 503") as caught:
        await ask(here)
    assert caught.value.detail["asked"] == {FIRST: "unavailable", SECOND: "unavailable"}
    [row] = await model_records(here)
    assert (row.status, row.attempts) == ("error", 2)


async def test_no_model_is_asked_that_the_caller_excludes(app: Make, mine: FaultServer, other: FaultServer) -> None:
    here = app(minimum=100, **CHAIN)
    wishes: list[dict[str, Any]] = [
        {"routing": "explicit"},
        {"models": ("mine/*",)},
        {"cost_budget_usd": 1e-6},
    ]
    for options in wishes:
        mine.queue(status(503))
        with pytest.raises(errors.Unavailable):
            await ask(here, **options)
    assert other.count == 0
    mine.queue(status(503), status(503))
    assert (await ask(here, routing="explicit", fallback=True)).model == SECOND
    assert (await ask(here, models=("other/*", "mine/*"), cost_budget_usd=1.0)).model == SECOND


@pytest.mark.alone
async def test_a_deadline_bounds_all_models_together(app: Make, mine: FaultServer, other: FaultServer) -> None:
    mine.queue(Fault("never"))
    begun = time.monotonic()
    with pytest.raises(errors.Timeout):
        await ask(app(**CHAIN), seconds=0.2)
    assert time.monotonic() - begun < 0.4
    assert other.count == 0


async def test_a_fallback_needs_a_provider(app: Make) -> None:
    with pytest.raises(errors.ConfigError, match="no provider 'nobody'"):
        app(fallbacks={FIRST: ["nobody/large"]})


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [status(503), Fault("hangup"), Fault("html")], ids=lambda fault: fault.kind)
async def test_a_stream_that_dies_before_its_first_chunk_falls_over_unseen(
    app: Make, mine: FaultServer, other: FaultServer, fault: Fault
) -> None:
    mine.queue(fault)
    text, reply = await read(app(**CHAIN))
    assert text == '{"team": "loans"}'
    assert reply is not None
    assert (reply.model, reply.attempts) == (SECOND, 2)
    assert (mine.count, other.count) == (1, 1)


@pytest.mark.parametrize("kind", ["truncated", "error_event", "broken"])
async def test_a_stream_that_dies_after_it_is_an_error_never_an_end(
    app: Make, mine: FaultServer, other: FaultServer, kind: Any
) -> None:
    mine.queue(Fault(kind))
    here = app(attempts=3, **CHAIN)
    ctx = surroundings(here)
    seen: list[str] = []
    with pytest.raises(errors.Unavailable):
        await read_into(seen, ctx.stream(ctx.request(FIRST, (Message.of("user", MESSAGE),))))
    text = "".join(seen)
    assert 0 < len(text) < len('{"team": "cards"}')
    assert (mine.count, other.count) == (1, 0)
    assert [row.status for row in await model_records(here)] == ["error"]


# -- the circuit ----------------------------------------------------------------------------------


async def test_an_open_circuit_asks_nobody_until_one_probe_comes_back(
    app: Make, mine: FaultServer, other: FaultServer
) -> None:
    here = app(minimum=4, cooldown=0.3, **CHAIN)
    mine.default = status(503)
    for _ in range(4):
        assert (await ask(here)).model == SECOND
    assert (here.health.state(FIRST), mine.count) == ("open", 4)
    assert [(await ask(here)).stages[0].note["why"] for _ in range(3)] == [{FIRST: "open"}] * 3
    assert mine.count == 4  # nobody asked it again
    mine.default = slow(0.1)
    await asyncio.sleep(0.3)
    replies = await asyncio.gather(*(ask(here) for _ in range(5)))
    assert sorted(reply.model for reply in replies) == [FIRST] + [SECOND] * 4  # one probe, all others go elsewhere
    assert (here.health.state(FIRST), mine.count) == ("ok", 5)
    assert (await ask(here)).model == FIRST


async def test_an_open_circuit_without_a_fallback_fails_at_once_and_says_when_to_come_again(
    app: Make, mine: FaultServer
) -> None:
    here = app(minimum=3, attempts=3, cooldown=30.0)
    mine.default = status(503)
    with pytest.raises(errors.Unavailable):
        await ask(here)
    assert mine.count == 3
    with pytest.raises(errors.Unavailable, match="not asked for the moment") as caught:
        await ask(here)
    assert mine.count == 3
    assert caught.value.retryable
    assert 25.0 < (caught.value.retry_after or 0.0) <= 30.0
    assert [row.attempts for row in await model_records(here, 2)] == [3, 0]


async def test_only_a_providers_faults_open_the_circuit(app: Make, mine: FaultServer) -> None:
    here = app(minimum=3)
    for code in (400, 401, 404, 422, 429):
        mine.default = status(code)
        for _ in range(4):
            with pytest.raises(errors.ProviderError):
                await ask(here)
    assert (here.health.state(FIRST), here.health.error_rate(FIRST), mine.count) == ("ok", 0.0, 20)


async def test_health_sees_a_model_that_becomes_slow(app: Make, mine: FaultServer) -> None:
    here = app(minimum=5, window=0.6)
    for _ in range(8):
        await ask(here)
    await asyncio.sleep(0.7)  # what was fast is the baseline now
    mine.default = slow(0.06)
    await asyncio.gather(*(ask(here) for _ in range(8)))
    assert (here.health.state(FIRST), here.health.why(FIRST)) == ("degraded", ("latency",))
    condition = here.health.snapshot()[FIRST]
    assert (condition.in_flight, condition.calls, condition.faults) == (0, 8, 0)
    assert condition.p50_ms is not None
    assert condition.p50_ms > 50.0


# -- hedging --------------------------------------------------------------------------------------


async def warm(app: App) -> None:
    for _ in range(6):
        await ask(app)


@pytest.mark.alone
async def test_a_hedged_call_takes_the_first_good_answer(app: Make, mine: FaultServer, other: FaultServer) -> None:
    here = app(minimum=5, **CHAIN)
    await warm(here)
    mine.queue(slow(3.0))
    begun = time.monotonic()
    reply = await ask(here, hedge=True)
    assert time.monotonic() - begun < 1.0
    assert (reply.model, reply.attempts) == (SECOND, 2)
    await mine.until(lambda: mine.cuts == 1)  # the slow one was cancelled upstream
    assert (mine.count, other.count) == (7, 1)
    row = (await model_records(here))[-1]
    hedge = row.stages[0].note["hedge"]
    assert (hedge["asked"], hedge["won"], hedge["estimated"]) == ([FIRST, SECOND], "second", True)
    assert hedge["other_usd"] == pytest.approx(USD)  # as if it had used what the winner used
    assert row.cost_usd == pytest.approx(USD + USD / 10)


async def test_without_the_wish_nobody_is_asked_twice(app: Make, mine: FaultServer, other: FaultServer) -> None:
    here = app(minimum=5, **CHAIN)
    await warm(here)
    mine.queue(slow(0.3))
    assert (await ask(here)).model == FIRST
    assert (mine.count, other.count) == (7, 0)


async def test_a_hedge_without_a_fallback_asks_the_same_model(app: Make, mine: FaultServer) -> None:
    here = app(minimum=5, hedge=True)
    await warm(here)
    mine.queue(slow(3.0))
    reply = await ask(here)
    assert (reply.model, reply.attempts, mine.count) == (FIRST, 2, 8)
    assert reply.cost_usd == pytest.approx(2 * USD)


async def test_a_hedged_stream_is_the_one_that_begins_first(app: Make, mine: FaultServer, other: FaultServer) -> None:
    here = app(minimum=5, **CHAIN)
    for _ in range(6):
        await read(here)
    mine.queue(slow(3.0))
    text, reply = await read(here, hedge=True)
    assert text == '{"team": "loans"}'
    assert reply is not None
    assert (reply.model, reply.attempts) == (SECOND, 2)
    await mine.until(lambda: mine.cuts == 1)
    assert other.count == 1


@pytest.mark.alone
async def test_a_hedge_keeps_the_deadline(app: Make, mine: FaultServer, other: FaultServer) -> None:
    here = app(minimum=5, **CHAIN)
    await warm(here)
    mine.queue(Fault("never"))
    other.queue(Fault("never"))
    begun = time.monotonic()
    with pytest.raises(errors.Timeout):
        await ask(here, hedge=True, seconds=0.4)
    assert time.monotonic() - begun < 0.6
    await mine.until(lambda: mine.cuts == 1)
    await other.until(lambda: other.cuts == 1)


class Holding:
    """Allows all, and keeps what each call said that it needs at most."""

    def __init__(self) -> None:
        self.needs: list[Need] = []

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Allow:
        if need is not None:
            self.needs.append(need)
        return Allow()


async def test_what_is_reserved_covers_a_dearer_fallback_and_a_second_call(app: Make) -> None:
    dearer = {FIRST: PRICES[SECOND], SECOND: PRICES[FIRST]}
    needs: list[float | None] = []
    for failover in ({}, CHAIN, {"hedge": True}, {"hedge": True, "enabled": False}):
        policy = Holding()
        await ask(app(models=dearer, policy=policy, **failover))
        needs.append(policy.needs[0].usd)
    own = needs[0]
    assert own is not None
    assert needs == [own, pytest.approx(10 * own), pytest.approx(2 * own), own]


async def test_scores_that_fall_degrade_the_model_that_answered(app: Make, mine: FaultServer) -> None:
    here = app(minimum=3, window=0.3)
    worth = 1.0

    def metric(inputs: Any, answer: Any) -> float:
        return worth

    judged = best_of(Triage, 1, metric=metric)
    for _ in range(4):
        await here.run(judged, {"message": MESSAGE})
    await asyncio.sleep(0.35)
    worth = 0.2
    for _ in range(4):
        await here.run(judged, {"message": MESSAGE})
    assert (here.health.state(FIRST), here.health.why(FIRST)) == ("degraded", ("score",))
    assert mine.count == 8
