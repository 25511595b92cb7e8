"""Statistics and export, against what plain arithmetic gives."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.core.protocols import Store
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.scope import LOCAL
from kaizen.ledger import views
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.views import Histogram, Stat, export, stats
from kaizen.stores.memory import MemoryStore
from kaizen.testing.store_suite import OURS, full_record, make_record

DAY = 86_400


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def exact(values: list[float], fraction: float) -> float:
    return sorted(values)[max(1, math.ceil(fraction * len(values))) - 1]


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=300), st.sampled_from([0.0, 0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_its_bound(values: list[float], fraction: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.quantile(fraction) == pytest.approx(exact(values, fraction), rel=0.008)


def test_a_histogram_stays_small_and_takes_any_value() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    rng = random.Random(1)
    for _ in range(20_000):
        histogram.add(math.exp(rng.uniform(-20, 40)))
    histogram.add(0.0)
    histogram.add(math.inf)
    assert len(histogram._counts) < 2_000


async def test_calls_by_program(store: Store) -> None:
    rng = random.Random(2)
    waits = [rng.lognormvariate(4, 1) for _ in range(1_000)]
    records = [
        make_record(ref="a", latency_ms=wait, tokens_in=2, tokens_out=1, cost_usd=0.25, model_calls=1) for wait in waits
    ]
    records[0] = replace(records[0], status="error")
    records.append(make_record(ref="b", status="cancelled", model_calls=1, latency_ms=5.0))  # no price known
    records.append(make_record(ref="b", latency_ms=5.0))  # asked no model
    records.append(make_record(ref="b", kind="model", tokens_in=1_000))  # summed into its program already
    await store.append(OURS, records, [])
    a, b = await stats(store, OURS, "program")
    assert (a.group, a.calls, a.errors, a.tokens_in, a.tokens_out) == ("a", 1_000, 1, 2_000, 1_000)
    assert (a.cost_usd, a.unpriced, a.scores, a.score) == (250.0, 0, 0, None)
    for fraction, found in ((0.5, a.p50_ms), (0.95, a.p95_ms), (0.99, a.p99_ms)):
        assert found == pytest.approx(exact(waits, fraction), rel=0.008)
    five = pytest.approx(5.0, rel=0.008)
    assert b == Stat("b", 2, 0, five, five, five, 0, 0, None, 1, 0, None)
    assert await stats(store, LOCAL, "program") == []


@pytest.mark.parametrize(
    ("values", "unknown"),
    [
        ({"model_calls": 1, "attempts": 1}, True),
        ({"model_calls": 1, "attempts": 1, "cost_usd": 0.0}, False),
        ({"model_calls": 1, "attempts": 3, "status": "error"}, True),
        ({"model_calls": 1, "attempts": 0, "status": "error"}, False),  # no key, or no such provider
        ({"model_calls": 1, "attempts": 0, "status": "cancelled"}, True),
        ({"model_calls": 0}, False),
    ],
)
def test_a_call_that_may_have_cost_something(values: dict[str, Any], unknown: bool) -> None:
    assert views.is_unpriced(make_record(**values)) is unknown


async def test_each_grouping(store: Store) -> None:
    root = make_record(id="1", ref="a", params="p1", started_at=0.0, tokens_in=5)
    records = [
        root,
        make_record(id="2", ref="b", parent_id="1", params=None, started_at=1.0, tokens_in=3),
        make_record(id="3", ref="a", params="p2", started_at=DAY * 1.0, tokens_in=7),
        make_record(id="4", ref="asked", kind="model", model="answered", parent_id="2", tokens_in=3, model_calls=1),
        make_record(id="5", ref="asked", kind="model", parent_id="2", status="error"),
    ]
    await store.append(OURS, records, [])

    async def tokens(by: views.By, query: RecordQuery | None = None) -> dict[str, int]:
        return {stat.group: stat.tokens_in for stat in await stats(store, OURS, by, query)}

    assert await tokens("program") == {"a": 12, "b": 3}
    assert await tokens("version") == {"a@p1": 5, "a@p2": 7, "b@-": 3}
    assert await tokens("model") == {"answered": 3, "asked": 0}
    assert await tokens("day") == {"1970-01-01": 5, "1970-01-02": 7}  # roots hold what is below them
    assert await tokens("program", RecordQuery(since=1.0)) == {"a": 7, "b": 3}
    assert await tokens("program", RecordQuery(ref="b", kind="score", newest_first=True)) == {"b": 3}


async def test_a_score_counts_for_the_call_it_is_about(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_RECENT", 2)  # so that most scores have to look their call up
    calls = [make_record(id=f"call {n}", ref="ab"[n % 2], started_at=n) for n in range(10)]
    scores = [make_record(id=f"score {n}", kind="score", about=f"call {n}", value=n / 10) for n in range(10)]
    others: list[Record] = [
        make_record(id="score x", kind="score", about="call 1", value=None),
        make_record(id="score y", kind="score", about="never was", value=9.0),
        make_record(id="score z", kind="score", about="score 1", value=9.0),
        make_record(id="score 0 again", kind="score", about="call 0", value=1.0),
        make_record(id="score n", kind="score", about=None, value=9.0),
        make_record(id="score a", kind="score", about="a call not there", value=9.0),
    ]
    await store.append(OURS, [*calls, *scores, *others], [])
    a, b = await stats(store, OURS, "program")
    assert (a.scores, a.score) == (6, pytest.approx((0.0 + 0.2 + 0.4 + 0.6 + 0.8 + 1.0) / 6))
    assert (b.scores, b.score) == (5, pytest.approx(0.5))
    late = await stats(store, OURS, "program", RecordQuery(since=8.0))
    assert [(stat.group, stat.calls, stat.scores, stat.score) for stat in late] == [("a", 1, 1, 0.8), ("b", 1, 1, 0.9)]


async def test_export_gives_lines_of_json(store: Store) -> None:
    full, plain = full_record(), make_record(input_digest="text", value=math.nan)
    payloads = [
        Payload(full.input_digest or "", '{"message": "日本 \u2028"}'.encode()),
        Payload("text", b"\xffno json"),
    ]
    await store.append(OURS, [full, plain], payloads)
    lines = [line async for line in export(Ledger(store, bytes(32)), OURS)]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    first, second = map(json.loads, lines)
    assert first == views.as_json(full)
    assert first["scope"] == {"tenant": "acme", "environment": "prod"}
    assert first["error"] == full.error
    assert second["value"] is None
    assert "input" not in first
    first, second = [json.loads(line) async for line in export(Ledger(store, bytes(32)), OURS, with_payloads=True)]
    assert (first["input"], first["output"]) == ({"message": "日本 \u2028"}, None)
    assert (second["input"], second["output"]) == ("\ufffdno json", None)
    assert [line async for line in export(Ledger(store, bytes(32)), OURS, RecordQuery(kind="score"))] == []
