"""The batch layer on a book in memory and a vendor that does what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.errors import ProviderError, StoreError, Unavailable
from kaizen.core.request import Options, Reply, Request, Usage
from kaizen.core.scope import Scope
from kaizen.inference.batch.desk import Timing
from kaizen.inference.batch.layer import Batch
from kaizen.inference.prices import Price, PriceTable
from tests.unit.inference.calls import HELLO, REPLY, Scripted, read_into

COST = 1000 * 10 / 1e6 + 100 * 30 / 1e6
WAITS = replace(HELLO, options=Options(batch=True), step="run-1:0")
TIMING = Timing(least_wait=0.5, window=0.01, max_calls=10, poll=0.01, reserve=0.1, doubt=0.06)


class Vendor:
    """A batch API: what it holds, and what goes wrong."""

    def __init__(self) -> None:
        self.batches: dict[str, list[str]] = {}
        self.done = True
        self.errors: list[Exception | None] = []  # of the next calls of ``submit``; None takes it and loses the answer
        self.poll_errors: list[Exception] = []
        self.result: Reply | ProviderError | None = REPLY
        self.cancelled: list[str] = []
        self.submits = 0
        self.sure = True

    async def submit(self, key: str, calls: Mapping[str, Request], /) -> str:
        self.submits += 1
        error = self.errors.pop(0) if self.errors else ...
        if isinstance(error, Exception):
            raise error
        self.batches[key] = list(calls)
        if error is None:
            raise Unavailable("the connection broke")
        return key

    async def find(self, key: str, since: float, known: Collection[str], /) -> tuple[str | None, bool]:
        return (key if key in self.batches else None), self.sure

    async def ended(self, batch_id: str, /) -> bool:
        if self.poll_errors:
            raise self.poll_errors.pop(0)
        return self.done

    async def results(self, batch_id: str, wanted: Mapping[str, Request], /) -> Mapping[str, Reply | ProviderError]:
        return {} if self.result is None else {call: self.result for call in wanted if call in self.batches[batch_id]}

    async def cancel(self, batch_id: str, /) -> None:
        self.cancelled.append(batch_id)
        raise Unavailable("it could not be cancelled")


class Notes:
    """A book in memory."""

    def __init__(self) -> None:
        self.calls: dict[tuple[Scope, str], tuple[str, str]] = {}
        self.batches: dict[str, list[object]] = {}
        self.touches = 0
        self.broken = False

    async def place(self, scope: Scope, key: str, /) -> tuple[str, str] | None:
        if self.broken:
            raise StoreError("the disk is full")
        return self.calls.get((scope, key))

    async def intend(self, scope: Scope, batch: str, provider: str, calls: Mapping[str, str], /) -> None:
        now = time.time()
        self.batches[batch] = [None, now, now]
        self.calls |= {(scope, key): (batch, call) for key, call in calls.items()}

    async def touch(self, scope: Scope, batch: str, /) -> None:
        self.touches += 1

    async def submitted(self, scope: Scope, batch: str, batch_id: str, /) -> None:
        self.batches[batch][0] = batch_id

    async def batch(self, scope: Scope, batch: str, /) -> tuple[str | None, float, float] | None:
        row = self.batches.get(batch)
        return None if row is None else (row[0], row[1], row[2])  # type: ignore[return-value] - as they were put in

    async def known(self, scope: Scope, provider: str, /) -> Collection[str]:
        return ()

    async def drop(self, scope: Scope, batch: str, touched: float | None = None, /) -> bool:
        self.calls = {key: place for key, place in self.calls.items() if place[0] != batch}
        return self.batches.pop(batch, None) is not None

    async def release(self, scope: Scope, key: str, /) -> int:
        batch, _ = self.calls.pop((scope, key))
        return sum(place[0] == batch for place in self.calls.values())


class Set:
    """The layer with all that is round it."""

    def __init__(self, timing: Timing = TIMING, *, priced: bool = True, provider: str = "mine") -> None:
        self.vendor, self.book, self.inner = Vendor(), Notes(), Scripted(REPLY)
        prices = PriceTable({HELLO.model: Price.per_mtok(10.0, 30.0)} if priced else {}, {})
        self.layer = Batch(
            self.inner,
            apis={provider: lambda: self.vendor},
            book=self.book,
            prices=prices,
            discount=lambda _: 0.5,
            timing=timing,
        )

    async def ask(self, request: Request = WAITS) -> Reply:
        return await self.layer.complete(request)


@pytest.fixture
def all_() -> Set:
    return Set()


async def test_a_call_that_can_wait_comes_from_a_batch_at_its_price(all_: Set) -> None:
    reply = await all_.ask()
    assert (reply.cost_usd, reply.stages[0].saved_usd) == (pytest.approx(COST / 2), pytest.approx(COST / 2))
    assert (all_.inner.calls, all_.vendor.submits) == (0, 1)


async def test_an_unknown_price_saves_nobody_knows_what() -> None:
    reply = await Set(priced=False).ask()
    assert (reply.cost_usd, reply.saved_usd) == (None, None)


async def test_the_same_step_of_a_run_finds_its_answer_again_and_others_do_not(all_: Set) -> None:
    await all_.ask()
    again = Set()
    again.vendor, again.book = all_.vendor, all_.book
    again.layer._book = again.book
    assert (await again.ask()).text == "hi"
    assert all_.vendor.submits == 1
    for other in (replace(WAITS, step="run-1:1"), replace(WAITS, step=""), replace(WAITS, step="")):
        await again.ask(other)
    assert all_.vendor.submits == 4


async def test_a_provider_without_a_batch_api_is_asked_directly() -> None:
    one = Set(provider="other")
    reply = await one.ask()
    assert (one.inner.calls, reply.stages[0].note["direct"]) == (1, "its provider has no batch API")


async def test_streams_and_calls_that_do_not_wait_pass_through(all_: Set) -> None:
    assert await all_.ask(HELLO) == REPLY
    seen: list[str] = []
    await read_into(seen, all_.layer.stream(HELLO))
    streamed = [chunk async for chunk in all_.layer.stream(WAITS)]
    assert streamed[-1].reply is not None
    assert streamed[-1].reply.stages[0].note["direct"] == "it is streamed"
    assert (all_.inner.calls, all_.vendor.submits) == (3, 0)


async def test_a_refused_batch_is_asked_directly(all_: Set) -> None:
    all_.vendor.errors = [ProviderError("no such thing")]
    reply = await all_.ask()
    assert (reply.stages[0].note["direct"], all_.inner.calls) == ("its batch failed: provider_error", 1)
    assert all_.book.calls == {}


async def test_a_batch_that_never_arrives_is_tried_twice(all_: Set) -> None:
    all_.vendor.errors = [Unavailable("x"), Unavailable("x"), Unavailable("x")]
    reply = await all_.ask()
    assert (all_.vendor.submits, reply.stages[0].note["direct"]) == (2, "its batch failed: unavailable")


async def test_while_nobody_is_sure_nothing_is_sent_again(all_: Set) -> None:
    all_.vendor.errors = [Unavailable("x")]
    all_.vendor.sure = False
    task = asyncio.ensure_future(all_.ask())
    for _ in range(500):
        await asyncio.sleep(0.01)
        if all_.vendor.submits:
            break
    await asyncio.sleep(0.2)
    assert all_.vendor.submits == 1
    all_.vendor.sure = True
    await task
    assert all_.vendor.submits == 2


async def test_a_lost_answer_is_found(all_: Set) -> None:
    all_.vendor.errors = [None]
    assert (await all_.ask()).text == "hi"
    assert (all_.vendor.submits, all_.inner.calls) == (1, 0)


async def test_a_slow_handing_in_says_that_it_lives(all_: Set) -> None:
    class Slow(Vendor):
        async def submit(self, key: str, calls: Mapping[str, Request], /) -> str:
            await asyncio.sleep(0.05)
            return await super().submit(key, calls)

    all_.vendor = Slow()
    await all_.ask()
    assert all_.book.touches >= 2


@pytest.mark.parametrize("result", [None, Unavailable("expired"), ProviderError("bad")], ids=["none", "expired", "bad"])
async def test_what_a_batch_does_not_answer_is_asked_directly(all_: Set, result: ProviderError | None) -> None:
    all_.vendor.result = result
    assert (await all_.ask()).stages[0].note["direct"].startswith("its batch failed")
    assert (all_.vendor.submits, all_.inner.calls) == (1, 1)


async def test_polls_are_repeated_while_that_helps(all_: Set) -> None:
    all_.vendor.poll_errors = [Unavailable("x"), Unavailable("x")]
    assert (await all_.ask()).stages[0].note["batch"]
    all_.vendor.poll_errors = [ProviderError("gone")]
    reply = await all_.ask(replace(WAITS, step="run-1:2"))
    assert reply.stages[0].note["direct"] == "its batch failed: provider_error"


async def test_a_book_that_fails_costs_the_saving_not_the_answer(all_: Set) -> None:
    all_.book.broken = True
    reply = await all_.ask()
    assert (reply.stages[0].note["direct"], all_.vendor.submits) == ("its batch failed: store_error", 0)


class Taken:
    """An allowance, and its claim: what was settled."""

    def __init__(self) -> None:
        self.settled: list[Usage] = []
        self.request = WAITS

    async def take(self, request: Request, /) -> Taken:
        self.request = request
        return self

    async def settle(self, usage: Usage, /) -> None:
        self.settled.append(usage)


async def after(all_: Set, **changes: Any) -> list[Usage]:
    """What is settled of a call that its batch brings no answer."""
    taken = Taken()
    reply = await all_.ask(replace(WAITS, allowance=taken, **changes))
    assert (reply.text, reply.stages[0].note["direct"].startswith("its batch")) == ("hi", True)
    return taken.settled


async def test_what_a_batch_took_nothing_for_is_given_back(all_: Set) -> None:
    all_.vendor.errors = [ProviderError("no such thing")]
    assert await after(all_) == [Usage()]


async def test_what_was_handed_in_is_not_given_back_whatever_goes_wrong_later(all_: Set) -> None:
    all_.vendor.poll_errors = [ProviderError("the key was withdrawn")]
    assert await after(all_) == []
    assert all_.vendor.submits == 1


@pytest.mark.parametrize("late", [False, True])
async def test_where_the_book_fails_nobody_can_tell_whether_it_was_handed_in(all_: Set, late: bool) -> None:
    async def ended(batch_id: str, /) -> bool:
        all_.book.broken = True
        if late:
            await asyncio.sleep(30.0)
        raise ProviderError("the key was withdrawn")

    all_.vendor.ended = ended  # type: ignore[method-assign] - it breaks in the middle
    deadline = time.monotonic() + 0.6 if late else None
    assert await after(all_, deadline=deadline) == []


async def test_what_goes_wrong_unforeseen_reaches_the_caller(all_: Set) -> None:
    all_.vendor.errors = [ValueError("a mistake")]
    with pytest.raises(ValueError, match="a mistake"):
        await all_.ask()


async def test_a_timeout_of_a_users_own_is_no_deadline_of_ours(all_: Set) -> None:
    all_.vendor.errors = [TimeoutError("theirs")]
    with pytest.raises(TimeoutError, match="theirs"):
        await all_.ask(replace(WAITS, deadline=time.monotonic() + 5.0))


@pytest.mark.alone
async def test_who_leaves_before_the_batch_has_left_is_not_in_it(all_: Set) -> None:
    left = asyncio.ensure_future(all_.ask())
    stays = asyncio.ensure_future(all_.ask(replace(WAITS, step="run-1:1")))
    await asyncio.sleep(0.002)
    left.cancel()
    await stays
    assert [len(calls) for calls in all_.vendor.batches.values()] == [1]
    alone = asyncio.ensure_future(all_.ask(replace(WAITS, step="run-1:2")))
    await asyncio.sleep(0.002)
    alone.cancel()
    await asyncio.sleep(0.03)
    assert all_.vendor.submits == 1


async def test_who_leaves_later_finds_the_answer_when_asking_again(all_: Set) -> None:
    all_.vendor.done = False
    task = asyncio.ensure_future(all_.ask())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    all_.vendor.done = True
    assert (await all_.ask()).stages[0].note["batch"]
    assert (all_.vendor.submits, all_.vendor.cancelled) == (1, [])


async def test_a_batch_is_cancelled_with_its_last_call_whatever_the_vendor_says(all_: Set) -> None:
    all_.vendor.done = False
    reply = await all_.ask(replace(WAITS, deadline=time.monotonic() + 0.6))
    assert (reply.text, len(all_.vendor.cancelled), all_.inner.calls) == ("hi", 1, 1)


async def test_time_that_is_over_before_the_batch_left_takes_nothing_back() -> None:
    one = Set(replace(TIMING, window=5.0))
    reply = await one.ask(replace(WAITS, options=Options(batch=True, latency_budget_ms=600.0)))
    assert (reply.stages[0].note["direct"], one.vendor.submits) == ("its batch took too long", 0)


def test_each_loop_has_its_own_desk(all_: Set) -> None:
    for step in ("a", "b"):
        assert asyncio.run(all_.ask(replace(WAITS, step=step))).text == "hi"
    assert all_.vendor.submits == 2


def test_apis_are_made_once(all_: Set) -> None:
    asyncio.run(all_.ask())
    [desk] = [*all_.layer._desks.values()] or [None]
    assert desk is None or list(desk._apis) == ["mine"]
    assert (len(all_.layer._apis), all_.vendor.submits) == (1, 1)
