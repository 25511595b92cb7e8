"""Quality and length of answers, from records."""

from __future__ import annotations

import itertools
import time
from typing import Any, cast

import pytest

from kaizen.core.ids import new_id
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Usage
from kaizen.core.scope import Scope
from kaizen.inference.route.candidates import BYTES_A_TOKEN, Worth
from kaizen.inference.route.evidence import Evidence, Judging
from kaizen.stores.memory import MemoryStore

HERE, THERE = Scope("a", "dev"), Scope("b", "dev")
_seconds = itertools.count(1_000.0)


def record(**fields: Any) -> Record:
    given: dict[str, Any] = {"id": new_id(), "ref": "x", "run_id": "r", "scope": HERE, "started_at": next(_seconds)}
    return Record(**given | fields)


async def judged(store: MemoryStore, value: float | None, *, about: Record | None = None, **score: Any) -> None:
    call = about or record(kind="model", model="m/x", task="code", tokens_out=30)
    await store.append(call.scope, [call] if about is None else [], [])
    given = {"kind": "score", "about": call.id, "value": value, "model": call.model, "scope": call.scope}
    await store.append(call.scope, [record(**given | score)], [])


def evidence(store: MemoryStore, clock: Any = time.monotonic, **judging: Any) -> Evidence:
    return Evidence(store, Judging(**cast("dict[str, Any]", {"least": 2} | judging)), clock=clock)


async def worth(found: Evidence, task: str | None = "code", scope: Scope = HERE, model: str = "m/x") -> Worth:
    return found.worth(await found.of(scope), task, model)


async def test_quality_is_the_mean_score_on_the_scale_with_its_n() -> None:
    store = MemoryStore()
    for value in (1.0, 0.5, 3.0, -1.0):  # what lies outside the range counts as its end
        await judged(store, value)
    found = evidence(store)
    assert await worth(found) == Worth(5 * 2.5 / 4, 4, "scores")
    assert await worth(found, None) == Worth(5 * 2.5 / 4, 4, "scores")
    assert await worth(found, "chat") == Worth()
    assert await worth(found, model="m/y") == Worth()


async def test_too_few_scores_tell_nothing_but_their_number() -> None:
    store = MemoryStore()
    await judged(store, 1.0)
    assert await worth(evidence(store)) == Worth(None, 1)


async def test_nothing_crosses_scopes() -> None:
    store = MemoryStore()
    for _ in range(3):
        await judged(store, 1.0)
    found = evidence(store)
    assert (await worth(found, scope=THERE)).quality is None
    assert (await worth(found)).quality == 5.0


async def test_only_the_scores_that_count_are_counted() -> None:
    store = MemoryStore()
    for name, value in (("right", 1.0), ("right", 1.0), ("length", 0.0), ("right", None)):
        await judged(store, value, ref=name)
    await store.append(HERE, [record(kind="score", ref="right", about="gone", value=0.0)], [])
    found = evidence(store, names=frozenset({"right"}))
    assert await worth(found) == Worth(5.0, 2, "scores")


async def test_a_best_score_sets_the_scale() -> None:
    store = MemoryStore()
    for _ in range(2):
        await judged(store, 50.0)
    assert (await worth(evidence(store, best=100.0))).quality == 2.5


async def test_a_score_of_a_program_counts_for_its_calls_task_or_for_the_program() -> None:
    store = MemoryStore()
    program = record(kind="program", ref="app.Triage", model="m/x")
    other = record(kind="program", ref="app.Other", model="m/x", run_id="r2")
    call = record(kind="model", model="m/x", task="triage", parent_id=program.id)
    await store.append(
        HERE, [program, other, call, record(kind="model", model="m/x", parent_id=other.id, run_id="r2")], []
    )
    for _ in range(2):
        await judged(store, 1.0, about=program)
        await judged(store, 0.0, about=other)
    found = evidence(store)
    assert (await worth(found, "triage")).quality == 5.0
    assert (await worth(found, "app.Other")).quality == 0.0


async def test_records_are_looked_at_again_after_a_while_and_counted_once() -> None:
    store, now = MemoryStore(), [0.0]
    for _ in range(2):
        await judged(store, 1.0)
    found = evidence(store, lambda: now[0], every=30.0)
    assert (await worth(found)).n == 2
    await judged(store, 0.0)
    assert (await worth(found)).n == 2
    now[0] = 31.0
    seen = await worth(found)
    assert (seen.quality, seen.n) == (pytest.approx(5 * 2 / 3), 3)


async def test_a_store_that_fails_is_asked_again_at_once() -> None:
    class Failing(MemoryStore):
        down = True

        def records(self, scope: Scope, query: RecordQuery, /) -> Any:
            if self.down:
                raise OSError("away")
            return super().records(scope, query)

    store = Failing()
    for _ in range(2):
        await judged(store, 1.0)
    found = evidence(store)
    with pytest.raises(OSError, match="away"):
        await found.of(HERE)
    store.down = False
    assert (await worth(found)).n == 2


async def test_the_length_of_answers_is_known_by_task_and_else_by_model() -> None:
    store = MemoryStore()
    calls = [
        record(kind="model", model="m/x", task="code", tokens_out=100),
        record(kind="model", model="m/x", task="chat", tokens_out=20),
        record(kind="model", model="m/x", task="chat", tokens_out=999, cache_tier="exact"),
        record(kind="model", model="m/x", task="chat", tokens_out=0, status="error"),
    ]
    await store.append(HERE, calls, [])
    book = await evidence(store).of(HERE)
    assert book.tokens_out("code", "m/x") == (100.0, 1)
    assert book.tokens_out("other", "m/x") == (60.0, 2)
    assert book.tokens_out(None, "m/y") == (None, 0)


def test_bytes_a_token_are_the_models_own_count() -> None:
    found = evidence(MemoryStore())
    assert found.bytes_a_token("m/x") == BYTES_A_TOKEN
    found.observe("m/x", 300, Usage(tokens_in=100))
    found.observe("m/x", 100, Usage(tokens_in=100, estimated=True))
    found.observe("m/x", 100, Usage(tokens_in=0))
    assert found.bytes_a_token("m/x") == 3.0
    for number in range(5000):
        found.observe(f"m/{number}", 8, Usage(tokens_in=1))
    assert found.bytes_a_token("m/x") == BYTES_A_TOKEN  # the oldest go


async def test_the_books_of_many_scopes_are_bounded() -> None:
    found = evidence(MemoryStore())
    for number in range(1100):
        await found.of(Scope(f"t{number}", "dev"))
    assert len(found._books) == 1024  # pyright: ignore[reportPrivateUsage] - what is bounded shows nowhere else
