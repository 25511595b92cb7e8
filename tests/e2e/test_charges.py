"""What a call is charged when it does not end well: budgets and allowances after real servers were asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaizen import errors
from kaizen.app import App, build
from kaizen.app.adapters import own_prices
from kaizen.app.govern import Governance, make_govern
from kaizen.core.context import Context, Run
from kaizen.core.identity import NANO, Identity, Limits, nano_usd
from kaizen.core.message import Message
from kaizen.core.request import Chunk, Decoding, Options, Reply, Request, Usage
from kaizen.core.scope import Scope
from kaizen.inference.ceiling import Ceiling
from kaizen.inference.prices import PriceTable
from kaizen.settings import load_settings
from kaizen.stores.allowances import FileAllowance, Taken
from kaizen.stores.allowances import Limits as Allowed
from kaizen.testing.batch_server import BatchServer
from kaizen.testing.fault_server import Fault, FaultServer, slow, status

OURS = Scope("acme", "prod")
PRICES = {
    "cheap/small": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0},
    "dear/large": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0},
}
USD = (20 * 10 + 7 * 30) / 1e6  # a server counts 20 tokens in and 7 out
LATE = Fault("status", delay=0.2, status=408)
BATCHES = {"enabled": True, "least_wait": 0.5, "reserve": 0.3, "window": 0.05, "poll": 0.02}


class House:
    """An App of two providers, the dear one on Anthropic's wire, whose calls are governed."""

    def __init__(self, app: App, govern: Governance) -> None:
        self.app, self.govern = app, govern

    async def key(self) -> str:
        made = await self.govern.keys.create(OURS, limits=Limits(usd_per_day=10 * NANO))
        return (await self.govern.authenticator.authenticate(made.secret)).principal

    def context(self, key: str) -> Context:
        return self.app.context(Identity(OURS, key))

    async def charged(self, key: str) -> int:
        """Nano-dollars."""
        return (await self.govern.quota.standing(OURS, [key]))[0].usd_day

    def allowance(self, run_id: str = "run-1", **limits: Any) -> FileAllowance:
        """A run's, as an optimizer has it."""
        prices = PriceTable(own_prices(self.app.settings), {})

        def price(ref: str, usage: Usage) -> float | None:
            found = prices.look_up(ref).price
            return None if found is None else found.cost(usage)

        return FileAllowance(
            self.app.settings.home / "allowances.db",
            OURS,
            run_id,
            Allowed(**limits),
            bound=Ceiling(prices, {}),
            price=price,
        )

    async def run(self, allowance: FileAllowance, run_id: str = "run-1", seconds: float | None = None) -> Context:
        await allowance.open("plan")
        run: Run = await self.app.new_run(run_id, seconds=seconds)
        return Context(replace(run, allowance=allowance))


def asking(
    model: str = "dear/large", *, decoding: Decoding | None = None, text: str = "hello", **options: Any
) -> Request:
    return Request(
        scope=OURS,
        model=model,
        messages=(Message.of("user", text),),
        decoding=decoding or Decoding(max_tokens=50),
        options=Options(**options),
    )


async def drained(chunks: AsyncIterator[Chunk]) -> str:
    return "".join([chunk.text async for chunk in chunks])


Make = Callable[..., House]


@pytest.fixture
def cheap() -> Iterator[BatchServer]:
    with BatchServer("hello from the cheap one") as running:
        yield running


@pytest.fixture
def dear() -> Iterator[FaultServer]:
    with FaultServer("hello from the dear one") as running:
        yield running


@pytest.fixture
async def make(cheap: FaultServer, dear: FaultServer, tmp_path: Path) -> AsyncIterator[Make]:
    """``make(compress={...}, ...)``: keywords are settings of the layers. Without ``governed`` there is no policy."""
    async with AsyncExitStack() as opened:

        def making(*, governed: bool = True, **inference: Any) -> House:
            tree = {
                "model": "dear/large",
                "home": str(tmp_path / "home"),
                "tenant": OURS.tenant,
                "environment": OURS.environment,
                "providers": {
                    "cheap": {"kind": "openai", "base_url": cheap.base_url, "api_key": "k"},
                    "dear": {"kind": "anthropic", "base_url": dear.address, "api_key": "k"},
                },
                "models": PRICES,
                "inference": {"attempts": 1, **inference},
            }
            settings = load_settings(tmp_path, {}, tree)
            govern = make_govern(settings)
            app = build(settings, policy=govern.policy if governed else None)
            opened.push_async_callback(govern.close)
            opened.push_async_callback(app.close)
            return House(app, govern)

        yield making


# -- budgets --------------------------------------------------------------------------------------


async def test_a_cascades_paid_answer_is_charged_where_the_last_model_has_no_place_for_a_parameter(
    make: Make, cheap: FaultServer, dear: FaultServer
) -> None:
    route = {"enabled": True, "candidates": ["cheap/small"], "cascade": {"models": ["cheap/small", "dear/large"]}}
    house = make(route=route)
    key = await house.key()
    request = asking(decoding=Decoding(max_tokens=50, seed=7), routing="guided")  # Anthropic's wire has no seed
    with pytest.raises(errors.Unsupported):
        await house.context(key).complete(request)
    assert (cheap.count, dear.count) == (1, 0)
    assert await house.charged(key) >= nano_usd(50 * 30 / 1e6)  # nobody can tell how much: all that was reserved


async def gathered(house: House, key: str, count: int, *, stream: bool) -> list[Any]:
    """So many identical calls at once."""
    request = asking(decoding=Decoding(max_tokens=50, temperature=0.0))
    calls = [
        drained(house.context(key).stream(request)) if stream else house.context(key).complete(request)
        for _ in range(count)
    ]
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    ("fault", "stream", "kind"),
    [(LATE, False, errors.Timeout), (Fault("error_event", delay=0.2), True, errors.Unavailable)],
    ids=["late", "a stream that breaks off"],
)
async def test_a_failed_call_that_many_waited_for_is_charged_once(
    make: Make, dear: FaultServer, fault: Fault, stream: bool, kind: type[errors.KaizenError]
) -> None:
    house = make(exact={"enabled": True})
    alone, together = await house.key(), await house.key()
    dear.queue(fault, fault)
    for key, count in ((alone, 1), (together, 20)):
        assert [type(one) for one in await gathered(house, key, count, stream=stream)] == [kind] * count
    assert dear.count == 2
    assert await house.charged(alone) > nano_usd(50 * 30 / 1e6)
    assert await house.charged(together) == await house.charged(alone)


async def test_a_cascade_that_many_waited_for_is_charged_once(make: Make, cheap: FaultServer) -> None:
    route = {"enabled": True, "candidates": ["cheap/small"], "cascade": {"models": ["cheap/small", "dear/large"]}}
    house = make(route=route, exact={"enabled": True})
    alone, together = await house.key(), await house.key()
    cheap.queue(slow(0.2), slow(0.2))
    request = asking(decoding=Decoding(max_tokens=50, seed=7), routing="guided")
    for key, count in ((alone, 1), (together, 5)):
        calls = [house.context(key).complete(request) for _ in range(count)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(one) for one in found] == [errors.Unsupported] * count
    assert cheap.count == 2
    assert await house.charged(together) == await house.charged(alone) > 0


# -- allowances -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_adapter_never_sent_is_given_back(make: Make, dear: FaultServer, stream: bool) -> None:
    house = make(governed=False)
    async with house.allowance(tokens=1000, usd=1.0, calls=5) as allowance:
        ctx = await house.run(allowance)
        request = asking(decoding=Decoding(seed=7, max_tokens=50))
        with pytest.raises(errors.Unsupported):
            await (drained(ctx.stream(request)) if stream else ctx.complete(request))
        taken = await allowance.taken()
    assert dear.count == 0
    assert (taken.calls, taken.tokens, taken.usd) == (1, 0, pytest.approx(0.0))


@pytest.mark.parametrize("calls", [1, 2])
async def test_an_answer_stands_where_the_allowance_has_nothing_left_for_the_call_to_learn_from(
    make: Make, dear: FaultServer, calls: int
) -> None:
    passages = "\n".join(f"House {at} of the harbour street was built by a family of bakers." for at in range(24))
    house = make(governed=False, compress={"enabled": True, "sample": 1.0})
    async with house.allowance(calls=calls) as allowance:
        ctx = await house.run(allowance)
        reply = await ctx.complete(asking(text=f"Context:\n{passages}\n\nQuestion: Who built house 7?"))
        assert (reply.text, dear.count) == ("hello from the dear one", calls)
        assert (await allowance.taken()).calls == calls


def one_call(taken: Taken, *, calls: int = 1) -> bool:
    """Whether nothing but what one answer used is taken."""
    usd = (20 * 1 + 7 * 2) / 1e6
    return (taken.calls, taken.tokens, taken.usd) == (calls, 27, pytest.approx(usd))


async def test_a_batchs_answer_is_taken_at_what_it_used_and_sent_with_its_bound(make: Make, cheap: BatchServer) -> None:
    house = make(governed=False, batch=BATCHES)
    async with house.allowance(tokens=10_000, usd=1.0) as allowance:
        ctx = await house.run(allowance)
        request = replace(asking("cheap/small", batch=True), decoding=Decoding())
        assert (await ctx.complete(request)).text == "hello from the cheap one"
        assert one_call(await allowance.taken())
    assert (cheap.submissions, cheap.direct) == (1, 0)
    (uploaded,) = [call.body for call in cheap.calls if call.path == "/v1/files"]
    assert b'"max_tokens":4096' in uploaded.replace(b" ", b"")


async def test_a_refused_batch_gives_back_what_it_took(make: Make, cheap: BatchServer) -> None:
    cheap.queue_for("/files", status(404))
    house = make(governed=False, batch=BATCHES)
    # enough for one call at its bound, not for two
    async with house.allowance(tokens=200, usd=1.0) as allowance:
        ctx = await house.run(allowance)
        assert (await ctx.complete(asking("cheap/small", batch=True))).text == "hello from the cheap one"
        assert one_call(await allowance.taken(), calls=2)
    assert (cheap.submissions, cheap.direct) == (0, 1)


@pytest.mark.alone
async def test_a_call_taken_back_before_its_batch_left_gives_all_back(make: Make, cheap: BatchServer) -> None:
    house = make(governed=False, batch=BATCHES | {"window": 5.0})
    async with house.allowance(tokens=200, usd=1.0) as allowance:
        ctx = await house.run(allowance, seconds=0.9)
        assert (await ctx.complete(replace(asking("cheap/small", batch=True), deadline=ctx.run.deadline))).text
        assert one_call(await allowance.taken(), calls=2)
    assert (cheap.submissions, cheap.direct) == (0, 1)


@pytest.mark.alone
async def test_a_call_taken_back_from_its_batch_stays_taken_for_that_may_be_billed(
    make: Make, cheap: BatchServer
) -> None:
    cheap.done = False
    house = make(governed=False, batch=BATCHES)
    async with house.allowance(tokens=1000, usd=1.0) as allowance:
        ctx = await house.run(allowance, seconds=0.9)
        assert (await ctx.complete(replace(asking("cheap/small", batch=True), deadline=ctx.run.deadline))).text
        taken = await allowance.taken()
    assert (cheap.submissions, cheap.direct) == (1, 1)
    assert (taken.calls, taken.tokens > 27 + 50) == (2, True)


async def test_a_run_that_finds_its_earlier_batch_takes_nothing_more(make: Make, cheap: BatchServer) -> None:
    cheap.done = False
    house = make(governed=False, batch=BATCHES)

    async def ask(ctx: Context) -> Reply:
        return await ctx.complete(asking("cheap/small", batch=True))

    async with house.allowance(calls=1) as allowance:
        asked = asyncio.ensure_future(ask(await house.run(allowance)))
        await cheap.until(lambda: cheap.polls > 0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    cheap.done = True
    async with house.allowance(calls=1) as allowance:
        assert (await ask(await house.run(allowance))).text == "hello from the cheap one"
        assert (await allowance.taken()).calls == 1
    assert (cheap.submissions, cheap.direct) == (1, 0)
