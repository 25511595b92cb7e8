"""What is asked again, how often, and after how long."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from kaizen.core.errors import AuthFailed, ProviderError, RateLimited, Timeout, Unavailable
from kaizen.core.request import Request
from kaizen.inference.failover.watch import CircuitOpen
from kaizen.inference.retry import Retries, Retry
from tests.unit.inference.calls import HELLO, REPLY, Plain, Scripted, read_into


def retry(inner: Scripted, waits: list[float], draw: float = 1.0, **settings: float) -> Retry:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return Retry(inner, Retries(**settings), sleep=sleep, draw=lambda: draw)


def in_seconds(seconds: float) -> Request:
    return replace(HELLO, deadline=time.monotonic() + seconds)


async def test_an_answer_is_passed_on_as_it_is() -> None:
    waits: list[float] = []
    assert await retry(Scripted(REPLY), waits).complete(HELLO) is REPLY
    assert waits == []


async def test_it_asks_until_there_is_an_answer_and_counts() -> None:
    waits: list[float] = []
    inner = Scripted(Unavailable("503"), Timeout("slow"), REPLY)
    reply = await retry(inner, waits).complete(HELLO)
    assert (reply.attempts, inner.calls, waits) == (3, 3, [0.5, 1.0])
    assert replace(reply, attempts=1) == REPLY


async def test_the_last_error_is_the_providers_own_with_the_attempts() -> None:
    waits: list[float] = []
    inner = Scripted(Unavailable("first"), Unavailable("last", upstream_status=503))
    with pytest.raises(Unavailable, match="last") as caught:
        await retry(inner, waits).complete(HELLO)
    assert (inner.calls, len(waits)) == (3, 2)
    assert caught.value.detail == {"upstream_status": 503, "attempts": 3}


@pytest.mark.parametrize("error", [AuthFailed("401"), ProviderError("400"), Unavailable("no", retryable=False)])
async def test_what_is_not_retryable_is_one_call(error: ProviderError) -> None:
    waits: list[float] = []
    inner = Scripted(error)
    with pytest.raises(type(error)) as caught:
        await retry(inner, waits).complete(HELLO)
    assert (inner.calls, waits, caught.value.detail["attempts"]) == (1, [], 1)


async def test_an_error_of_somebody_elses_is_one_call() -> None:
    inner = Scripted(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await retry(inner, []).complete(HELLO)
    assert inner.calls == 1


async def test_attempts_are_a_setting() -> None:
    inner = Scripted(Unavailable("503"))
    with pytest.raises(Unavailable):
        await retry(inner, [], attempts=1).complete(HELLO)
    assert inner.calls == 1


@pytest.mark.parametrize(
    ("draw", "wanted"), [(1.0, [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]), (0.5, [0.25, 0.5, 1, 2, 4, 4]), (0.0, [0] * 6)]
)
async def test_the_backoff_doubles_to_its_cap_with_full_jitter(draw: float, wanted: list[float]) -> None:
    waits: list[float] = []
    with pytest.raises(Unavailable):
        await retry(Scripted(Unavailable("503")), waits, draw, attempts=7).complete(HELLO)
    assert waits == wanted


async def test_very_many_attempts_do_not_overflow() -> None:
    waits: list[float] = []
    with pytest.raises(Unavailable):
        await retry(Scripted(Unavailable("503")), waits, attempts=1200).complete(HELLO)
    assert waits[-1] == 8.0


async def test_it_waits_as_long_as_it_was_told_and_the_jitter() -> None:
    waits: list[float] = []
    inner = Scripted(RateLimited("429", retry_after=7.0), REPLY)
    assert (await retry(inner, waits).complete(HELLO)).attempts == 2
    assert waits == [7.5]


async def test_a_wait_beyond_the_bound_is_not_waited() -> None:
    waits: list[float] = []
    inner = Scripted(RateLimited("429", retry_after=60.1), REPLY)
    with pytest.raises(RateLimited) as caught:
        await retry(inner, waits).complete(HELLO)
    assert (inner.calls, waits) == (1, [])
    assert caught.value.detail == {"retry_after": 60.1, "attempts": 1}
    inner = Scripted(RateLimited("429", retry_after=60.1), REPLY)
    assert (await retry(inner, waits, retry_after_max=61.0).complete(HELLO)).attempts == 2


async def test_a_wait_beyond_the_deadline_is_not_waited() -> None:
    waits: list[float] = []
    inner = Scripted(RateLimited("429", retry_after=20.0), REPLY)
    with pytest.raises(RateLimited):
        await retry(inner, waits).complete(in_seconds(20.0))
    assert (inner.calls, waits) == (1, [])
    inner = Scripted(RateLimited("429", retry_after=20.0), REPLY)
    assert (await retry(inner, waits).complete(in_seconds(30.0))).attempts == 2


async def test_a_stream_begins_again_while_nothing_was_passed_on() -> None:
    waits: list[float] = []
    inner = Scripted(Unavailable("503"), REPLY)
    chunks = [chunk async for chunk in retry(inner, waits).stream(HELLO)]
    assert len(chunks) == 1
    assert chunks[0].reply == replace(REPLY, attempts=2)
    assert (inner.calls, inner.closed, waits) == (2, 2, [0.5])


async def test_a_stream_that_began_is_not_begun_again() -> None:
    inner = Scripted(Unavailable("cut"), letters=2)
    seen: list[str] = []
    with pytest.raises(Unavailable, match="cut") as caught:
        await read_into(seen, retry(inner, []).stream(HELLO))
    assert (seen, inner.calls, inner.closed) == (["a", "b"], 1, 1)
    assert caught.value.detail["attempts"] == 1


async def test_a_stream_at_the_first_attempt_is_passed_on_as_it_is() -> None:
    chunks = [chunk async for chunk in retry(Scripted(REPLY, letters=3), []).stream(HELLO)]
    assert [chunk.text for chunk in chunks] == ["a", "b", "c", ""]
    assert chunks[-1].reply is REPLY


async def test_a_stream_without_aclose_is_passed_on() -> None:
    chunks = [chunk async for chunk in Retry(Plain()).stream(HELLO)]
    assert [chunk.text for chunk in chunks] == ["hi", ""]


async def test_closing_a_stream_closes_the_one_below() -> None:
    inner = Scripted(REPLY, letters=3)
    async with aclosing(retry(inner, []).stream(HELLO)) as chunks:
        assert (await anext(chunks)).text == "a"
        assert inner.closed == 0
    assert inner.closed == 1


async def test_cancelling_ends_the_wait() -> None:
    inner = Scripted(RateLimited("429", retry_after=30.0))
    task = asyncio.create_task(Retry(inner).complete(HELLO))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.calls == 1


async def test_cancelling_reaches_the_call() -> None:
    inner = Scripted(REPLY, wait=30.0)
    task = asyncio.create_task(Retry(inner).complete(HELLO))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.calls, inner.cancelled) == (1, 1)


async def test_the_real_wait_is_short_at_first() -> None:
    inner = Scripted(Unavailable("503"), REPLY)
    begun = time.monotonic()
    assert (await Retry(inner, Retries(backoff=0.05)).complete(HELLO)).attempts == 2
    assert time.monotonic() - begun < 5.0


async def test_patience_is_shorter_where_another_model_could_answer() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    limited = Scripted(RateLimited("x", retry_after=10.0), REPLY)
    hurried = Retry(limited, sleep=sleep, draw=lambda: 0.0, patience=lambda _: 5.0)
    with pytest.raises(RateLimited):
        await hurried.complete(HELLO)
    patient = Retry(limited, sleep=sleep, draw=lambda: 0.0, patience=lambda _: None)
    limited.calls = 0
    assert (await patient.complete(HELLO)).attempts == 2
    assert slept == [10.0]


async def test_an_open_circuit_is_not_waited_for() -> None:
    scripted = Scripted(Unavailable("x"), CircuitOpen("open", retry_after=0.001))
    with pytest.raises(CircuitOpen) as caught:
        await Retry(scripted, Retries(attempts=5, backoff=0.001)).complete(HELLO)
    assert (scripted.calls, caught.value.detail["attempts"]) == (2, 1)
