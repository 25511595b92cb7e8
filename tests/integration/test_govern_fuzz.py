"""Any order of takes and settles, of two tenants: nothing crosses, and all stores count alike."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kaizen.core.errors import NotFound, Unauthenticated
from kaizen.core.identity import Amount, Claim, Limits, Quota, Taken
from kaizen.core.ids import new_id
from kaizen.core.scope import Scope
from kaizen.govern.keys import Issued, Keys
from kaizen.stores.govern.postgres_quota import PostgresQuota
from kaizen.stores.govern.redis_quota import RedisQuota
from kaizen.stores.govern.sqlite_keys import SqliteKeys
from kaizen.stores.govern.sqlite_quota import SqliteQuota
from kaizen.testing.quota_suite import NOON, Clock

ACCOUNTS = ("key:1", "user:zoe", "tenant")
small = st.integers(0, 40)


@dataclass(frozen=True)
class Step:
    """One thing a worker of a tenant does, some seconds after the one before."""

    tenant: int
    seconds: float
    act: str  # take, settle, wait or sent
    which: int
    amount: Amount


limits = st.builds(
    Limits,
    requests_per_minute=st.none() | st.integers(1, 20),
    tokens_per_minute=st.none() | st.integers(1, 60),
    concurrent=st.none() | st.integers(1, 4),
    usd_per_day=st.none() | st.integers(0, 100),
    usd_per_month=st.none() | st.integers(0, 200),
)
steps = st.lists(
    st.builds(
        Step,
        tenant=st.integers(0, 1),
        seconds=st.sampled_from([0.0, 0.0, 0.001, 0.75, 7.0, 25.0, 61.0, 43_200.0, 86_400.0 * 20]),
        act=st.sampled_from(["take", "take", "take", "settle", "settle", "wait", "sent"]),
        which=st.integers(0, 5),
        amount=st.builds(Amount, st.integers(0, 2), small, small),
    ),
    max_size=25,
)


async def play(
    quota: Quota, clock: Clock, names: Sequence[str], claims: Sequence[Claim], plan: Sequence[Step]
) -> list[Any]:
    """Do the steps; what each said. A step of a tenant whose name is empty only lets time pass."""
    held: list[list[Taken]] = [[], []]
    said: list[Any] = []
    clock.now = NOON
    for step in plan:
        clock.now += step.seconds
        if not names[step.tenant]:
            continue
        scope, mine = Scope(names[step.tenant]), held[step.tenant]
        if step.act == "take":
            found = await quota.take(scope, claims, replace(step.amount, calls=step.amount.calls or 1))
            if isinstance(found, Taken):
                mine.append(found)
                said.append((step.tenant, found.day, found.month))
            else:
                said.append((step.tenant, found))
        elif mine:
            taken = mine[step.which % len(mine)]
            if step.act == "settle":
                mine.remove(taken)
                await quota.settle(taken, step.amount)
            else:
                await (quota.wait if step.act == "wait" else quota.sent)(taken)
        said.append((step.tenant, await quota.standing(scope, ACCOUNTS)))
    return said


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One loop for all examples, so that connections live through them."""
    with asyncio.Runner() as runner:
        yield runner


fuzz = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(plan=steps, given_limits=st.tuples(limits, limits, limits))
def test_what_one_tenant_does_changes_nothing_for_another(
    tmp_path: Path, loop: asyncio.Runner, plan: list[Step], given_limits: tuple[Limits, Limits, Limits]
) -> None:
    claims = [Claim(*one) for one in zip(ACCOUNTS, given_limits, strict=True)]

    async def work() -> None:
        clock = Clock()
        # a lease longer than all steps: a death would show in both alike, but at other moments
        quota = SqliteQuota(tmp_path / f"{new_id()}.db", lease=1e9, clock=clock)
        together = await play(quota, clock, ["a", "b"], claims, plan)
        apart = [await play(quota, clock, names, claims, plan) for names in (["c", ""], ["", "d"])]
        for tenant in (0, 1):
            assert [one for one in together if one[0] == tenant] == apart[tenant]
        await quota.close()

    loop.run(work())


# Not shrunk: each example asks three servers some hundred times.
@settings(fuzz, max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(plan=steps, given_limits=st.tuples(limits, limits, limits))
def test_all_stores_count_alike(
    tmp_path: Path,
    loop: asyncio.Runner,
    postgres_url: str,
    redis_url: str,
    plan: list[Step],
    given_limits: tuple[Limits, Limits, Limits],
) -> None:
    claims = [Claim(*one) for one in zip(ACCOUNTS, given_limits, strict=True)]

    async def work() -> None:
        clock, names = Clock(), [f"a-{new_id()}", f"b-{new_id()}"]
        # with deaths: the longer pauses are past the lease, and nothing beats while the clock stands
        quotas: list[Quota] = [
            SqliteQuota(tmp_path / "all.db", lease=60, clock=clock),
            PostgresQuota(postgres_url, schema="fuzz", lease=60, clock=clock),
            RedisQuota(redis_url, prefix="fuzz", lease=60, clock=clock),
        ]
        sqlite, postgres, redis = [await play(quota, clock, names, claims, plan) for quota in quotas]
        for quota in quotas:
            await quota.close()
        assert postgres == sqlite
        assert redis == sqlite

    loop.run(work())


key_steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "rotate", "revoke"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["dev", "prod"]),
        st.integers(0, 5),
    ),
    max_size=15,
)


@fuzz
@given(plan=key_steps)
def test_no_key_ever_opens_another_tenant(
    tmp_path: Path, loop: asyncio.Runner, plan: list[tuple[str, str, str, int]]
) -> None:
    """Keys of two tenants, made, rotated and revoked in any order, by whoever; the model is a dictionary."""

    async def work() -> None:
        keys = Keys(SqliteKeys(tmp_path / f"{new_id()}.db"))
        good: dict[str, Issued] = {}
        bad: list[Issued] = []
        for act, tenant, environment, which in plan:
            if act == "create" or not good:
                issued = await keys.create(Scope(tenant, environment))
                good[issued.key.id] = issued
            else:
                old = list(good.values())[which % len(good)]
                if old.key.scope.tenant != tenant:
                    with pytest.raises(NotFound):
                        await (keys.rotate if act == "rotate" else keys.revoke)(old.key.id, tenant=tenant)
                elif act == "rotate":
                    good[old.key.id] = await keys.rotate(old.key.id, tenant=tenant)
                    bad.append(old)
                else:
                    await keys.revoke(old.key.id, tenant=tenant)
                    bad.append(good.pop(old.key.id))
            for issued in good.values():
                identity = await keys.authenticate(issued.secret)
                assert (identity.scope, identity.principal) == (issued.key.scope, f"key:{issued.key.id}")
            for issued in bad:
                with pytest.raises(Unauthenticated):
                    await keys.authenticate(issued.secret)
            for name in ("a", "b"):
                listed = {key.id for key in await keys.list(name) if key.revoked_at is None}
                assert listed == {key_id for key_id, one in good.items() if one.key.scope.tenant == name}
        await keys.close()

    loop.run(work())
