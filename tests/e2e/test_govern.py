"""The evidence for keys, limits and budgets: what a real server is asked, and what is stored of what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from kaizen import Signature, context, errors
from kaizen.app import App, build
from kaizen.app.govern import Governance, make_govern
from kaizen.core.identity import NANO, Identity, Limits, Standing, nano_usd
from kaizen.core.ids import new_id
from kaizen.core.message import Message
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Decoding, Reply, Request
from kaizen.core.scope import Scope
from kaizen.settings import load_settings
from kaizen.testing.fault_server import Fault, FaultServer, slow, status

PRICE = {"mine/large": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0}}
COST = nano_usd((20 * 10 + 7 * 30) / 1e6)  # the server counts 20 tokens in and 7 out
OURS = Scope("acme", "prod")


class Triage(Signature):
    """Name the team that owns a bank customer's message."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers"] = context.output("the team that owns it")


class House:
    """An App whose calls are governed, and the server that answers them."""

    def __init__(self, app: App, govern: Governance, server: FaultServer) -> None:
        self.app, self.govern, self.server = app, govern, server

    async def key(self, scope: Scope = OURS, **about: Any) -> str:
        return (
            await self.govern.authenticator.authenticate((await self.govern.keys.create(scope, **about)).secret)
        ).principal

    async def ask(self, principal: str, message: str = "Someone stole my card") -> str:
        answer = await self.app.start(Triage, {"message": message}, principal=principal)
        return answer.outputs["team"]  # type: ignore[union-attr]

    async def refused(self, kind: type[errors.KaizenError], principal: str) -> Any:
        before = self.server.count
        with pytest.raises(kind) as caught:
            await self.ask(principal)
        assert self.server.count == before  # nothing was asked
        return caught.value

    async def records(self, kind: str = "model") -> list[Record]:
        return [one async for one in self.app.ledger.records(OURS, RecordQuery()) if one.kind == kind]

    async def standing(self, account: str) -> Standing:
        return (await self.govern.quota.standing(OURS, [account]))[0]


Make = Callable[..., House]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer('{"team": "cards"}') as running:
        yield running


@pytest.fixture
async def make(server: FaultServer, tmp_path: Path) -> AsyncIterator[Make]:
    """``make(limits={...}, storage={...}, ...)``: keywords are settings as ``configure`` takes them."""
    async with contextlib.AsyncExitStack() as opened:

        def making(**overrides: Any) -> House:
            tree: dict[str, Any] = {
                "model": "mine/large",
                "home": str(tmp_path / "home"),
                "tenant": OURS.tenant,
                "environment": OURS.environment,
                "providers": {"mine": {"kind": "openai", "base_url": server.base_url, "api_key": "sk-secret"}},
                "models": PRICE,
                "inference": {"attempts": 1},
            }
            settings = load_settings(tmp_path, {}, tree | overrides)
            govern = make_govern(settings)
            app = build(settings, policy=govern.policy)
            opened.push_async_callback(govern.close)
            opened.push_async_callback(app.close)
            return House(app, govern, server)

        yield making


async def test_without_limits_nothing_is_refused_and_nothing_counted(make: Make) -> None:
    house = make()
    key = await house.key()
    for _ in range(5):
        await house.ask(key)
    assert house.server.count == 5
    assert await house.standing(key) == Standing(key)
    assert {record.principal for record in await house.records()} == {key}


async def test_requests_a_minute(make: Make) -> None:
    house = make()
    key = await house.key(limits=Limits(requests_per_minute=3))
    assert await asyncio.gather(*(house.ask(key) for _ in range(3))) == ["cards"] * 3
    refusal = await house.refused(errors.LimitReached, key)
    assert 0 < refusal.retry_after <= 20
    assert house.server.count == 3
    *_, last = sorted(await house.records(), key=lambda record: record.id)
    assert (last.status, last.error_code, last.attempts, last.principal) == ("error", "limit_reached", 0, key)
    programs = await house.records("program")
    assert sorted(record.status for record in programs) == ["error", "ok", "ok", "ok"]
    other = await house.key(limits=Limits(requests_per_minute=3))
    assert await house.ask(other) == "cards"


async def test_a_budget_holds_against_parallel_calls_and_is_settled_with_actuals(make: Make) -> None:
    house = make(defaults={"max_tokens": 50})
    key = await house.key(limits=Limits(usd_per_day=60 * COST))
    house.server.queue(*[slow(0.02)] * 10)
    found = await asyncio.gather(*(house.ask(key) for _ in range(100)), return_exceptions=True)
    refused = [one for one in found if isinstance(one, errors.BudgetExceeded)]
    assert len(refused) + house.server.count == 100
    assert 0 < house.server.count < 20  # each first reserves the most it may cost
    standing = await house.standing(key)
    assert standing.usd_day == standing.usd_month == house.server.count * COST <= 60 * COST
    while True:  # one after another, what was not used is there for the next
        try:
            await house.ask(key)
        except errors.BudgetExceeded:
            break
    spent = sum(nano_usd(record.cost_usd or 0.0) for record in await house.records())
    assert spent == house.server.count * COST == (await house.standing(key)).usd_day
    assert 30 * COST < spent <= 60 * COST
    codes = [record.error_code for record in await house.records() if record.status == "error"]
    assert codes == ["budget_exceeded"] * (len(refused) + 1)


async def test_a_budget_holds_against_parallel_calls_that_are_sent_twice_to_learn(
    make: Make, server: FaultServer
) -> None:
    passages = "\n".join(f"House {at} of the harbour street was built by a family of bakers." for at in range(24))
    text = f"Context:\n{passages}\n\nQuestion: Who built house 7 of the harbour street?"
    message = {"role": "assistant", "content": "bakers"}
    # as many tokens as the prompt has bytes, which is the most that a provider can count
    usage = {"prompt_tokens": len(text), "completion_tokens": 10}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "x", "object": "chat.completion", "model": "large", "choices": [choice], "usage": usage}
    server.default = Fault("body", message=json.dumps(body), delay=0.02)
    cost = (len(text) * 10 + 10 * 30) / 1e6
    house = make(inference={"attempts": 1, "compress": {"enabled": True, "sample": 1.0}})
    key = await house.key(limits=Limits(usd_per_day=nano_usd(9.5 * cost)))
    request = Request(
        scope=OURS, model="mine/large", messages=(Message.of("user", text),), decoding=Decoding(max_tokens=10)
    )

    async def ask() -> Reply:
        return await house.app.context(Identity(OURS, key)).complete(request)

    found = await asyncio.gather(*(ask() for _ in range(100)), return_exceptions=True)
    answered = [one for one in found if isinstance(one, Reply)]
    assert len(answered) + sum(isinstance(one, errors.BudgetExceeded) for one in found) == 100
    assert server.count == 2 * len(answered) == 8
    assert (await house.standing(key)).usd_day == pytest.approx(nano_usd(server.count * cost), abs=10)


async def test_where_only_the_call_to_learn_from_is_answered_the_reservation_is_charged(
    make: Make, server: FaultServer
) -> None:
    passages = "\n".join(f"House {at} of the harbour street was built by a family of bakers." for at in range(24))
    text = f"Context:\n{passages}\n\nQuestion: Who built house 7 of the harbour street?"
    house = make(inference={"attempts": 1, "compress": {"enabled": True, "sample": 1.0}})
    key = await house.key(limits=Limits(usd_per_day=NANO))
    server.queue(status(503))  # the whole prompt is sent first
    request = Request(scope=OURS, model="mine/large", messages=(Message.of("user", text),))
    with pytest.raises(errors.Unavailable):
        await house.app.context(Identity(OURS, key)).complete(request)
    assert server.count == 2
    assert (await house.standing(key)).usd_day > 100 * COST


async def test_a_failed_call_gives_its_reservation_back_but_was_a_request(make: Make, server: FaultServer) -> None:
    house = make()
    key = await house.key(limits=Limits(requests_per_minute=2, usd_per_day=NANO, concurrent=1))
    server.queue(status(503))
    with pytest.raises(errors.Unavailable):
        await house.ask(key)
    assert await house.standing(key) == Standing(key)
    await house.ask(key)
    assert (await house.refused(errors.LimitReached, key)).detail["limit"] == "requests_per_minute"
    assert (await house.standing(key)).usd_day == COST


async def test_calls_at_once(make: Make, server: FaultServer) -> None:
    house = make(limits={"tenant": {"concurrent": 2}})
    server.queue(slow(0.2), slow(0.2))
    calls = [asyncio.ensure_future(house.ask(await house.key())) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert (await house.refused(errors.LimitReached, await house.key())).detail["account"] == "tenant"
    await asyncio.gather(*calls)
    await house.ask(await house.key())
    assert server.count == 3


async def test_a_cancelled_call_is_charged_in_full_since_nobody_knows(make: Make, server: FaultServer) -> None:
    house = make(defaults={"max_tokens": 50})
    key = await house.key(limits=Limits(usd_per_day=NANO, concurrent=1))
    server.queue(slow(5))
    call = asyncio.ensure_future(house.ask(key))
    for _ in range(1000):
        if server.count:
            break
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    standing = await house.standing(key)
    assert standing.calls == 0
    assert standing.usd_day > 50 * 30 * 1000  # the answer's 50 tokens at $30 a million, and the prompt


async def test_what_a_key_may_not_ask(make: Make) -> None:
    house = make()
    denied = await house.refused(errors.Denied, await house.key(models=["openai/*"]))
    assert "mine/large" in str(denied)
    await house.refused(errors.Denied, await house.key(scopes=frozenset({"metrics"})))
    await house.refused(errors.Denied, await house.key(Scope("other", "prod")))
    key = await house.key(models=["mine/*"])
    await house.ask(key)
    await house.govern.keys.revoke(key.removeprefix("key:"))
    await house.refused(errors.Denied, key)
    assert [record.error_code for record in await house.records() if record.status == "error"] == ["denied"] * 4


async def test_an_unknown_price_can_not_be_held_against_a_budget(make: Make) -> None:
    house = make(models={}, limits={"tenants": {"acme": {"usd_per_month": 100}}})
    denied = await house.refused(errors.Denied, await house.key())
    assert "price is not known" in str(denied)


async def test_user_and_tenant_have_budgets_too(make: Make) -> None:
    house = make(limits={"user": {"requests_per_minute": 1}, "tenant": {"usd_per_day": 1.0}})
    zoes, anns = await house.key(user="zoe"), await house.key(user="ann")
    await house.ask(zoes)
    assert (await house.refused(errors.LimitReached, "user:zoe")).detail["account"] == "user:zoe"
    await house.ask(anns)
    assert (await house.standing("tenant")).usd_day == 2 * COST


@pytest.mark.parametrize("shared", ["database_url", "redis_url"])
async def test_two_workers_share_what_is_stored_elsewhere(
    make: Make, postgres_url: str, redis_url: str, shared: str
) -> None:
    storage = {"database_url": postgres_url} | ({"redis_url": redis_url} if shared == "redis_url" else {})
    tenant = f"t-{new_id()}"
    one = make(storage=storage, tenant=tenant, home="one", limits={"tenant": {"requests_per_minute": 4}})
    two = make(storage=storage, tenant=tenant, home="two", limits={"tenant": {"requests_per_minute": 4}})
    scope = Scope(tenant, OURS.environment)
    issued = await one.govern.keys.create(scope)
    principal = (await two.govern.authenticator.authenticate(issued.secret)).principal
    found = await asyncio.gather(*((one, two)[n % 2].ask(principal) for n in range(10)), return_exceptions=True)
    assert sorted(str(getattr(one, "code", one)) for one in found) == ["cards"] * 4 + ["limit_reached"] * 6
    assert one.server.count == 4
    await two.govern.keys.revoke(issued.key.id)
    await asyncio.sleep(1.05)
    with pytest.raises(errors.Unauthenticated):
        await one.govern.authenticator.authenticate(issued.secret)


async def test_a_stream_is_settled_as_well(make: Make) -> None:
    house = make()
    key = await house.key(limits=Limits(usd_per_day=NANO, concurrent=1))
    emitted: list[Any] = []
    await house.app.start(Triage, {"message": "hello"}, principal=key, emit=emitted.append)
    assert await house.standing(key) == Standing(key, COST, COST, 0)


async def test_no_key_is_in_any_row_or_file(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    house = make()
    issued = await house.govern.keys.create(OURS, limits=Limits(requests_per_minute=1))
    principal = (await house.govern.authenticator.authenticate(issued.secret)).principal
    await house.ask(principal)
    await house.refused(errors.LimitReached, principal)
    await house.govern.close()
    await house.app.close()
    secret = issued.secret.rpartition("_")[2]
    assert secret not in caplog.text
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert {"govern.db", "ledger.db"} <= {path.name for path in files}
    assert not [path.name for path in files if secret.encode() in path.read_bytes()]
