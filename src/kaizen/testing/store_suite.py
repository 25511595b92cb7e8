"""What every Store promises, as tests. An adapter is done when it passes.

    from kaizen.testing.store_suite import StoreSuite

    class TestMyStore(StoreSuite):
        @pytest.fixture
        async def store(self): ...

The tests are ``async def``: run them with anyio's pytest plugin (``anyio_mode = "auto"``).
"""
# ruff: noqa: S101, D102 - these are tests, and their names say what they show

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

import pytest

from kaizen.core.errors import Conflict, StoreError
from kaizen.core.ids import new_id
from kaizen.core.protocols import Store
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.request import Stage
from kaizen.core.scope import Scope

OURS: Final = Scope("acme", "prod")
# Another tenant, another environment, and two whose names would fall together if they were only joined.
THEIRS: Final = (Scope("other", "prod"), Scope("acme", "dev"), Scope("acme/prod", ""), Scope("", "acme/prod"))


def make_record(scope: Scope = OURS, **values: Any) -> Record:
    """A program call's record with an id of its own; ``values`` replace fields."""
    defaults: dict[str, Any] = {
        "id": new_id(),
        "kind": "program",
        "ref": "mail.Triage",
        "run_id": "run",
        "started_at": 1e9,
    }
    return Record(scope=scope, **(defaults | values))


def full_record(scope: Scope = OURS) -> Record:
    """A record in which no field has its default."""
    return Record(
        id=new_id(),
        kind="model",
        ref="mail.Triage",
        run_id=new_id(),
        scope=scope,
        started_at=1_700_000_000.123456,
        parent_id=new_id(),
        step="0.2.10",
        principal="Zoë",
        status="error",
        latency_ms=0.1 + 0.2,
        model="openai/some",
        params="p" * 32,
        contract="c" * 32,
        tokens_in=2**40,
        tokens_out=7,
        tokens_cached=3,
        tokens_estimated=True,
        cost_usd=1e-12,
        cache_tier="semantic",
        attempts=3,
        model_calls=2,
        first_token_ms=1.5,
        input_digest="i" * 32,
        output_digest="o" * 32,
        error_code="unavailable",
        error="日本語 \u2028 '; DROP TABLE records; -- \x00 🙂",
        about=new_id(),
        value=-0.5,
        task="triage",
        saved_usd=0.25,
        stages=(Stage("exact", 0.25, None, {"age_s": 1.5, "why": ["a", None]}), Stage("route")),
        version="v" * 32,
        experiment=new_id(),
        subject="Zoë",
    )


async def found(store: Store, query: RecordQuery, scope: Scope = OURS) -> list[Record]:
    """All records that fit."""
    return [record async for record in store.records(scope, query)]


class StoreSuite:
    """Subclass it and give it a ``store`` fixture: an open, empty Store, closed afterwards."""

    # -- keeping ------------------------------------------------------------------------------------

    async def test_a_record_comes_back_as_it_was(self, store: Store) -> None:
        full, plain = full_record(), make_record()
        defaults = {field.name: field.default for field in fields(Record)}
        assert [name for name, default in defaults.items() if getattr(full, name) == default] == []
        await store.append(OURS, [full, plain], [])
        assert await store.record(OURS, full.id) == full
        assert await store.record(OURS, plain.id) == plain
        back = await store.record(OURS, plain.id)
        assert back is not None
        assert type(back.tokens_estimated) is bool
        assert type(back.started_at) is float

    async def test_a_payload_comes_back_as_it_was(self, store: Store) -> None:
        contents = {"small": b"{}", "none": b"", "binary": bytes(range(256)), "large": b"x" * 3_000_000}
        await store.append(OURS, [], [Payload(name, data) for name, data in contents.items()])
        assert {name: await store.payload(OURS, name) for name in contents} == contents

    async def test_what_was_never_kept_is_none(self, store: Store) -> None:
        assert await store.record(OURS, "no such id") is None
        assert await store.payload(OURS, "no such digest") is None
        assert await found(store, RecordQuery()) == []
        assert await store.erase(OURS, ["no such digest"]) == 0
        assert await store.erase(OURS, []) == 0
        assert await store.erase(OURS, None) == 0

    async def test_nothing_to_append_is_no_error(self, store: Store) -> None:
        await store.append(OURS, [], [])
        assert await found(store, RecordQuery()) == []

    async def test_a_payload_is_kept_once(self, store: Store) -> None:
        await store.append(OURS, [], [Payload("a", b"1"), Payload("a", b"1")])
        await store.append(OURS, [], [Payload("a", b"1"), Payload("b", b"2")])
        assert await store.payload(OURS, "a") == b"1"
        assert await store.erase(OURS, ["a", "a"]) == 1
        assert await store.payload(OURS, "a") is None
        assert await store.payload(OURS, "b") == b"2"

    async def test_an_append_is_all_or_nothing(self, store: Store) -> None:
        first, other = make_record(), make_record()
        await store.append(OURS, [first], [])
        with pytest.raises(Conflict):
            await store.append(OURS, [other, replace(first, status="error")], [Payload("a", b"1")])
        assert await found(store, RecordQuery()) == [first]
        assert await store.payload(OURS, "a") is None

    async def test_an_id_twice_in_one_append_is_refused(self, store: Store) -> None:
        record = make_record()
        with pytest.raises(Conflict):
            await store.append(OURS, [record, record], [])
        assert await found(store, RecordQuery()) == []

    async def test_a_failing_append_leaves_its_neighbours_alone(self, store: Store) -> None:
        taken = make_record()
        await store.append(OURS, [taken], [])
        good = [make_record() for _ in range(8)]
        calls = [store.append(OURS, [record], []) for record in (*good[:4], taken, *good[4:])]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None)] * 4 + [Conflict] + [type(None)] * 4
        assert await found(store, RecordQuery()) == [taken, *good]

    # -- whose --------------------------------------------------------------------------------------

    async def test_a_record_of_another_scope_is_refused(self, store: Store) -> None:
        for scope in THEIRS:
            with pytest.raises(Conflict):
                await store.append(OURS, [make_record(), make_record(scope)], [Payload("a", b"1")])
            assert await found(store, RecordQuery(), scope) == []
        assert await found(store, RecordQuery()) == []
        assert await store.payload(OURS, "a") is None

    async def test_no_scope_sees_another_ones_records(self, store: Store) -> None:
        same = full_record()
        await store.append(OURS, [same], [])
        for scope in THEIRS:
            assert await store.record(scope, same.id) is None
            queries = (
                RecordQuery(),
                RecordQuery(newest_first=True),
                RecordQuery(run_id=same.run_id),
                RecordQuery(about=same.about),
                RecordQuery(version=same.version),
                RecordQuery(experiment=same.experiment),
                RecordQuery(since=0),
            )
            for query in queries:
                assert await found(store, query, scope) == []
        for scope in THEIRS:  # the same id is another record there
            await store.append(scope, [replace(same, scope=scope, status="ok")], [])
        assert await found(store, RecordQuery()) == [same]
        for scope in THEIRS:
            assert await found(store, RecordQuery(run_id=same.run_id), scope) == [
                replace(same, scope=scope, status="ok")
            ]

    async def test_no_scope_reads_or_erases_another_ones_payloads(self, store: Store) -> None:
        await store.append(OURS, [], [Payload("a", b"ours"), Payload("b", b"ours")])
        for scope in THEIRS:
            assert await store.payload(scope, "a") is None
            assert await store.erase(scope, ["a"]) == 0
            assert await store.erase(scope, None) == 0
            await store.append(scope, [], [Payload("a", str(scope).encode())])
        assert await store.payload(OURS, "a") == b"ours"
        assert await store.erase(OURS, None) == 2
        assert await store.payload(OURS, "a") is None
        for scope in THEIRS:
            assert await store.payload(scope, "a") == str(scope).encode()

    # -- erasing ------------------------------------------------------------------------------------

    async def test_erasing_leaves_records_and_lets_contents_come_again(self, store: Store) -> None:
        record = make_record(input_digest="a")
        await store.append(OURS, [record], [Payload("a", b"1")])
        assert await store.erase(OURS, ["a", "unknown"]) == 1
        assert await store.erase(OURS, ["a"]) == 0
        assert await found(store, RecordQuery()) == [record]
        await store.append(OURS, [], [Payload("a", b"1"), Payload("b", b"2")])
        assert await store.payload(OURS, "a") == b"1"
        assert await store.payload(OURS, "b") == b"2"

    async def test_erasing_many(self, store: Store) -> None:
        names = [f"digest {number}" for number in range(1_201)]
        await store.append(OURS, [], [Payload(name, b"x") for name in names])
        assert await store.erase(OURS, names[:601]) == 601
        assert await store.payload(OURS, names[601]) == b"x"
        assert await store.erase(OURS, None) == 600
        assert await store.payload(OURS, names[601]) is None

    # -- finding ------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (RecordQuery(), "abcdef"),
            (RecordQuery(kind="model"), "cd"),
            (RecordQuery(ref="mail.Other"), "f"),
            (RecordQuery(run_id="r1"), "abc"),
            (RecordQuery(status="error"), "bd"),
            (RecordQuery(model="m1"), "ce"),
            (RecordQuery(params="p1"), "ab"),
            (RecordQuery(about="a"), "e"),
            (RecordQuery(root_only=True), "adef"),
            (RecordQuery(since=2.0), "bcdef"),
            (RecordQuery(until=4.0), "abc"),
            (RecordQuery(since=2.0, until=4.0), "bc"),
            (RecordQuery(after="c"), "def"),
            (RecordQuery(after="c", newest_first=True), "fed"),
            (RecordQuery(newest_first=True), "fedcba"),
            (RecordQuery(limit=2), "ab"),
            (RecordQuery(limit=0), ""),
            (RecordQuery(limit=2, newest_first=True), "fe"),
            (RecordQuery(limit=2, after="b"), "cd"),
            (RecordQuery(limit=100), "abcdef"),
            (RecordQuery(run_id="r1", status="error", root_only=False), "b"),
            (RecordQuery(run_id="r1", newest_first=True, limit=2), "cb"),
            (RecordQuery(kind="model", model="m2"), "d"),
            (RecordQuery(kind="model", ref="mail.Other"), ""),
        ],
        ids=repr,
    )
    async def test_each_condition(self, store: Store, query: RecordQuery, expected: str) -> None:
        await store.append(OURS, _letters(), [])
        assert "".join([record.id for record in await found(store, query)]) == expected

    async def test_pages_join_without_gap_or_overlap(self, store: Store) -> None:
        kept = sorted([make_record() for _ in range(1_500)], key=lambda record: record.id)
        for start in range(0, len(kept), 500):
            await store.append(OURS, kept[start : start + 500], [])
        assert await found(store, RecordQuery()) == kept
        assert await found(store, RecordQuery(newest_first=True)) == kept[::-1]
        assert await found(store, RecordQuery(limit=700)) == kept[:700]
        pages: list[Record] = []
        while page := await found(store, RecordQuery(limit=400, after=pages[-1].id if pages else None)):
            pages += page
        assert pages == kept

    async def test_reading_may_stop_early_and_go_on_beside_writing(self, store: Store) -> None:
        kept = [make_record() for _ in range(200)]
        await store.append(OURS, kept, [])
        seen: list[Record] = []
        async for record in store.records(OURS, RecordQuery()):
            seen.append(record)
            await store.append(OURS, [make_record()], [])
            if len(seen) == 200:
                break
        assert seen == kept
        assert len(await found(store, RecordQuery())) == 400

    # -- at once ------------------------------------------------------------------------------------

    async def test_many_tasks_append_at_once(self, store: Store) -> None:
        kept = [make_record(run_id=str(number)) for number in range(500)]
        await asyncio.gather(*[_append(store, record) for record in kept])
        await _all_there(store, kept)

    async def test_many_loops_append_at_once(self, store: Store) -> None:
        kept = [make_record(run_id=str(number)) for number in range(400)]
        failed: list[BaseException] = []

        async def part(records: Sequence[Record]) -> None:
            await asyncio.gather(*[_append(store, record) for record in records[:50]])
            for record in records[50:]:
                await _append(store, record)

        def run(records: Sequence[Record]) -> None:
            try:
                asyncio.run(part(records))
            except BaseException as error:  # noqa: BLE001 - handed to the test's thread
                failed.append(error)

        threads = [threading.Thread(target=run, args=(kept[start : start + 100],)) for start in range(0, 400, 100)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            await _append(store, extra := make_record())
            kept.append(extra)
            await asyncio.sleep(0.001)
        assert failed == []
        await _all_there(store, kept)

    async def test_a_cancelled_append_harms_no_other(self, store: Store) -> None:
        kept = [make_record() for _ in range(20)]
        tasks = [asyncio.create_task(_append(store, record)) for record in kept]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _all_there(store, kept[1::2])

    # -- the end ------------------------------------------------------------------------------------

    async def test_a_closed_store_says_so(self, store: Store) -> None:
        await store.append(OURS, [make_record()], [])
        await store.close()
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            await store.append(OURS, [make_record()], [])
        with pytest.raises(StoreError, match="closed"):
            await store.record(OURS, "x")
        with pytest.raises(StoreError, match="closed"):
            await store.payload(OURS, "x")
        with pytest.raises(StoreError, match="closed"):
            await store.erase(OURS, None)
        with pytest.raises(StoreError, match="closed"):
            await found(store, RecordQuery())


def _letters() -> list[Record]:
    made = (
        make_record(id="a", run_id="r1", params="p1", started_at=1.0),
        make_record(id="b", run_id="r1", params="p1", started_at=2.0, parent_id="a", status="error"),
        make_record(id="c", run_id="r1", kind="model", model="m1", started_at=3.0, parent_id="a"),
        make_record(id="d", run_id="r2", kind="model", model="m2", started_at=4.0, status="error"),
        make_record(id="e", run_id="r3", kind="score", about="a", value=0.5, model="m1", started_at=5.0),
        make_record(id="f", run_id="r4", ref="mail.Other", started_at=6.0),
    )
    return list(made)


async def _append(store: Store, record: Record) -> None:
    """Append a record with a payload of its own and one shared by all; it is there when this returns."""
    await store.append(OURS, [record], [Payload(record.id, record.id.encode()), Payload("shared", b"shared")])
    assert await store.record(OURS, record.id) == record


async def _all_there(store: Store, kept: Sequence[Record]) -> None:
    there = await found(store, RecordQuery())
    assert {record.id for record in kept} <= {record.id for record in there}
    assert sorted(there, key=lambda record: record.id) == there
    for record in kept:
        assert await store.payload(OURS, record.id) == record.id.encode()
    assert await store.payload(OURS, "shared") == b"shared"
