"""The caller's deadline holds for any provider."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from kaizen.core.errors import Timeout
from kaizen.core.request import Request
from kaizen.inference.deadline import Deadline
from tests.unit.inference.calls import HELLO, REPLY, Plain, Scripted, read_into


def in_seconds(seconds: float) -> Request:
    return replace(HELLO, deadline=time.monotonic() + seconds)


@pytest.mark.parametrize("request_", [HELLO, in_seconds(3600)], ids=["without", "ahead"])
async def test_in_time(request_: Request) -> None:
    inner = Scripted(REPLY, letters=3)
    assert await Deadline(inner).complete(request_) is REPLY
    assert [chunk.text async for chunk in Deadline(inner).stream(request_)] == ["a", "b", "c", ""]
    assert inner.closed == 1


async def test_a_passed_deadline_reaches_no_provider() -> None:
    inner = Scripted(REPLY)
    for ask in (Deadline(inner).complete(in_seconds(-1)), anext(Deadline(inner).stream(in_seconds(-1)))):
        with pytest.raises(Timeout, match="deadline has passed") as caught:
            await ask
        assert not caught.value.retryable
        assert caught.value.detail == {"model": "mine/large"}
    assert inner.calls == 0


async def test_a_late_answer_is_cancelled() -> None:
    inner = Scripted(REPLY, wait=30.0)
    with pytest.raises(Timeout, match="deadline has passed"):
        await Deadline(inner).complete(in_seconds(0.05))
    assert inner.cancelled == 1


@pytest.mark.parametrize("letters", [0, 1])
async def test_a_late_stream_is_cancelled(letters: int) -> None:
    inner = Scripted(REPLY, letters=letters, wait=30.0)
    seen: list[str] = []
    with pytest.raises(Timeout, match="deadline has passed"):
        await read_into(seen, Deadline(inner).stream(in_seconds(0.05)))
    assert (len(seen), inner.cancelled, inner.closed) == (letters, 1, 1)


async def test_a_slow_reader_is_not_cancelled_but_told() -> None:
    inner = Scripted(REPLY, letters=2)
    seen: list[str] = []

    async def read_slowly() -> None:
        async for chunk in Deadline(inner).stream(in_seconds(0.05)):
            await asyncio.sleep(0.1)
            seen.append(chunk.text)

    with pytest.raises(Timeout):
        await read_slowly()
    assert (seen, inner.closed) == (["a"], 1)


async def test_the_end_of_a_stream_is_never_late() -> None:
    chunks = []
    async for chunk in Deadline(Scripted(REPLY)).stream(in_seconds(0.05)):
        await asyncio.sleep(0.1)
        chunks.append(chunk)
    assert [chunk.reply for chunk in chunks] == [REPLY]


async def test_a_stream_may_end_without_a_reply() -> None:
    plain = Plain().stream(HELLO)
    plain.left.pop()
    inner = Plain()
    inner.stream = lambda request, /: plain  # type: ignore[method-assign]
    assert [chunk.text async for chunk in Deadline(inner).stream(in_seconds(60))] == ["hi"]


async def test_the_providers_own_timeout_error_is_not_the_deadline() -> None:
    inner = Scripted(TimeoutError("of the provider"))
    for ask in (Deadline(inner).complete(in_seconds(60)), anext(Deadline(inner).stream(in_seconds(60)))):
        with pytest.raises(TimeoutError, match="of the provider"):
            await ask


async def test_closing_a_stream_closes_the_one_below() -> None:
    for request in (HELLO, in_seconds(60)):
        inner = Scripted(REPLY, letters=3)
        async with aclosing(Deadline(inner).stream(request)) as chunks:
            assert (await anext(chunks)).text == "a"
        assert inner.closed == 1
