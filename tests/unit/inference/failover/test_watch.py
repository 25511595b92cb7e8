"""Which errors say something about a model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from kaizen.core.errors import (
    AuthFailed,
    ConfigError,
    ContextTooLong,
    KaizenError,
    ProviderError,
    RateLimited,
    Timeout,
    Unavailable,
)
from kaizen.core.request import Chunk, Reply, Request
from kaizen.inference.failover.health import Health
from kaizen.inference.failover.vitals import Limits
from kaizen.inference.failover.watch import CircuitOpen, Watch
from tests.unit.inference.calls import HELLO, REPLY, Scripted, read_into

REF = HELLO.model


def watched(*acts: Reply | Exception, letters: int = 0, wait: float = 0.0) -> tuple[Watch, Health, Scripted]:
    inner, health = Scripted(*acts, letters=letters, wait=wait), Health(Limits(minimum=2))
    return Watch(inner, health), health, inner


@pytest.mark.parametrize(
    ("error", "faults", "calls"),
    [
        (Unavailable("down"), 1, 1),
        (Timeout("late"), 1, 1),
        (RateLimited("slow down"), 0, 1),
        (AuthFailed("no key"), 0, 1),
        (ContextTooLong("too long"), 0, 1),
        (ProviderError("what?"), 0, 1),
        (ConfigError("no key is set"), 0, 0),  # nobody was asked
        (ValueError("a mistake of ours"), 0, 0),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_only_a_providers_own_faults_count(error: Exception, faults: int, calls: int) -> None:
    layer, health, _ = watched(error)
    with pytest.raises(type(error)):
        await layer.complete(HELLO)
    with pytest.raises(type(error)):
        await read_into([], layer.stream(HELLO))
    assert health.of(REF).counts(time.monotonic()) == (2 * calls, 2 * faults)
    assert health.in_flight(REF) == 0


async def test_an_open_circuit_refuses_whole_answers_and_streams() -> None:
    layer, health, inner = watched(Unavailable("down"))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await layer.complete(HELLO)
    assert (health.state(REF), inner.calls) == ("open", 2)
    with pytest.raises(CircuitOpen) as caught:
        await layer.complete(HELLO)
    with pytest.raises(CircuitOpen):
        await read_into([], layer.stream(HELLO))
    assert (inner.calls, caught.value.code, caught.value.model) == (2, "unavailable", REF)


async def test_latencies_are_measured() -> None:
    layer, health, _ = watched(REPLY, letters=2, wait=0.01)
    for _ in range(2):
        await layer.complete(HELLO)
        await read_into([], layer.stream(HELLO))
    whole, first = health.latency_ms(REF, 0.5), health.first_ms(REF, 0.5)
    assert whole is not None
    assert whole > 8.0
    assert first is not None
    assert first < 8.0


async def test_a_stream_without_an_end_is_a_fault() -> None:
    class Cut:
        async def complete(self, request: Request, /) -> Reply:
            raise NotImplementedError

        async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
            yield Chunk("beg")

    health = Health()
    seen: list[str] = []
    with pytest.raises(Unavailable, match="before its answer was whole"):
        await read_into(seen, Watch(Cut(), health).stream(HELLO))
    assert seen == ["beg"]
    assert health.of(REF).counts(time.monotonic()) == (1, 1)


async def test_a_reader_who_leaves_says_nothing() -> None:
    layer, health, inner = watched(REPLY, letters=3)
    stream = layer.stream(HELLO)
    await anext(stream)
    assert health.in_flight(REF) == 1
    await stream.aclose()  # type: ignore[attr-defined] - a generator
    task = asyncio.ensure_future(watched_slow(layer, inner))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert health.of(REF).counts(time.monotonic()) == (0, 0)
    assert (health.in_flight(REF), inner.closed, inner.cancelled) == (0, 1, 1)


async def watched_slow(layer: Watch, inner: Scripted) -> None:
    inner.wait = 5.0
    await layer.complete(HELLO)


async def test_a_reader_who_leaves_after_the_end_leaves_a_good_answer() -> None:
    layer, health, _ = watched(REPLY)
    stream = layer.stream(HELLO)
    assert (await anext(stream)).reply == REPLY
    await stream.aclose()  # type: ignore[attr-defined] - a generator
    assert health.of(REF).counts(time.monotonic()) == (1, 0)


@pytest.mark.parametrize(("waited", "fault"), [(0.0, 0), (20.0, 1)])
async def test_a_deadline_that_passed_is_a_fault_only_after_an_unusual_wait(waited: float, fault: int) -> None:
    class Clock:
        now = time.monotonic()

        def __call__(self) -> float:
            return self.now

    clock = Clock()

    def wait() -> None:
        clock.now += waited
        raise Timeout("no answer by the deadline")

    health = Health(clock=clock)
    with pytest.raises(KaizenError):
        await Watch(Scripted(wait), health).complete(replace(HELLO, deadline=time.monotonic()))
    assert health.of(REF).counts(clock.now)[1] == fault


@pytest.mark.alone
async def test_an_unusual_wait_is_three_times_the_usual() -> None:
    health = Health(Limits(minimum=1))
    layer = Watch(Scripted(lambda: time.sleep(0.01)), health)
    await layer.complete(HELLO)
    late = Watch(Scripted(Timeout("late"), wait=0.06), health)
    with pytest.raises(Timeout):
        await late.complete(replace(HELLO, deadline=time.monotonic() + 0.001))
    assert health.of(REF).counts(time.monotonic())[1] == 1
