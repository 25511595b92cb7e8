"""A call that is passed on: what it may cost, what it did cost, and what is kept however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from kaizen.core.context import Context, Run
from kaizen.core.errors import Denied, Timeout, Unavailable
from kaizen.core.protocols import Allow, Ask, Decision, Deny, Need
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import LOCAL
from kaizen.inference.prices import FREE, Price
from kaizen.ledger.ledger import Ledger
from kaizen.programs.calls import Suspension
from kaizen.programs.forward import Forwarding, Passing, Posted
from kaizen.stores.memory import MemoryStore

PRICES = {
    "mine/painter": Price.per_mtok(0.0, 0.0, call_usd=0.04),
    "mine/both": Price.per_mtok(10.0, 30.0, call_usd=0.5),
    "mine/free": FREE,
}


class Answer:
    """What a provider answers: pieces of a body."""

    def __init__(self, kind: str, *pieces: bytes, failure: Exception | None = None) -> None:
        self.headers: Mapping[str, str] = {"content-type": kind} if kind else {}
        self._pieces, self._failure = list(pieces), failure
        self.attempts = 1

    async def pieces(self) -> bytes | None:
        if self._pieces:
            return self._pieces.pop(0)
        if self._failure is not None:
            raise self._failure
        return None

    async def read(self) -> bytes:
        return b"".join(self._pieces)


class Counting:
    """A policy that says what it is told, and its lease: what was asked for, and what was used."""

    def __init__(self, decision: Decision | None = None) -> None:
        self.decision = decision or Allow(self)
        self.needs: list[Need | None] = []
        self.used: list[Need] = []

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Decision:
        assert action == "infer"
        self.needs.append(need)
        return self.decision

    async def settle(self, used: Need, /) -> None:
        self.used.append(used)


class Passed:
    """A Forwarding whose provider gives one answer."""

    def __init__(self, answer: Answer | Exception, decision: Decision | None = None) -> None:
        self.ledger = Ledger(MemoryStore(), bytes(32))
        self.policy = Counting(decision)
        self.asked: list[Posted] = []
        self._answer = answer
        self.forwarding = Forwarding(self._send, ledger=self.ledger, policy=self.policy, prices=PRICES)

    @asynccontextmanager
    async def _send(self, posted: Posted, deadline: float | None) -> AsyncGenerator[Answer]:
        self.asked.append(posted)
        if isinstance(self._answer, Exception):
            raise self._answer
        yield self._answer

    async def read(self, ref: str = "mine/painter", *, stream: bool = False) -> Passing:
        run: Any = Run(runtime=None, scope=LOCAL, run_id="run", principal="key:1")  # type: ignore[arg-type]  # not run
        async with self.forwarding(Context(run), Posted(ref=ref, path="/images", body=b"{}", tokens=7)) as passing:
            if stream:
                while await passing.piece() is not None:
                    pass
            else:
                await passing.read()
        return passing

    async def record(self) -> tuple[Record, Any, Any]:
        """The only one, and what it points to."""
        [found] = [one async for one in self.ledger.records(LOCAL, RecordQuery())]
        contents = [await self.ledger.payload(LOCAL, digest) for digest in (found.input_digest, found.output_digest)]
        sent, got = (None if data is None else from_json(data) for data in contents)
        return found, sent, got


def answer(usage: Any = None, **more: Any) -> Answer:
    return Answer("application/json", to_json({"usage": usage, **more}))


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}, (3, 4)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"total_tokens": 9}, (9, 0)),
        ({"total_tokens": 9, "output_tokens": 4}, (5, 4)),
        ({"seconds": 12, "type": "duration"}, (0, 0)),
        ({"input_tokens": "3", "prompt_tokens": True}, (0, 0)),
        ({"input_tokens": -3}, (0, 0)),
        ({"input_tokens": 2**60}, (0, 0)),
        ([3], (0, 0)),
        (None, (0, 0)),
    ],
)
async def test_tokens_are_counted_by_any_of_their_names(usage: Any, counted: tuple[int, int]) -> None:
    here = Passed(answer(usage))
    await here.read()
    record, _, _ = await here.record()
    assert (record.tokens_in, record.tokens_out) == counted
    assert here.policy.used == [Need(1, sum(counted), 0.04)]


@pytest.mark.parametrize(
    ("ref", "most", "cost"),
    [
        ("mine/painter", 0.04, 0.04),
        ("mine/both", None, 0.5 + (3 * 10 + 4 * 30) / 1e6),
        ("mine/free", 0.0, 0.0),
        ("mine/unknown", None, None),
    ],
)
async def test_a_price_by_the_call_is_a_bound_and_one_by_the_token_is_none(
    ref: str, most: float | None, cost: float | None
) -> None:
    here = Passed(answer({"input_tokens": 3, "output_tokens": 4}))
    passing = await here.read(ref)
    record, _, _ = await here.record()
    assert here.policy.needs == [Need(1, 7, most)]
    assert record.cost_usd == (None if cost is None else pytest.approx(cost))
    reply = here.forwarding.reply(here.asked[0], passing, "run")
    assert (reply.model, reply.cost_usd, reply.record_id) == (ref, record.cost_usd, "run")


async def test_without_a_count_of_tokens_their_price_is_not_known() -> None:
    here = Passed(answer())
    await here.read("mine/both")
    record, _, _ = await here.record()
    assert record.cost_usd is None
    assert here.policy.used == [Need(1, 0, None)]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (Answer("application/json", b'{"a": 1}'), {"content_type": "application/json", "bytes": 8, "answer": {"a": 1}}),
        (Answer("application/json", b"{"), {"content_type": "application/json", "bytes": 1}),
        (Answer("text/vtt", b"WEBVTT"), {"content_type": "text/vtt", "bytes": 6, "answer": "WEBVTT"}),
        (Answer("", b"\xff"), {"content_type": "application/octet-stream", "bytes": 1}),
        (Answer("text/plain", b"x" * 2**21), {"content_type": "text/plain", "bytes": 2**21}),
    ],
    ids=["json", "broken", "text", "bytes", "long"],
)
async def test_of_an_answer_what_can_be_read_is_kept(given: Answer, kept: Any) -> None:
    here = Passed(given)
    await here.read()
    record, sent, got = await here.record()
    assert (sent, got) == ({"path": "/images", "model": "mine/painter"}, kept)
    assert (record.status, record.model, record.attempts, record.task) == ("ok", "mine/painter", 1, "images")


async def test_a_stream_s_usage_stands_in_its_last_events() -> None:
    usage = b'data: {"usage": {"input_tokens": 5, "output_tokens": 6}}\n\n'
    here = Passed(Answer("text/event-stream; charset=utf-8", b"data: x" * 20_000, b"\n\n", usage, b"data: [DONE]\n\n"))
    passing = await here.read(stream=True)
    record, _, got = await here.record()
    assert (passing.streams, record.tokens_in, record.tokens_out) == (True, 5, 6)
    assert got == {"content_type": "text/event-stream; charset=utf-8", "bytes": passing.size}


@pytest.mark.parametrize(
    ("failure", "used"),
    [(Unavailable("down"), Need(1)), (Timeout("late"), Need(1, 7, 0.04))],
    ids=["not billed", "perhaps billed"],
)
async def test_a_failure_is_on_record_and_charged_where_it_may_be_billed(failure: Exception, used: Need) -> None:
    here = Passed(failure)
    with pytest.raises(type(failure)):
        await here.read()
    record, _, got = await here.record()
    assert (record.status, record.model, record.cost_usd, record.attempts, got) == ("error", None, None, 1, None)
    assert here.policy.used == [used]


async def test_an_answer_that_breaks_off_is_charged_in_full() -> None:
    here = Passed(Answer("audio/mpeg", b"x", failure=Unavailable("broke off")))
    with pytest.raises(Unavailable):
        await here.read(stream=True)
    record, _, got = await here.record()
    assert (record.status, record.error_code, got) == ("error", "unavailable", None)
    assert here.policy.used == [Need(1, 7, 0.04)]


async def test_who_leaves_does_not_take_the_record_along() -> None:
    class Slow(Answer):
        async def pieces(self) -> bytes | None:
            await asyncio.sleep(60)
            return None

    here = Passed(Slow("audio/mpeg"))
    task = asyncio.create_task(here.read(stream=True))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    record, _, _ = await here.record()
    assert record.status == "cancelled"
    assert here.policy.used == [Need(1, 7, 0.04)]


@pytest.mark.parametrize(
    ("decision", "error", "status"),
    [(Deny("no"), Denied, "error"), (Ask("may it?"), Suspension, "suspended")],
)
async def test_what_policy_refuses_is_on_record_and_not_sent(
    decision: Decision, error: type[Exception], status: str
) -> None:
    here = Passed(answer(), decision)
    with pytest.raises(error):
        await here.read()
    record, _, _ = await here.record()
    assert (record.status, record.attempts, here.asked, here.policy.used) == (status, 0, [], [])


async def test_without_a_policy_all_pass() -> None:
    here = Passed(answer())
    here.forwarding = Forwarding(here._send, ledger=here.ledger, policy=None, prices={})
    await here.read()
    record, _, _ = await here.record()
    assert (record.status, record.cost_usd) == ("ok", None)
