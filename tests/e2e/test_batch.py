"""Batch calls from end to end: what a real server with batch APIs was asked, and the rows that were kept."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaizen.app import App, build
from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.identity import Identity
from kaizen.core.message import Message
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Options, Reply
from kaizen.core.spec import Spec
from kaizen.settings import Settings, load_settings
from kaizen.testing.batch_server import BatchServer
from kaizen.testing.fault_server import Fault, status

Make = Callable[..., App]
MODEL = "mine/large"
PRICE = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0, "batch_discount": 0.5}
USD = (20 * 10 + 7 * 30) / 1e6
WIRES = pytest.mark.parametrize("wire", ["openai", "anthropic"])


@pytest.fixture
def server() -> Iterator[BatchServer]:
    def answer(body: Any) -> str:
        return f"heard: {body['messages'][-1]['content']}"

    with BatchServer(answer) as running:
        yield running


def settings(address: str, home: Path, wire: str = "openai", **batch: Any) -> Settings:
    own = {"enabled": True, "least_wait": 5.0, "reserve": 1.0, "window": 0.05, "poll": 0.02}
    tree = {
        "model": MODEL,
        "home": str(home),
        "providers": {"mine": {"kind": wire, "base_url": address, "api_key": "k"}},
        "models": {MODEL: PRICE},
        "inference": {"attempts": 1, "batch": own | batch},
    }
    return load_settings(home, {}, tree)


@pytest.fixture
async def app(server: BatchServer, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[App] = []

    def make(wire: str = "openai", **batch: Any) -> App:
        made.append(build(settings(server.base_url, tmp_path, wire, **batch)))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def ask(app: App, text: str = "hello", *, seconds: float | None = None, **options: Any) -> Reply:
    """One model call outside any program, which may wait."""
    deadline = None if seconds is None else time.monotonic() + seconds
    ctx = app.context(Identity(app.scope, "key:1"), deadline=deadline)
    request = ctx.request(MODEL, (Message.of("user", text),))
    return await ctx.complete(replace(request, options=Options(**{"batch": True, **options})))


async def rows(app: App) -> list[Record]:
    return [one async for one in app.ledger.records(app.scope, RecordQuery(kind="model"))]


@WIRES
async def test_calls_that_can_wait_share_a_batch_at_half_the_price(app: Make, server: BatchServer, wire: str) -> None:
    here = app(wire)
    replies = await asyncio.gather(*(ask(here, f"call {number}") for number in range(5)))
    assert [reply.text for reply in replies] == [f"heard: call {number}" for number in range(5)]
    assert (server.sizes, server.direct) == ([5], 0)
    for row in await rows(here):
        assert (row.cost_usd, row.saved_usd) == (pytest.approx(USD / 2), pytest.approx(USD / 2))
        assert (row.tokens_in, row.tokens_out, row.attempts) == (20, 7, 1)
        assert row.stages[0].layer == "batch"
        assert row.stages[0].note["batch"].endswith("batch_0")


@pytest.mark.alone
@pytest.mark.parametrize(
    ("batch", "call", "why"),
    [
        ({"enabled": False}, {}, None),
        ({}, {"batch": None}, None),
        ({}, {"latency_budget_ms": 4000.0}, "it has less time than least_wait"),
        ({}, {"seconds": 4.0}, "it has less time than least_wait"),
    ],
    ids=["off", "not asked for", "latency budget", "deadline"],
)
async def test_all_others_are_asked_at_once(
    app: Make, server: BatchServer, batch: dict[str, Any], call: dict[str, Any], why: str | None
) -> None:
    here = app(**{"window": 3.0, **batch})
    begun = time.monotonic()
    reply = await ask(here, **call)
    assert time.monotonic() - begun < 1.0
    assert (reply.text, server.direct, server.submissions) == ("heard: hello", 1, 0)
    assert [stage.note.get("direct") for stage in reply.stages] == ([why] if why else [])
    assert (await rows(here))[0].cost_usd == pytest.approx(USD)


async def test_a_full_batch_leaves_at_once(app: Make, server: BatchServer) -> None:
    here = app(window=5.0, max_calls=2)
    await asyncio.gather(*(ask(here, f"call {number}") for number in range(4)))
    assert server.sizes == [2, 2]


@pytest.mark.alone
@WIRES
async def test_a_call_is_taken_back_before_its_time_is_over(app: Make, server: BatchServer, wire: str) -> None:
    server.done = False
    here = app(wire, least_wait=1.0, reserve=0.7)
    begun = time.monotonic()
    reply = await ask(here, seconds=1.2)
    assert 0.4 < time.monotonic() - begun < 1.0
    assert (server.submissions, server.cancels, server.direct) == (1, 1, 1)
    assert reply.text == "heard: hello"
    assert reply.stages[0].note["direct"] == "its batch took too long"


async def test_a_batch_others_still_wait_for_is_not_cancelled(app: Make, server: BatchServer) -> None:
    server.done = False
    here = app(least_wait=1.0, reserve=0.7)
    patient = asyncio.ensure_future(ask(here, "patient"))
    hurried = await ask(here, "hurried", seconds=1.1)
    assert hurried.text == "heard: hurried"
    assert (server.submissions, server.cancels, server.direct) == (1, 0, 1)
    server.done = True
    assert (await patient).stages[0].note["batch"] == "batch_0"
    assert server.direct == 1


@WIRES
async def test_a_bad_call_spoils_no_other(app: Make, server: BatchServer, wire: str) -> None:
    server.refused = "bad"
    here = app(wire)
    good, bad = await asyncio.gather(ask(here, "good"), ask(here, "bad"))
    assert (good.stages[0].note["batch"].endswith("batch_0"), server.direct) == (True, 1)
    assert (bad.text, bad.stages[0].note["direct"]) == ("heard: bad", "its batch failed: provider_error")


async def test_where_there_is_no_batch_api_calls_are_asked_directly(app: Make, server: BatchServer) -> None:
    server.queue_for("/files", status(404))
    reply = await ask(app())
    assert (reply.text, server.direct, server.submissions) == ("heard: hello", 1, 0)
    assert reply.stages[0].note["direct"] == "its batch failed: provider_error"


@WIRES
async def test_an_answer_that_is_lost_on_the_way_is_looked_for_not_sent_again(
    app: Make, server: BatchServer, wire: str
) -> None:
    server.mute = 1  # the batch is taken, and the connection breaks
    reply = await ask(app(wire))
    assert (server.submissions, server.direct) == (1, 0)
    assert reply.stages[0].note["batch"].endswith("batch_0")


async def test_a_batch_that_never_arrived_is_handed_in_again(app: Make, server: BatchServer) -> None:
    server.queue_for("/files", Fault("hangup"))
    reply = await ask(app())
    assert (server.submissions, server.direct) == (1, 0)
    assert reply.stages[0].note["batch"] == "batch_0"


async def test_polls_that_fail_are_repeated(app: Make, server: BatchServer) -> None:
    server.queue_for("/batch_0", status(503), Fault("hangup"), status(429))
    assert (await ask(app())).text == "heard: hello"
    assert (server.submissions, server.direct) == (1, 0)


# -- kill -9 --------------------------------------------------------------------------------------


class Ask:
    """A program of two calls that may wait."""

    spec = Spec("Ask", "", [])

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        async def one(number: int) -> Reply:
            request = ctx.request(MODEL, (Message.of("user", f"call {number}"),))
            return await ctx.complete(replace(request, options=Options(batch=True)))

        replies = await asyncio.gather(one(0), one(1))
        return Answer.of({"texts": [reply.text for reply in replies]})


SCRIPT = """
import asyncio, sys
from pathlib import Path
from kaizen.app import build
from tests.e2e.test_batch import Ask, settings

async def main():
    app = build(settings(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
    await app.start(Ask(), {}, run_id="run-1")

asyncio.run(main())
"""


def started(address: str, home: Path, wire: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, address, str(home), wire], cwd=Path(__file__).parents[2])


def book(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in home.glob("batch.db*"))


@WIRES
@pytest.mark.parametrize("when", ["after", "before"])
async def test_a_killed_process_hands_nothing_in_twice(
    app: Make, server: BatchServer, tmp_path: Path, wire: str, when: str
) -> None:
    """Killed while it waits for the batch, or before it could write down the batch's id."""
    server.done = False
    server.silent = when == "before"
    process = started(server.base_url, tmp_path, wire)
    await server.until(lambda: (server.submissions if when == "before" else server.polls) > 0, within=20.0)
    process.kill()
    process.wait()
    server.done, server.silent = True, False
    here = app(wire)
    answer = await here.start(Ask(), {}, run_id="run-1")
    assert isinstance(answer, Answer)
    assert answer.outputs["texts"] == ["heard: call 0", "heard: call 1"]
    assert (server.submissions, server.sizes, server.direct) == (1, [2], 0)
    assert [row.cost_usd for row in await rows(here)] == [pytest.approx(USD / 2)] * 2
    other = await here.start(Ask(), {}, run_id="run-2")  # another run's calls are other calls
    assert isinstance(other, Answer)
    assert (server.submissions, server.direct) == (2, 0)


async def test_the_book_holds_no_contents(app: Make, server: BatchServer, tmp_path: Path) -> None:
    await ask(app(), "a private matter")
    kept = book(tmp_path)
    assert b"batch_0" in kept
    assert b"private" not in kept
    assert b"heard" not in kept
