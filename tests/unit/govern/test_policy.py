"""What a caller may do, and what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kaizen.core.errors import BudgetExceeded, LimitReached, StoreError
from kaizen.core.identity import NANO, Amount, Claim, Limits, Refused, Standing, Taken
from kaizen.core.protocols import Allow, Deny, Need
from kaizen.core.scope import Scope
from kaizen.govern.keys import Keys
from kaizen.govern.policy import Govern, Held, Rules
from tests.unit.govern.keys import OURS, Clock, KeysInMemory, call

NEED = Need(1, 1000, 0.25)


class CountingQuota:
    """A Quota that says what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Refused | Exception | None = None
        self.taken: list[Taken] = []
        self.settled: list[Amount] = []
        self.marks: list[str] = []

    async def take(self, scope: Scope, claims: Sequence[Claim], amount: Amount, /) -> Taken | Refused:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        self.taken.append(Taken(f"{len(self.taken)}", scope, tuple(claims), amount, 1, 1))
        return self.taken[-1]

    async def settle(self, taken: Taken, used: Amount, /) -> None:
        self.settled.append(used)

    async def wait(self, taken: Taken, /) -> None:
        self.marks.append(f"wait {taken.id}")

    async def sent(self, taken: Taken, /) -> None:
        self.marks.append(f"sent {taken.id}")

    async def standing(self, scope: Scope, accounts: Sequence[str], /) -> Sequence[Standing]:
        return []

    async def close(self) -> None:
        return


class House:
    """A Govern with its parts."""

    def __init__(self, **rules: Any) -> None:
        self.clock, self.quota, self.store = Clock(), CountingQuota(), KeysInMemory()
        self.keys = Keys(self.store, recheck=0.01, clock=self.clock)
        self.policy = Govern(keys=self.keys, quota=self.quota, rules=Rules(**rules))

    async def key(self, scope: Scope = OURS, **about: Any) -> str:
        return f"key:{(await self.keys.create(scope, **about)).key.id}"

    async def infer(
        self, principal: str, model: str = "mine/large", need: Need | None = NEED, scope: Scope = OURS
    ) -> Any:
        return await self.policy.decide(call(principal, scope), "infer", model, need)


async def test_who_is_not_limited_costs_the_store_nothing() -> None:
    house = House()
    for principal in (await house.key(), "user:zoe", "", "cron:nightly"):
        assert await house.infer(principal) == Allow()
    assert await house.policy.decide(call(""), "run", "mail.Triage") == Allow()
    assert not house.quota.taken


async def test_a_call_counts_against_key_user_and_tenant_at_once() -> None:
    house = House(
        key=Limits(requests_per_minute=1, concurrent=9),
        user=Limits(concurrent=2),
        tenant=Limits(usd_per_month=3),
        tenants={"acme": Limits(usd_per_day=4)},
    )
    key = await house.key(limits=Limits(requests_per_minute=600), user="zoe")
    allowed = await house.infer(key)
    assert isinstance(allowed.lease, Held)
    taken = house.quota.taken[0]
    assert taken.claims == (
        Claim(key, Limits(requests_per_minute=600, concurrent=9)),
        Claim("user:zoe", Limits(concurrent=2)),
        Claim("tenant", Limits(usd_per_day=4, usd_per_month=3)),
    )
    assert (taken.scope, taken.amount) == (OURS, Amount(1, 1000, NANO // 4))
    await house.infer("user:zoe", scope=Scope("other"))
    assert house.quota.taken[1].claims == (
        Claim("user:zoe", Limits(concurrent=2)),
        Claim("tenant", Limits(usd_per_month=3)),
    )
    await house.infer("", scope=Scope("other"))
    assert house.quota.taken[2].claims == (Claim("tenant", Limits(usd_per_month=3)),)


async def test_a_lease_puts_what_was_used_in_the_place_of_what_was_reserved() -> None:
    house = House(tenant=Limits(usd_per_day=10 * NANO))
    lease = (await house.infer("")).lease
    await lease.settle(Need(1, 30, 0.1))
    await lease.settle(Need(1))
    await lease.settle(Need(1, 30, None))
    assert house.quota.settled == [Amount(1, 30, NANO // 10), Amount(1), Amount(1, 30, NANO // 4)]
    await lease.wait()
    await lease.sent()
    assert house.quota.marks == ["wait 0", "sent 0"]


async def test_money_is_never_rounded_down() -> None:
    house = House(tenant=Limits(usd_per_day=10 * NANO))
    await house.infer("", need=Need(1, 0, 0.1 + 0.2))
    await house.infer("", need=Need(1, 0, 1e-12))
    assert [taken.amount.usd for taken in house.quota.taken] == [300_000_001, 1]


async def test_without_a_price_a_budget_can_not_be_held() -> None:
    house = House(tenant=Limits(usd_per_day=NANO))
    for need in (Need(1, 10, None), None):
        denied = await house.infer("", "mine/odd", need)
        assert isinstance(denied, Deny)
        assert '[models."mine/odd"]' in denied.reason
    assert not house.quota.taken
    counted = House(tenant=Limits(requests_per_minute=1))
    await counted.infer("", need=Need(1, 10, None))
    await counted.infer("", need=None)
    assert [taken.amount for taken in counted.quota.taken] == [Amount(1, 10), Amount(1)]


async def test_a_key_may_ask_only_its_models() -> None:
    house = House(user_models=("mine/small",))
    key = await house.key(models=["openai/*"])
    assert await house.infer(key, "openai/gpt") == Allow()
    assert isinstance(await house.infer(key, "mine/large"), Deny)
    assert isinstance(await house.infer("user:zoe", "mine/large"), Deny)
    assert await house.infer("user:zoe", "mine/small") == Allow()
    assert await house.infer("", "mine/large") == Allow()


async def test_a_key_that_is_not_good_may_nothing() -> None:
    house = House()
    expires, revoked = await house.key(expires_at=1e9 + 5), await house.key()
    house.clock.now += 5
    await house.keys.revoke(revoked.removeprefix("key:"))
    for principal in (expires, revoked, "key:none", "key:"):
        denied = await house.infer(principal)
        assert denied == Deny("the key is not known, has expired or is revoked")
    foreign, sighted = await house.key(Scope("other", "prod")), await house.key(scopes=frozenset({"metrics"}))
    assert isinstance(await house.infer(foreign), Deny)
    assert isinstance(await house.infer(await house.key(Scope("acme", "dev"))), Deny)
    assert await house.infer(sighted) == Deny("the key has no scope infer")


async def test_limits_that_change_hold_from_then_on() -> None:
    house = House(key=Limits(concurrent=1))
    key = await house.key()
    await house.infer(key)
    kept = house.store.keys[key.removeprefix("key:")]
    house.store.keys[kept.id] = type(kept)(
        id=kept.id, scope=kept.scope, digest=kept.digest, limits=Limits(concurrent=7), created_at=kept.created_at
    )
    house.keys._seen.clear()
    await house.infer(key)
    assert [taken.claims[0].limits.concurrent for taken in house.quota.taken] == [1, 7]


async def test_a_rate_limit_says_when_to_come_again() -> None:
    house = House(tenant=Limits(requests_per_minute=600))
    house.quota.answer = Refused("tenant", "requests_per_minute", 0.1)
    with pytest.raises(LimitReached, match="the tenant is allowed 600 requests a minute") as caught:
        await house.infer("")
    assert (caught.value.retry_after, caught.value.status) == (0.1, 429)
    assert caught.value.detail == {"limit": "requests_per_minute", "account": "tenant"}


async def test_a_spent_budget_is_no_rate_limit() -> None:
    house = House(user=Limits(usd_per_day=5_500_000_000))
    house.quota.answer = Refused("user:zoe", "usd_per_day", 3600.0)
    with pytest.raises(BudgetExceeded, match=r"the user's budget of 5\.5 dollars a day .* may cost 0\.25") as caught:
        await house.infer("user:zoe")
    assert (caught.value.status, caught.value.retryable) == (402, False)
    assert caught.value.detail == {"limit": "usd_per_day", "account": "user:zoe", "resets_in": 3600.0}


async def test_what_can_never_pass_is_denied_and_not_put_off() -> None:
    house = House(tenant=Limits(tokens_per_minute=10))
    house.quota.answer = Refused("tenant", "tokens_per_minute", float("inf"))
    assert await house.infer("") == Deny("it may need 1000 tokens and its tenant is allowed 10 tokens a minute")
    odd = House(tenant=Limits(concurrent=1))
    odd.quota.answer = Refused("tenant", "concurrent", float("inf"))
    assert "1 calls" in (await odd.infer("")).reason


async def test_a_store_that_can_not_count_stops_the_call() -> None:
    house = House(tenant=Limits(requests_per_minute=1))
    house.quota.answer = StoreError("the disk is full")
    with pytest.raises(StoreError):
        await house.infer("")


async def test_many_callers_are_forgotten_rather_than_kept_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.govern.policy._REMEMBERED", 3)
    house = House(user=Limits(concurrent=1))
    for n in range(10):
        await house.infer(f"user:{n}")
    assert len(house.policy._claims) <= 3
    assert [taken.claims[0].account for taken in house.quota.taken] == [f"user:{n}" for n in range(10)]
