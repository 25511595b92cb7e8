"""Costs are sums over model calls: what was billed, what a cache answered, what was saved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kaizen.core.record import Record
from kaizen.core.scope import LOCAL, Scope
from kaizen.ledger.costs import Cost, CostsBy, costs
from kaizen.stores.memory import MemoryStore
from kaizen.testing.store_suite import make_record


def call(**values: object) -> Record:
    given = {
        "kind": "model",
        "status": "ok",
        "model": "mine/large",
        "principal": "key:a",
        "tokens_in": 10,
        "tokens_out": 2,
    }
    record = replace(make_record(), scope=LOCAL, cost_usd=0.5, model_calls=1, attempts=1, started_at=86_400.0 * 3)
    return replace(record, **{**given, **values})


async def summed(by: CostsBy, *records: Record) -> list[Cost]:
    store = MemoryStore()
    await store.append(LOCAL, records, [])
    other = replace(call(cost_usd=99.0), scope=Scope("other", "dev"))
    await store.append(other.scope, [other], [])
    return await costs(store, LOCAL, by)


KEPT = {"cache_tier": "exact", "cost_usd": 0.0, "saved_usd": 0.5, "attempts": 0}


async def test_an_answer_from_a_cache_is_billed_nothing_and_says_what_it_saved() -> None:
    (found,) = await summed("model", call(), call(**KEPT), call(kind="program", cost_usd=7.0))
    assert found == Cost("mine/large", 2, 1, 10, 2, 0.5, 0.5, 0, 0)


async def test_what_nobody_knows_is_counted_apart() -> None:
    (found,) = await summed("model", call(cost_usd=None), call(saved_usd=None))
    assert (found.unpriced, found.untold, found.cost_usd) == (1, 1, 0.5)


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("model", ["mine/dear", "mine/large"]),
        ("key", ["key:b", "key:a"]),
        ("tier", ["model", "exact"]),
        ("day", ["1970-01-03", "1970-01-04"]),
        ("task", ["label", "-"]),
    ],
)
async def test_groups_come_dearest_first_and_days_in_order(by: CostsBy, groups: list[str]) -> None:
    dear = call(model="mine/dear", principal="key:b", task="label", cost_usd=3.0, started_at=86_400.0 * 2)
    found = await summed(by, call(), dear, call(**KEPT))
    assert [cost.group for cost in found] == groups
