"""The exact cache as a layer: what is answered from it, what is kept, and who shares a call in the air."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.errors import LimitReached, RateLimited, StoreError, Timeout, Unavailable
from kaizen.core.message import Message, ToolCall
from kaizen.core.request import Chunk, Decoding, Options, Reply, Request, Stage, Usage
from kaizen.core.scope import LOCAL, Scope
from kaizen.inference.deadline import Deadline
from kaizen.inference.exact import ExactCache
from kaizen.inference.exact.kept import Decoded, Kept, decode, encode
from kaizen.inference.meter import Meter
from kaizen.inference.prices import Price, PriceTable
from kaizen.stores.cache.memory import MemoryCache

GREEDY = Decoding(temperature=0.0)
ASKED = Request(scope=LOCAL, model="mine/large", messages=(Message.of("user", "hello"),), decoding=GREEDY)
REPLY = Reply(model="mine/large", text="hi there", usage=Usage(tokens_in=1000, tokens_out=100), attempts=2)
COST = (1000 * 10 + 100 * 30) / 1e6
PRICES = PriceTable({"mine/large": Price.per_mtok(10.0, 30.0)}, {})


class Upstream:
    """Answers when it is let, and counts."""

    def __init__(self, reply: Reply | Exception = REPLY, *, held: bool = False) -> None:
        self.reply = reply
        self.go = asyncio.Event()
        if not held:
            self.go.set()
        self.calls = self.cancelled = 0
        self.requests: list[Request] = []

    def _begin(self, request: Request) -> None:
        self.calls += 1
        self.requests.append(request)

    async def complete(self, request: Request, /) -> Reply:
        self._begin(request)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
        self._begin(request)
        yield Chunk("hi ")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.reply, Exception):
            raise self.reply
        yield Chunk("there")
        yield Chunk(reply=replace(self.reply, first_token_ms=1.0))


def layer(upstream: Any, cache: Any = None, **how: Any) -> ExactCache:
    return ExactCache(upstream, cache or MemoryCache(1 << 20), PRICES, **how)


def wishing(**options: Any) -> Request:
    return replace(ASKED, options=Options(**options))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def read(chunks: Any) -> tuple[str, Reply]:
    """A stream's text and its reply, which comes last and once."""
    seen = [chunk async for chunk in chunks]
    assert [chunk.reply is not None for chunk in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1].reply is not None
    return "".join(chunk.text for chunk in seen), seen[-1].reply


# -- hits -----------------------------------------------------------------------------------------


async def test_the_same_call_is_asked_once_and_then_costs_nothing() -> None:
    upstream = Upstream()
    onion = Meter(layer(upstream), PRICES)
    first, second = await onion.complete(ASKED), await onion.complete(ASKED)
    assert upstream.calls == 1
    assert (first.tier, first.cost_usd, first.stages, first.attempts) == ("model", pytest.approx(COST), (), 2)
    assert (second.text, second.usage, second.model) == (first.text, first.usage, first.model)
    assert (second.tier, second.cost_usd, second.attempts, second.first_token_ms) == ("exact", 0.0, 0, None)
    (stage,) = second.stages
    assert (stage.layer, stage.saved_usd) == ("exact", pytest.approx(COST))
    assert second.saved_usd == pytest.approx(COST)
    assert 0 <= stage.note["age_s"] < 5
    assert stage.ms > 0


async def test_a_stream_and_a_whole_answer_are_kept_for_each_other() -> None:
    upstream = Upstream()
    cached = layer(upstream)
    text, reply = await read(cached.stream(ASKED))
    assert (text, reply.tier, reply.first_token_ms) == ("hi there", "model", 1.0)
    assert (await cached.complete(ASKED)).tier == "exact"
    text, reply = await read(cached.stream(ASKED))
    assert (text, reply.tier, reply.cost_usd) == ("hi there", "exact", 0.0)
    assert reply.first_token_ms is not None
    assert upstream.calls == 1


async def test_a_kept_answer_without_text_streams_its_reply_alone() -> None:
    tool = replace(REPLY, text="", tool_calls=(ToolCall("c", "look_up", "{}"),), finish="tool_calls")
    cached = layer(Upstream(tool))
    await cached.complete(ASKED)
    text, reply = await read(cached.stream(ASKED))
    assert (text, reply.tool_calls, reply.first_token_ms) == ("", tool.tool_calls, None)


async def test_what_an_unknown_price_saved_is_unknown() -> None:
    upstream = Upstream(replace(REPLY, model="mine/other"))
    cached = layer(upstream)
    await cached.complete(ASKED)
    hit = await cached.complete(ASKED)
    assert (hit.cost_usd, hit.saved_usd) == (0.0, None)
    told = layer(Upstream(replace(REPLY, model="mine/other", cost_usd=0.5)))  # the provider says what it bills
    await told.complete(ASKED)
    assert (await told.complete(ASKED)).saved_usd == 0.5


async def test_a_price_that_was_not_looked_up_yet_is() -> None:
    class Slow(PriceTable):
        def quote(self, ref: str) -> Any:
            return None

        def look_up(self, ref: str) -> Any:
            return super().quote(ref)

    cached = ExactCache(Upstream(), MemoryCache(1 << 20), Slow({"mine/large": Price.per_mtok(10.0, 30.0)}, {}))
    await cached.complete(ASKED)
    assert (await cached.complete(ASKED)).saved_usd == pytest.approx(COST)


# -- which calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decoding", "exact", "by_default", "calls"),
    [
        (GREEDY, None, True, 1),
        (Decoding(temperature=0.7, seed=7), None, True, 1),
        (Decoding(seed=7), None, True, 1),
        (Decoding(temperature=0.7), None, True, 2),
        (Decoding(), None, True, 2),
        (Decoding(temperature=0.7), True, True, 1),
        (Decoding(), True, False, 1),
        (GREEDY, None, False, 2),
        (GREEDY, False, True, 2),
    ],
)
async def test_a_call_is_kept_if_it_asks_or_is_deterministic(
    decoding: Decoding, exact: bool | None, by_default: bool, calls: int
) -> None:
    upstream = Upstream()
    cached = layer(upstream, by_default=by_default)
    asked = replace(ASKED, decoding=decoding, options=Options(exact=exact))
    for _ in range(2):
        await cached.complete(asked)
    assert upstream.calls == calls
    for _ in range(2):
        await read(cached.stream(asked))
    assert upstream.calls == (calls if calls == 1 else 4)


async def test_no_tenant_is_answered_with_anothers_words() -> None:
    upstream = Upstream()
    cached = layer(upstream)
    for scope in (LOCAL, Scope("other"), Scope("local", "prod")):
        assert (await cached.complete(replace(ASKED, scope=scope))).tier == "model"
    assert upstream.calls == 3


@pytest.mark.parametrize(
    ("reply", "calls"),
    [
        (replace(REPLY, finish="length"), 1),
        (replace(REPLY, finish="content_filter"), 2),
        (replace(REPLY, tier="semantic"), 2),
        (replace(REPLY, stages=(Stage("failover", note={"asked": ["mine/large", "mine/other"], "why": {}}),)), 2),
        (replace(REPLY, stages=(Stage("failover", note={"hedge": {"sent": True}}), Stage("route"))), 1),
    ],
)
async def test_what_is_kept(reply: Reply, calls: int) -> None:
    upstream = Upstream(reply)
    cached = layer(upstream)
    for _ in range(2):
        await cached.complete(ASKED)
    assert upstream.calls == calls


async def test_neither_errors_nor_broken_streams_are_kept() -> None:
    upstream = Upstream(Unavailable("down"))
    cached = layer(upstream)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await cached.complete(ASKED)
        with pytest.raises(Unavailable):
            await read(cached.stream(ASKED))
    assert upstream.calls == 4

    class Cut(Upstream):
        async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
            self.calls += 1
            yield Chunk("hi")

    cut = Cut()
    for _ in range(2):
        with pytest.raises(Unavailable, match="before its answer was whole"):
            await read(layer(cut).stream(ASKED))
    assert cut.calls == 2


async def test_refresh_asks_anew_and_keeps_the_new_answer() -> None:
    upstream = Upstream()
    cached = layer(upstream)
    await cached.complete(ASKED)
    upstream.reply = replace(REPLY, text="anew")
    assert (await cached.complete(wishing(refresh=True))).text == "anew"
    assert ((await cached.complete(ASKED)).text, upstream.calls) == ("anew", 2)


# -- time and tags ----------------------------------------------------------------------------------


async def test_an_answer_goes_after_its_time() -> None:
    upstream = Upstream()
    cached = layer(upstream, ttl=60.0)
    await cached.complete(wishing(ttl=0.05))
    assert (await cached.complete(ASKED)).tier == "exact"
    await asyncio.sleep(0.08)
    assert (await cached.complete(ASKED)).tier == "model"
    await asyncio.sleep(0.03)
    assert (await cached.complete(wishing(ttl=0.02))).tier == "model"  # too old for this caller
    assert (await cached.complete(wishing(ttl=5.0))).tier == "exact"


@pytest.mark.parametrize("tag", ["document:7f", "model:mine/large", "model:mine/other"])
async def test_an_answer_goes_with_its_tags(tag: str) -> None:
    upstream, cache = Upstream(replace(REPLY, model="mine/other")), MemoryCache(1 << 20)
    cached = layer(upstream, cache)
    asked = wishing(tags=("document:7f",))
    await cached.complete(asked)
    assert await cache.invalidate(LOCAL, ["document:8"]) == 0
    assert await cache.invalidate(LOCAL, [tag]) == 1
    await cached.complete(asked)
    assert upstream.calls == 2


async def test_a_hit_takes_on_the_tags_of_who_gets_it() -> None:
    upstream, cache = Upstream(), MemoryCache(1 << 20)
    cached = layer(upstream, cache)
    await cached.complete(ASKED)
    hit = await cached.complete(wishing(tags=("document:7f",)))
    assert (hit.tier, upstream.calls) == ("exact", 1)
    assert (await cached.complete(wishing(tags=("document:7f",)))).tier == "exact"
    assert await cache.invalidate(LOCAL, ["document:7f"]) == 1
    assert (await cached.complete(ASKED)).tier == "model"


async def test_an_answer_whose_document_changed_meanwhile_is_given_but_not_kept() -> None:
    upstream, cache = Upstream(held=True), MemoryCache(1 << 20)
    cached = layer(upstream, cache)
    first = asyncio.create_task(cached.complete(wishing(tags=("document:7f",))))
    await turns()
    await cache.invalidate(LOCAL, ["document:7f"])
    upstream.go.set()
    assert (await first).text == "hi there"
    assert (await cached.complete(ASKED)).tier == "model"
    assert upstream.calls == 2


async def test_who_joins_late_brings_tags_and_a_shorter_time_along() -> None:
    upstream, cache = Upstream(held=True), MemoryCache(1 << 20)
    cached = layer(upstream, cache)
    calls = [asyncio.create_task(cached.complete(one)) for one in (ASKED, wishing(tags=("x",), ttl=0.05))]
    await turns()
    upstream.go.set()
    await asyncio.gather(*calls)
    assert upstream.calls == 1
    assert await cache.invalidate(LOCAL, ["x"]) == 1
    upstream.reply = replace(REPLY, text="later")
    await cached.complete(wishing(ttl=0.05))
    await asyncio.sleep(0.08)
    assert (await cached.complete(ASKED)).tier == "model"


class Slowly(MemoryCache):
    """Takes a while to keep an answer."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.go = asyncio.Event()

    async def put(self, *args: Any, **how: Any) -> None:
        await self.go.wait()
        await super().put(*args, **how)


async def test_who_comes_while_the_answer_is_kept_takes_it_from_the_cache() -> None:
    upstream, cache = Upstream(), Slowly()
    cached = layer(upstream, cache)
    first = asyncio.create_task(cached.complete(ASKED))
    await turns()
    same, tagged = (asyncio.create_task(cached.complete(one)) for one in (ASKED, wishing(tags=("x",))))
    await turns()
    assert not first.done()  # an entry is visible before its answer leaves
    cache.go.set()
    assert [one.tier for one in await asyncio.gather(first, same, tagged)] == ["model", "exact", "exact"]
    assert upstream.calls == 1
    assert await cache.invalidate(LOCAL, ["x"]) == 1


class Far(MemoryCache):
    """A cache that takes its time to answer: it looks at once, and tells later."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.looks = 0

    async def get(self, scope: Scope, key: str, /) -> bytes | None:
        self.looks += 1
        found = await super().get(scope, key)
        await asyncio.sleep(0.01)
        return found


async def test_no_call_is_asked_twice_because_the_cache_is_far_away() -> None:
    upstream, cache = Upstream(), Far()
    cached = layer(upstream, cache)
    replies = await asyncio.gather(*[cached.complete(ASKED) for _ in range(20)], read(cached.stream(ASKED)))
    assert upstream.calls == 1
    assert [reply.tier for reply in replies[:20]] == ["model"] + ["exact"] * 19
    looks = cache.looks
    assert {reply.tier for reply in await asyncio.gather(*[cached.complete(ASKED) for _ in range(20)])} == {"exact"}
    assert cache.looks == looks + 1
    tagged, hurried = wishing(tags=("x",)), wishing(ttl=0.001)
    calls = [cached.complete(one) for one in (ASKED, tagged, hurried, ASKED)]
    assert [reply.tier for reply in await asyncio.gather(*calls)] == ["exact", "exact", "model", "exact"]
    assert await cache.invalidate(LOCAL, ["x"]) in (0, 1)
    assert cached._looking == {}


async def test_who_looks_and_is_cancelled_leaves_the_looking_to_others() -> None:
    upstream = Upstream()
    cached = layer(upstream, Far())
    first, second = (asyncio.create_task(cached.complete(ASKED)) for _ in range(2))
    await turns(2)
    first.cancel()
    assert (await second).tier == "model"
    assert upstream.calls == 1


# -- in the air ---------------------------------------------------------------------------------------


async def test_identical_calls_in_the_air_share_one() -> None:
    upstream = Upstream(held=True)
    onion = Meter(layer(upstream), PRICES)
    calls = [asyncio.create_task(onion.complete(ASKED)) for _ in range(20)]
    await turns()
    upstream.go.set()
    replies = await asyncio.gather(*calls)
    assert upstream.calls == 1
    assert [reply.tier for reply in replies] == ["model"] + ["exact"] * 19
    assert sum(reply.cost_usd or 0.0 for reply in replies) == pytest.approx(COST)
    assert sum(reply.attempts for reply in replies) == 2
    assert replies[7].stages[0].note == {"joined": True}
    assert replies[7].saved_usd == pytest.approx(COST)


async def test_a_late_reader_gets_what_was_streamed_and_follows() -> None:
    upstream = Upstream(held=True)
    cached = layer(upstream)
    first, late = cached.stream(ASKED), cached.stream(ASKED)
    assert (await anext(first)).text == "hi "
    assert (await anext(late)).text == "hi "
    whole = asyncio.create_task(cached.complete(ASKED))
    await turns()
    upstream.go.set()
    assert (await read(late))[1].tier == "exact"
    text, reply = await read(first)
    assert (text, reply.tier) == ("there", "model")
    assert (await whole).tier == "exact"
    assert upstream.calls == 1


async def test_a_stream_may_follow_a_whole_call() -> None:
    upstream = Upstream(held=True)
    cached = layer(upstream)
    whole = asyncio.create_task(cached.complete(ASKED))
    await turns()
    stream = asyncio.create_task(read(cached.stream(ASKED)))
    await turns()
    upstream.go.set()
    text, reply = await stream
    assert (text, reply.tier, (await whole).tier, upstream.calls) == ("hi there", "exact", "model", 1)
    assert reply.first_token_ms is not None


async def test_a_call_goes_on_when_who_began_it_leaves() -> None:
    upstream = Upstream(held=True)
    cached = layer(upstream)
    calls = [asyncio.create_task(cached.complete(ASKED)) for _ in range(3)]
    await turns()
    calls[0].cancel()
    await turns()
    upstream.go.set()
    replies = await asyncio.gather(*calls[1:])
    assert (upstream.calls, upstream.cancelled) == (1, 0)
    assert [reply.tier for reply in replies] == ["model", "exact"]  # somebody's record has what it cost
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    assert (await cached.complete(ASKED)).tier == "exact"


async def test_a_call_that_nobody_waits_for_is_cancelled_and_not_joined() -> None:
    upstream = Upstream(held=True)
    cached = layer(upstream)
    calls = [asyncio.create_task(cached.complete(ASKED)) for _ in range(3)]
    await turns()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (upstream.calls, upstream.cancelled) == (1, 1)
    upstream.go.set()
    assert (await cached.complete(ASKED)).tier == "model"
    upstream.go.clear()
    stream: Any = cached.stream(wishing(refresh=True))
    await anext(stream)
    await stream.aclose()
    assert (upstream.calls, upstream.cancelled) == (3, 2)


async def test_a_follower_may_leave_without_harm() -> None:
    upstream = Upstream(held=True)
    cached = Deadline(layer(upstream))
    first = asyncio.create_task(cached.complete(ASKED))
    await turns()
    with pytest.raises(Timeout):
        await cached.complete(replace(ASKED, deadline=time.monotonic() + 0.02))
    assert upstream.cancelled == 0
    upstream.go.set()
    assert (await first).tier == "model"


async def test_each_caller_has_a_deadline_of_its_own() -> None:
    upstream = Upstream(held=True)
    cached = Deadline(layer(upstream))
    hurried = asyncio.create_task(cached.complete(replace(ASKED, deadline=time.monotonic() + 0.02)))
    await turns()
    patient = asyncio.create_task(cached.complete(ASKED))
    with pytest.raises(Timeout):
        await hurried
    upstream.go.set()
    assert (await patient).tier == "model"
    assert (upstream.calls, upstream.cancelled) == (1, 0)


async def test_all_are_told_of_a_failure_and_none_asks_again() -> None:
    error = RateLimited("slow down", retry_after=3.0)
    error.detail = {**error.detail, "attempts": 4}
    upstream = Upstream(error, held=True)
    cached = layer(upstream)
    calls = [asyncio.create_task(cached.complete(ASKED)) for _ in range(10)]
    stream = asyncio.create_task(read(cached.stream(ASKED)))
    await turns()
    upstream.go.set()
    told = await asyncio.gather(*calls, stream, return_exceptions=True)
    assert upstream.calls == 1
    assert [type(one) for one in told] == [RateLimited] * 11
    assert told[0] is error
    assert len({id(one) for one in told}) == 11  # each notes its own record on it
    assert [one.detail["attempts"] for one in told if isinstance(one, RateLimited)] == [4] + [0] * 10
    assert [one.retry_after for one in told if isinstance(one, RateLimited)] == [3.0] * 11


@pytest.mark.parametrize("error", [LimitReached("full", retry_after=2.0), ValueError("a provider of mine broke")])
async def test_any_error_reaches_all(error: Exception) -> None:
    upstream = Upstream(error, held=True)
    cached = layer(upstream)
    calls = [asyncio.create_task(cached.complete(ASKED)) for _ in range(2)]
    await turns()
    upstream.go.set()
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [(type(one), str(one)) for one in told] == [(type(error), str(error))] * 2


async def test_who_has_more_time_asks_again_where_the_first_had_too_little() -> None:
    class Once(Upstream):
        def _begin(self, request: Request) -> None:
            self.reply = REPLY if self.calls else RateLimited("wait longer than you may")
            super()._begin(request)

    upstream = Once(held=True)
    cached = layer(upstream)
    now = time.monotonic()
    hurried = asyncio.create_task(cached.complete(replace(ASKED, deadline=now + 30)))
    await turns()
    same = asyncio.create_task(cached.complete(replace(ASKED, deadline=now + 30)))
    patient = [asyncio.create_task(cached.complete(replace(ASKED, deadline=at))) for at in (now + 60, None)]
    stream = asyncio.create_task(read(cached.stream(ASKED)))
    await turns()
    upstream.go.set()
    for call in (hurried, same):
        with pytest.raises(RateLimited):
            await call
    replies = [await patient[0], await patient[1], (await stream)[1]]
    assert sorted(reply.tier for reply in replies) == ["exact", "exact", "model"]
    assert upstream.calls == 2


async def test_a_stream_that_fails_tells_its_readers_after_what_it_gave() -> None:
    upstream = Upstream(Unavailable("gone"), held=True)
    cached = layer(upstream)
    first, late = cached.stream(ASKED), cached.stream(ASKED)
    for stream in (first, late):
        assert (await anext(stream)).text == "hi "
    upstream.go.set()
    for stream in (first, late):
        with pytest.raises(Unavailable, match="gone"):
            await anext(stream)
    assert upstream.calls == 1


async def test_a_call_that_somebody_below_cancels_is_an_error_not_a_cancellation() -> None:
    class Cancelling(Upstream):
        async def complete(self, request: Request, /) -> Reply:
            raise asyncio.CancelledError

    with pytest.raises(Unavailable, match="cancelled"):
        await layer(Cancelling()).complete(ASKED)


@pytest.mark.parametrize("other", [{"semantic": False}, {"refresh": True}])
async def test_who_wants_another_answer_shares_no_call(other: dict[str, Any]) -> None:
    upstream = Upstream(held=True)
    cached = layer(upstream)
    calls = [asyncio.create_task(cached.complete(one)) for one in (ASKED, wishing(**other), wishing(**other))]
    await turns()
    upstream.go.set()
    assert [one.tier for one in await asyncio.gather(*calls)] == ["model", "model", "exact"]
    assert upstream.calls == 2


def test_loops_share_the_cache_and_no_call() -> None:
    class Now(Upstream):
        def __init__(self) -> None:
            self.calls = 0

        async def complete(self, request: Request, /) -> Reply:
            self.calls += 1
            return REPLY

    upstream = Now()
    cached = layer(upstream)
    for _ in range(3):
        asyncio.run(cached.complete(ASKED))
    assert upstream.calls == 1


# -- a cache that fails ----------------------------------------------------------------------------------


class Broken(MemoryCache):
    def __init__(self, broken: Callable[[], bool], calls: Sequence[str] = ("get", "epoch", "put")) -> None:
        super().__init__(1 << 20)
        self.broken, self.which, self.asked = broken, calls, 0

    def _check_open(self) -> None:
        self.asked += 1
        if self.broken():
            raise StoreError("the disk is full")


async def test_a_cache_that_fails_is_a_miss_and_is_left_alone_for_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = True
    upstream, cache = Upstream(), Broken(lambda: down)
    cached = layer(upstream, cache)
    now = time.monotonic()
    monkeypatch.setattr("kaizen.inference.exact.layer.time.monotonic", lambda: now)
    with caplog.at_level(logging.WARNING, "kaizen"):
        for _ in range(3):
            assert (await cached.complete(ASKED)).tier == "model"
        assert (cached.counts.failures, cache.asked) == (1, 1)
        now += 2
        await cached.complete(ASKED)
    assert [record.getMessage() for record in caplog.records] == [
        "the exact cache failed, calls go on without it: the disk is full"
    ]
    assert (cached.counts.failures, cached.counts.misses) == (2, 4)
    down, now = False, now + 2
    await cached.complete(ASKED)
    assert (await cached.complete(ASKED)).tier == "exact"
    down, now = True, now + 100
    with caplog.at_level(logging.WARNING, "kaizen"):
        await cached.complete(ASKED)
    assert len(caplog.records) == 2


async def test_an_answer_is_given_where_it_can_not_be_kept() -> None:
    fails = iter([False, False, True])
    cached = layer(Upstream(), Broken(lambda: next(fails, False)))
    assert (await cached.complete(ASKED)).text == "hi there"
    assert (cached.counts.kept, cached.counts.failures) == (0, 1)


async def test_a_tag_that_can_not_be_added_makes_a_miss() -> None:
    fails = iter([False, False, False, False, True])
    upstream = Upstream()
    cached = layer(upstream, Broken(lambda: next(fails, False)))
    await cached.complete(ASKED)
    assert (await cached.complete(wishing(tags=("x",)))).tier == "model"
    assert upstream.calls == 2


# -- what is kept ----------------------------------------------------------------------------------------


def test_an_entry_of_another_version_or_a_damaged_one_is_none() -> None:
    reply = replace(REPLY, tool_calls=(ToolCall("c", "f", "{}"),), stages=(Stage("route", note={"a": 1}),))
    kept = Kept(1.5, 60.0, ("t",), reply)
    data = encode(kept)
    assert decode(data) == kept
    assert decode(b"0" + data[1:]) is None
    assert decode(data[:-3]) is None
    assert decode(data.replace(b'"finish":"stop"', b'"finish":"quux"')) is None


async def test_an_entry_that_can_not_be_read_is_asked_anew_and_replaced() -> None:
    upstream, cache = Upstream(), MemoryCache(1 << 20)
    cached = layer(upstream, cache)
    await cached.complete(ASKED)
    (name,) = cache._shelves[LOCAL].keys
    await cache.put(LOCAL, name, b"of another version")
    assert (await cached.complete(ASKED)).tier == "model"
    assert (await cached.complete(ASKED)).tier == "exact"
    assert upstream.calls == 2


def test_what_is_kept_decoded_is_bounded() -> None:
    decoded = Decoded(2_000)
    entries = [encode(Kept(float(number), 1.0, (), REPLY)) for number in range(30)]
    for number, data in enumerate(entries):
        assert decoded.of(str(number), data) == Kept(float(number), 1.0, (), REPLY)
    assert decoded._bytes == sum(len(data) for data, _ in decoded._known.values()) <= 2_000
    first = decoded.of("29", entries[29])
    assert decoded.of("29", bytes(entries[29])) is first
    assert decoded.of("29", entries[0]) == Kept(0.0, 1.0, (), REPLY)
