"""What every Quota promises, as tests. An adapter is done when it passes.

    from kaizen.testing.quota_suite import Make, QuotaSuite

    class TestMyQuota(QuotaSuite):
        @pytest.fixture
        async def make(self): ...

``make(clock, lease=...)`` opens one more view of the same accounts, as another worker would, that takes its time from
``clock``. The tests are ``async def``: run them with anyio's pytest plugin (``anyio_mode = "auto"``).
"""
# ruff: noqa: S101, D102 - these are tests, and their names say what they show

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import pytest

from kaizen.core.errors import StoreError
from kaizen.core.identity import NANO, Amount, Claim, Limits, Quota, Refused, Standing, Taken
from kaizen.core.scope import Scope

OURS: Final = Scope("acme", "prod")
THEIRS: Final = Scope("other", "prod")
CALL: Final = Amount(1, 10, NANO // 100)
NOON: Final = datetime(2026, 5, 30, 12, tzinfo=UTC).timestamp()


class Clock:
    """Unix seconds that pass only when told."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Make(Protocol):
    """Opens a Quota on the accounts of the test."""

    def __call__(self, clock: Callable[[], float] | None = None, *, lease: float = 30.0) -> Quota:
        """One more view of the same accounts."""
        ...


def claim(account: str = "key:1", **limits: int) -> Claim:
    """A claim with these limits."""
    return Claim(account, Limits(**limits))


async def taken(quota: Quota, claims: Sequence[Claim], amount: Amount = CALL, scope: Scope = OURS) -> Taken:
    """Take, where it has to pass."""
    found = await quota.take(scope, claims, amount)
    assert isinstance(found, Taken), found
    return found


async def refused(quota: Quota, claims: Sequence[Claim], amount: Amount = CALL, scope: Scope = OURS) -> Refused:
    """Take, where it must not pass."""
    found = await quota.take(scope, claims, amount)
    assert isinstance(found, Refused)
    return found


async def standing(quota: Quota, account: str = "key:1", scope: Scope = OURS) -> Standing:
    """How one account stands."""
    return (await quota.standing(scope, [account]))[0]


class QuotaSuite:
    """Subclass it, and give a fixture ``make``."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    # -- requests and tokens a minute ---------------------------------------------------------------

    async def test_a_whole_minute_may_be_used_at_once_and_the_next_call_learns_when(
        self, make: Make, clock: Clock
    ) -> None:
        quota, mine = make(clock), [claim(requests_per_minute=600)]
        for found in await asyncio.gather(*(quota.take(OURS, mine, CALL) for _ in range(600))):
            assert isinstance(found, Taken)
        assert await refused(quota, mine) == Refused("key:1", "requests_per_minute", 0.1)
        clock.now += 0.099
        assert (await refused(quota, mine)).retry_after == pytest.approx(0.001)
        clock.now += 0.001
        await taken(quota, mine)
        assert (await refused(quota, mine)).retry_after == 0.1

    async def test_an_allowance_that_does_not_divide_a_minute_is_exact(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(requests_per_minute=7)]
        for _ in range(7):
            await taken(quota, mine)
        passed = 0
        for _ in range(240):  # two minutes in half seconds
            clock.now += 0.5
            passed += isinstance(await quota.take(OURS, mine, CALL), Taken)
        assert passed == 14

    async def test_an_idle_minute_fills_a_bucket_and_no_more(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(requests_per_minute=2)]
        await taken(quota, mine)
        clock.now += 3600
        await taken(quota, mine)
        await taken(quota, mine)
        assert (await refused(quota, mine)).retry_after == 30

    async def test_tokens_that_were_not_used_come_back(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(tokens_per_minute=100)]
        first = await taken(quota, mine, Amount(1, 80))
        assert await refused(quota, mine, Amount(1, 30)) == Refused("key:1", "tokens_per_minute", 6.0)
        await quota.settle(first, Amount(1, 20))
        await taken(quota, mine, Amount(1, 80))
        assert (await refused(quota, mine, Amount(1, 1))).retry_after == 0.6

    async def test_more_than_is_ever_allowed_never_passes(self, make: Make, clock: Clock) -> None:
        quota = make(clock)
        found = await refused(quota, [claim(tokens_per_minute=100)], Amount(1, 101))
        assert found == Refused("key:1", "tokens_per_minute", float("inf"))

    async def test_a_call_that_failed_still_counts_as_a_request(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(requests_per_minute=1, tokens_per_minute=100, usd_per_day=NANO)]
        await quota.settle(await taken(quota, mine, Amount(1, 100, NANO)), Amount(1))
        assert (await refused(quota, mine)).limit == "requests_per_minute"
        assert (await standing(quota)).usd_day == 0

    async def test_a_call_that_never_was_counts_nothing(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(requests_per_minute=1, concurrent=1, usd_per_day=NANO)]
        await quota.settle(await taken(quota, mine), Amount())
        await taken(quota, mine)

    # -- budgets --------------------------------------------------------------------------------------

    async def test_parallel_calls_never_pass_a_budget(self, make: Make, clock: Clock) -> None:
        first, second = make(clock), make(clock)
        mine = [claim(usd_per_day=NANO)]  # a dollar; a call takes a cent
        found = await asyncio.gather(*((first, second)[n % 2].take(OURS, mine, CALL) for n in range(130)))
        assert sum(isinstance(one, Taken) for one in found) == 100
        assert (await standing(first)).usd_day == NANO
        assert (await refused(first, mine)).limit == "usd_per_day"

    async def test_settling_puts_what_was_used_in_the_place_of_what_was_taken(self, make: Make, clock: Clock) -> None:
        quota = make(clock)
        both = [claim(usd_per_day=NANO), claim("tenant", usd_per_month=NANO)]
        await quota.settle(await taken(quota, both, Amount(1, 0, NANO)), Amount(1, 0, 1))
        await quota.settle(await taken(quota, both, Amount(1, 0, NANO - 1)), Amount(1, 0, NANO + 5))
        assert await standing(quota) == Standing("key:1", NANO + 6, NANO + 6, 0)
        assert await standing(quota, "tenant") == Standing("tenant", NANO + 6, NANO + 6, 0)
        assert (await refused(quota, both, Amount(1, 0, 1))).account == "tenant"  # a month lasts longer than a day

    async def test_what_costs_nothing_passes_a_spent_budget(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(usd_per_day=0)]
        assert (await refused(quota, mine, Amount(1, 0, 1))).limit == "usd_per_day"
        await taken(quota, mine, Amount(1, 1000, 0))

    async def test_days_and_months_end_at_midnight_utc(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(usd_per_day=NANO, usd_per_month=2 * NANO)]
        whole = Amount(1, 0, NANO)
        await taken(quota, mine, whole)
        assert await refused(quota, mine, whole) == Refused("key:1", "usd_per_day", 43_200.0)
        clock.now = datetime(2026, 5, 31, tzinfo=UTC).timestamp()
        await taken(quota, mine, whole)
        assert await refused(quota, mine, whole) == Refused("key:1", "usd_per_month", 86_400.0)
        assert await standing(quota) == Standing("key:1", NANO, 2 * NANO, 0)
        clock.now += 86_400
        assert await standing(quota) == Standing("key:1")
        await taken(quota, mine, whole)
        assert await standing(quota) == Standing("key:1", NANO, NANO, 0)

    @pytest.mark.parametrize("date", [(2023, 12, 31), (2024, 2, 28), (2024, 2, 29), (2100, 2, 28), (2026, 8, 31)])
    async def test_months_of_every_length(self, make: Make, date: tuple[int, int, int]) -> None:
        clock = Clock(datetime(*date, 23, tzinfo=UTC).timestamp())
        year, month, _ = date
        ends = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()
        found = await refused(make(clock), [claim(usd_per_month=0)], Amount(1, 0, 1))
        assert found == Refused("key:1", "usd_per_month", ends - clock.now)

    async def test_a_call_over_midnight_corrects_the_day_it_was_charged_to(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(usd_per_day=NANO, usd_per_month=2 * NANO)]
        old = await taken(quota, mine, Amount(1, 0, NANO))
        clock.now += 43_200
        await taken(quota, mine, Amount(1, 0, NANO))
        await quota.settle(old, Amount(1, 0, 3))
        assert await standing(quota) == Standing("key:1", NANO, NANO + 3, 0)

    async def test_a_clock_set_back_over_midnight_opens_no_budget_twice(self, make: Make) -> None:
        midnight = datetime(2026, 5, 31, tzinfo=UTC).timestamp()
        clock = Clock(midnight + 1)
        quota, mine = make(clock), [claim(usd_per_day=NANO, requests_per_minute=100)]
        await taken(quota, mine, Amount(1, 0, NANO))
        clock.now = midnight - 1
        assert (await refused(quota, mine)).limit == "usd_per_day"
        clock.now = midnight - 10 * 86_400  # the clock was wrong by far
        await taken(quota, mine)

    async def test_money_is_exact(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(usd_per_month=9_000_000 * NANO)]
        await taken(quota, mine, Amount(1, 0, 9_000_000 * NANO - 2))
        await taken(quota, mine, Amount(1, 0, 1))
        assert (await refused(quota, mine, Amount(1, 0, 2))).limit == "usd_per_month"
        await taken(quota, mine, Amount(1, 0, 1))
        assert (await standing(quota)).usd_month == 9_000_000 * NANO

    # -- all or nothing -------------------------------------------------------------------------------

    async def test_nothing_is_taken_where_one_account_has_not_enough(self, make: Make, clock: Clock) -> None:
        quota = make(clock)
        rich, poor = claim("key:1", requests_per_minute=1, usd_per_day=NANO), claim("tenant", usd_per_day=0)
        assert (await refused(quota, [rich, poor])).account == "tenant"
        assert await standing(quota) == Standing("key:1")
        await taken(quota, [rich])

    async def test_the_obstacle_told_is_the_one_that_lasts(self, make: Make, clock: Clock) -> None:
        quota = make(clock)
        fast, slow = claim("key:1", requests_per_minute=60), claim("tenant", requests_per_minute=1)
        await taken(quota, [fast, slow])
        for _ in range(59):
            await taken(quota, [fast])
        assert await refused(quota, [fast, slow]) == Refused("tenant", "requests_per_minute", 60.0)
        spent = claim("user:zoe", usd_per_day=0)
        assert (await refused(quota, [fast, slow, spent])).limit == "usd_per_day"  # waiting a minute won't help

    async def test_one_tenants_account_is_not_anothers(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim("tenant", requests_per_minute=1, usd_per_day=NANO, concurrent=1)]
        await taken(quota, mine)
        await taken(quota, mine, scope=THEIRS)
        await refused(quota, mine)
        await refused(quota, mine, scope=THEIRS)
        assert (await refused(quota, mine, scope=Scope("acme", "dev"))).account == "tenant"  # one tenant, one purse
        assert await standing(quota, "tenant", Scope("third")) == Standing("tenant")

    async def test_a_limit_that_changes_holds_at_once(self, make: Make, clock: Clock) -> None:
        quota = make(clock)
        await taken(quota, [claim(requests_per_minute=1)])
        await taken(quota, [claim()])
        await taken(quota, [claim(requests_per_minute=2)])  # the bucket was given up meanwhile, so it is full
        await taken(quota, [claim(requests_per_minute=2)])
        assert (await refused(quota, [claim(requests_per_minute=1)])).retry_after == 60

    # -- calls in the air -----------------------------------------------------------------------------

    async def test_calls_in_the_air_are_counted_over_workers(self, make: Make, clock: Clock) -> None:
        first, second, mine = make(clock), make(clock), [claim(concurrent=3)]
        held = [await taken(first, mine), await taken(second, mine), await taken(first, mine)]
        assert (await refused(second, mine)).limit == "concurrent"
        assert (await standing(second)).calls == 3
        await first.settle(held[0], CALL)
        assert (await standing(first)).calls == 2
        await taken(second, mine)
        assert (await refused(first, mine)).limit == "concurrent"

    async def test_calls_of_a_worker_that_died_end_with_its_lease(self, make: Make, clock: Clock) -> None:
        dead, alive = make(clock, lease=30), make(clock, lease=30)
        mine = [claim(concurrent=1, usd_per_day=NANO)]
        await taken(dead, mine)
        clock.now += 29
        await refused(alive, mine)
        clock.now += 1
        await taken(alive, mine)
        assert (await standing(alive)).usd_day == 2 * CALL.usd  # it was sent, so it stays charged

    async def test_calls_of_a_worker_that_lives_outlast_the_lease(self, make: Make) -> None:
        worker, other, mine = make(lease=0.15), make(lease=0.15), [claim(concurrent=1)]
        held = await taken(worker, mine)
        await asyncio.sleep(0.4)
        assert (await refused(other, mine)).limit == "concurrent"
        await worker.settle(held, CALL)
        assert (await standing(worker)).calls == 0
        await taken(other, mine)

    # -- calls that wait ------------------------------------------------------------------------------

    async def test_a_call_that_was_never_sent_is_given_back_when_its_worker_dies(
        self, make: Make, clock: Clock
    ) -> None:
        dead, alive = make(clock, lease=30), make(clock, lease=30)
        mine = [claim(usd_per_day=2 * CALL.usd)]
        await dead.wait(await taken(dead, mine))
        await taken(alive, mine)
        assert (await refused(alive, mine)).limit == "usd_per_day"
        clock.now += 30
        await taken(alive, mine)
        assert (await standing(alive)).usd_day == 2 * CALL.usd

    async def test_a_call_that_waits_lives_on_with_its_worker(self, make: Make) -> None:
        worker, other, mine = make(lease=0.15), make(lease=0.15), [claim(usd_per_day=CALL.usd)]
        held = await taken(worker, mine)
        await worker.wait(held)
        await asyncio.sleep(0.4)
        assert (await refused(other, mine)).limit == "usd_per_day"
        await worker.settle(held, Amount())
        assert (await standing(worker)).usd_day == 0
        await taken(other, mine)

    async def test_a_call_that_waited_and_was_sent_is_charged(self, make: Make, clock: Clock) -> None:
        dead, alive = make(clock), make(clock)
        mine = [claim(usd_per_day=CALL.usd)]
        held = await taken(dead, mine)
        await dead.wait(held)
        await dead.sent(held)
        await dead.sent(held)
        clock.now += 1000
        assert (await refused(alive, mine)).limit == "usd_per_day"

    async def test_a_worker_that_was_taken_for_dead_is_charged_after_all(self, make: Make, clock: Clock) -> None:
        slow, other = make(clock), make(clock)
        mine = [claim(usd_per_day=3 * CALL.usd)]
        sends, settles = await taken(slow, mine), await taken(slow, mine)
        await slow.wait(sends)
        await slow.wait(settles)
        clock.now += 1000
        for _ in range(3):
            await taken(other, mine)
            await refused(other, [claim(usd_per_day=0)])  # a refusal looks for what can be given back
        await slow.sent(sends)
        await slow.settle(settles, Amount(1, 1, 7))
        assert (await standing(slow)).usd_day == 4 * CALL.usd + 7

    # -- its manners ----------------------------------------------------------------------------------

    async def test_whoever_is_cancelled_has_taken_nothing(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(requests_per_minute=1, concurrent=1, usd_per_day=CALL.usd)]
        for turns in range(4):
            task = asyncio.ensure_future(quota.take(OURS, mine, CALL))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                done = task.result()
                assert isinstance(done, Taken)
                await quota.settle(done, Amount())
            assert await standing(quota) == Standing("key:1")
        await taken(quota, mine)

    async def test_no_claims_are_always_met(self, make: Make, clock: Clock) -> None:
        quota = make(clock)
        await quota.settle(await taken(quota, []), Amount())

    async def test_names_may_hold_anything(self, make: Make, clock: Clock) -> None:
        quota, odd = make(clock), "user:zoë'; DROP TABLE accounts; -- {x}:\n🙂"
        await taken(quota, [claim(odd, usd_per_day=NANO, concurrent=5)])
        assert await standing(quota, odd) == Standing(odd, CALL.usd, CALL.usd, 1)
        assert await standing(quota, odd[:-1]) == Standing(odd[:-1])

    async def test_what_was_settled_is_counted_before_it_closes(self, make: Make, clock: Clock) -> None:
        quota, mine = make(clock), [claim(usd_per_day=NANO)]
        held = await taken(quota, mine)
        await quota.settle(held, Amount(1, 0, 5))
        await quota.close()
        await quota.close()
        assert (await standing(make(clock))).usd_day == 5
        await quota.settle(held, Amount())  # too late: it stays charged
        with pytest.raises(StoreError):
            await quota.take(OURS, mine, CALL)

    async def test_many_accounts_in_any_order_never_wait_for_each_other(self, make: Make, clock: Clock) -> None:
        first, second = make(clock), make(clock)
        names = [f"key:{n}" for n in range(12)]

        async def hammer(quota: Quota, turn: int) -> None:
            for n in range(12):
                chosen = names[(n * 5 + turn) % 12 :] + names[: n % 3]
                claims = [claim(name, usd_per_day=10**15, concurrent=1000) for name in dict.fromkeys(chosen[::-1])]
                await quota.settle(await taken(quota, claims), Amount(1, 10, 1))

        async with asyncio.TaskGroup() as group:
            for turn in range(8):
                group.create_task(hammer((first, second)[turn % 2], turn))
        await first.standing(OURS, [])
        found = [*await second.standing(OURS, names)]
        assert sum(one.usd_day for one in found) == sum(
            len(dict.fromkeys(names[(n * 5 + turn) % 12 :] + names[: n % 3])) for n in range(12) for turn in range(8)
        )
        assert not any(one.calls for one in found)
