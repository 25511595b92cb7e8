"""Each request that is sent is taken from its run's allowance first, and nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.errors import BudgetExceeded, RateLimited, Timeout, Unavailable, Unsupported
from kaizen.core.message import Message
from kaizen.core.request import Chunk, Reply, Request, Usage
from kaizen.core.scope import Scope
from kaizen.inference.dispatch import Dispatch
from kaizen.inference.key import request_key
from kaizen.inference.retry import Retries, Retry
from kaizen.testing.scripted import ScriptedProvider


class Allowed:
    """So many requests."""

    def __init__(self, calls: int) -> None:
        self.calls, self.taken, self.settled = calls, 0, list[Usage]()

    async def take(self, request: Request, /) -> Any:
        if self.taken >= self.calls:
            raise BudgetExceeded("spent")
        self.taken += 1
        return Claimed(self, request)


class Claimed:
    def __init__(self, allowed: Allowed, request: Request) -> None:
        self._allowed = allowed
        self.request = replace(request, decoding=replace(request.decoding, max_tokens=7))

    async def settle(self, usage: Usage, /) -> None:
        self._allowed.settled.append(usage)


def request(allowed: Allowed | None) -> Request:
    return Request(scope=Scope(), model="a/m", messages=(Message.of("user", "hello there"),), allowance=allowed)


async def no_wait(_: float) -> None:
    """At once."""


def onion(provider: Any) -> Retry:
    return Retry(Dispatch({"a": lambda: provider}), Retries(attempts=3), sleep=no_wait)


async def test_a_request_is_counted_and_bounded_before_it_is_sent_and_settled_after() -> None:
    allowed, model = Allowed(5), ScriptedProvider(["hello"])
    await onion(model).complete(request(allowed))
    assert allowed.taken == 1
    assert model.requests[0].decoding.max_tokens == 7
    assert allowed.settled == [Usage(2, 1, estimated=True)]


async def test_each_retry_is_another_request() -> None:
    allowed, model = Allowed(5), ScriptedProvider([Unavailable("x"), RateLimited("x"), "hello"])
    await onion(model).complete(request(allowed))
    assert allowed.taken == model.count == 3
    assert allowed.settled == [Usage(), Usage(), Usage(2, 1, estimated=True)]


async def test_what_would_pass_the_allowance_is_not_sent() -> None:
    allowed, model = Allowed(1), ScriptedProvider([Unavailable("x"), "hello"])
    with pytest.raises(BudgetExceeded):
        await onion(model).complete(request(allowed))
    assert model.count == 1


async def test_a_call_whose_end_nobody_knows_stays_charged() -> None:
    allowed = Allowed(1)
    with pytest.raises(Timeout):
        await onion(ScriptedProvider([Timeout("late", retryable=False)])).complete(request(allowed))
    assert (allowed.taken, allowed.settled) == (1, [])


async def test_what_an_adapter_has_no_place_for_was_not_sent_and_is_given_back() -> None:
    allowed = Allowed(2)
    with pytest.raises(Unsupported):
        await onion(ScriptedProvider([Unsupported("no seed")])).complete(request(allowed))
    with pytest.raises(Unsupported):
        await drained(Dispatch({"a": lambda: Breaks(lambda: Unsupported("x"), first=False)}).stream(request(allowed)))
    assert (allowed.taken, allowed.settled) == (2, [Usage(), Usage()])


async def drained(chunks: AsyncIterator[Chunk]) -> str:
    return "".join([chunk.text async for chunk in chunks])


async def test_a_stream_is_counted_too() -> None:
    allowed = Allowed(2)
    provider = onion(ScriptedProvider([Unavailable("x"), "hello"]))
    assert await drained(provider.stream(request(allowed))) == "hello"
    assert allowed.taken == 2
    assert allowed.settled == [Usage(), Usage(2, 1, estimated=True)]
    with pytest.raises(BudgetExceeded):
        await drained(provider.stream(request(allowed)))


class Breaks:
    """A stream that breaks off."""

    def __init__(self, error: Callable[[], Exception], *, first: bool) -> None:
        self._error, self._first = error, first

    async def complete(self, request: Request, /) -> Reply:
        raise NotImplementedError

    async def stream(self, request: Request, /) -> AsyncIterator[Chunk]:
        if self._first:
            yield Chunk("hel")
        raise self._error()


@pytest.mark.parametrize(
    ("error", "first", "settled"),
    [(Unavailable, True, []), (Timeout, False, []), (Unavailable, False, [Usage()])],
)
async def test_a_stream_that_broke_off_stays_charged(error: Any, first: bool, settled: list[Usage]) -> None:
    allowed = Allowed(5)
    dispatch = Dispatch({"a": lambda: Breaks(lambda: error("x", retryable=False), first=first)})
    with pytest.raises(error):
        await drained(dispatch.stream(request(allowed)))
    assert (allowed.taken, allowed.settled) == (1, settled)


async def test_without_an_allowance_nothing_is_counted() -> None:
    model = ScriptedProvider(["hello", "again"])
    await onion(model).complete(request(None))
    assert await drained(onion(model).stream(request(None))) == "again"
    assert model.requests[0].decoding.max_tokens is None


def test_an_allowance_changes_no_cache_key() -> None:
    assert request_key(request(Allowed(1))) == request_key(request(None))
