"""Experiments over a ledger and a registry in memory: who begins one, who ends it, and what is read of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kaizen.core.artifact import BASE, Arm, Artifact
from kaizen.core.errors import Conflict, KaizenError
from kaizen.core.ids import new_id
from kaizen.core.params import Params
from kaizen.core.record import Record, RecordQuery, Score
from kaizen.core.scope import LOCAL, Scope
from kaizen.learn.experiment.definition import KIND, Definition, Rule
from kaizen.learn.experiment.experiments import Experiment, Experiments
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.scores import keep_scores
from kaizen.registry.params import save
from kaizen.registry.registry import PARAMS, Registry
from kaizen.stores.memory import MemoryStore
from kaizen.stores.registry.memory import MemoryArchive

NAME = "bank.Triage"


class Counting(MemoryStore):
    """A store that counts the records it gives out."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0

    async def records(self, scope: Scope, query: RecordQuery, /) -> AsyncIterator[Record]:
        async for record in super().records(scope, query):
            self.given += 1
            yield record


class Desk:
    """A program with traffic, and a clock that can be moved on."""

    def __init__(self) -> None:
        self.later = 0.0
        self.store = Counting()
        self.ledger = Ledger(self.store, bytes(32))
        self.registry = Registry(MemoryArchive())
        self.experiments = self.elsewhere()

    def elsewhere(self, later: float = 0.0) -> Experiments:
        """Those of another process."""
        return Experiments(self.ledger, self.registry, clock=lambda: time.time() + self.later + later)

    async def put(self, text: str, contract: str | None = None) -> str:
        artifact = Artifact(PARAMS, NAME, save(Params(instructions=text, contract=contract)))
        return (await self.registry.put(LOCAL, artifact, author="human:ada", reason="")).artifact.version

    async def label(self, *versions: str, actor: str = "human:bob") -> None:
        arms = [Arm(one, 1 / len(versions)) for one in versions]
        await self.registry.label(LOCAL, PARAMS, NAME, "prod", arms, actor=actor, reason="urgent")

    async def start(self, *versions: str, begun: float = 0.0) -> Experiment:
        arms = tuple(Arm(one, 1 / len(versions)) for one in versions)
        rule = Rule(scores=1, window_s=0.0)
        definition = Definition(program=NAME, arms=arms, metric="feedback", begun=begun, rule=rule)
        return await self.experiments.start(LOCAL, definition, actor="human:ada")

    async def step(self) -> Experiment | None:
        return await self.experiments.step(LOCAL, NAME)

    async def status(self) -> Experiment:
        found = await self.experiments.status(LOCAL, NAME)
        assert found is not None
        return found

    async def shown(self) -> tuple[Arm, ...] | None:
        return await self.registry.arms(LOCAL, PARAMS, NAME, "prod")

    async def visit(self, subject: str) -> None:
        """A scored call with the first arm that the label shows."""
        moves = await self.registry.history(LOCAL, PARAMS, NAME, "prod")
        call = Record(
            id=new_id(),
            kind="program",
            ref=NAME,
            run_id=new_id(),
            step="0",
            scope=LOCAL,
            started_at=time.time(),
            version=moves[-1].arms[0].version,
            experiment=moves[-1].id,
            subject=subject,
        )
        await self.ledger.append(LOCAL, [call])
        await keep_scores(self.ledger, LOCAL, [Score("feedback", call, 1.0)])


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_of_two_that_begin_at_once_one_runs_and_is_judged(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await desk.put("first"), await desk.put("second")
    put, together = desk.registry.put, asyncio.Barrier(2)

    async def at_once(*words: Any, **more: Any) -> Any:
        await together.wait()  # both have seen that none is running
        return await put(*words, **more)

    monkeypatch.setattr(desk.registry, "put", at_once)
    both = await asyncio.gather(
        desk.start(BASE, first, begun=1.0), desk.start(BASE, second, begun=2.0), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in both) == ["Conflict", "Experiment"]
    [begun] = [one for one in both if isinstance(one, Experiment)]
    assert await desk.shown() == begun.definition.arms
    assert (await desk.status()).version == begun.version
    desk.later = 30 * 86_400.0
    ended = await desk.step()
    assert ended is not None
    assert (ended.version, ended.state) == (begun.version, "inconclusive")
    assert await desk.shown() == (Arm(BASE),)


async def test_one_that_fails_to_begin_says_nothing_of_the_one_that_runs(desk: Desk) -> None:
    begun = await desk.start(BASE, await desk.put("first"), begun=1.0)
    # a process of an earlier Kaizen, which marks without looking and is refused the label
    arms = (Arm(BASE, 0.5), Arm(await desk.put("second"), 0.5))
    other = Definition(program=NAME, arms=arms, metric="feedback", begun=2.0)
    kept = await desk.registry.put(LOCAL, other.artifact(), author="human:bob", reason="")
    for state in ("running", "stopped"):
        marked = [Arm(kept.artifact.version)]
        await desk.registry.label(LOCAL, KIND, NAME, state, marked, actor="human:bob", reason="")
    assert await desk.experiments.programs(LOCAL) == [NAME]
    assert (await desk.status()).version == begun.version
    desk.later = 30 * 86_400.0
    assert await desk.step() is not None
    assert await desk.shown() == (Arm(BASE),)


@pytest.mark.parametrize("later", [0.0, 61.0])
async def test_a_look_between_its_mark_and_its_split_leaves_none_behind(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    version = await desk.put("first")
    label = desk.registry.label

    async def slow(scope: Scope, kind: str, *words: Any, **more: Any) -> Any:
        if kind == PARAMS and len(words[2]) > 1:
            await desk.elsewhere(later).step(LOCAL, NAME)
        return await label(scope, kind, *words, **more)

    monkeypatch.setattr(desk.registry, "label", slow)
    begun = await desk.start(BASE, version)
    assert begun.state == "running"
    assert await desk.shown() == (Arm(BASE, 0.5), Arm(version, 0.5))
    assert await desk.experiments.programs(LOCAL) == [NAME]
    desk.later = 30 * 86_400.0
    assert await desk.step() is not None
    assert await desk.shown() == (Arm(BASE),)


async def test_a_split_whose_answer_was_lost_is_taken_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    version = await desk.put("first")
    label = desk.registry.label

    async def lost(scope: Scope, kind: str, *words: Any, **more: Any) -> Any:
        move = await label(scope, kind, *words, **more)
        if kind == PARAMS and len(words[2]) > 1:
            raise asyncio.CancelledError
        return move

    monkeypatch.setattr(desk.registry, "label", lost)
    with pytest.raises(asyncio.CancelledError):
        await desk.start(BASE, version)
    assert await desk.shown() == (Arm(BASE),)
    assert (await desk.status()).reason == "its traffic could not be split"


async def test_a_label_moved_by_hand_ends_it_at_the_next_look(desk: Desk) -> None:
    version, other = await desk.put("first"), await desk.put("other")
    await desk.start(BASE, version)
    assert (await desk.step()).state == "running"  # pyright: ignore[reportOptionalMemberAccess]
    await desk.label(other)
    ended = await desk.step()
    assert ended is not None
    assert (ended.state, ended.reason) == ("stopped", "prod was moved by human:bob while it ran: urgent")
    assert await desk.shown() == (Arm(other),)
    assert await desk.step() is None
    again = await desk.start(other, version, begun=1.0)
    assert again.state == "running", "the next one may begin"


async def test_who_ended_it_and_died_before_saying_so_is_followed_by_one_that_says_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await desk.put("first")
    await desk.start(BASE, version)
    label = desk.registry.label

    async def dying(scope: Scope, kind: str, *words: Any, **more: Any) -> Any:
        if kind == KIND:
            raise asyncio.CancelledError
        return await label(scope, kind, *words, **more)

    monkeypatch.setattr(desk.registry, "label", dying)
    with pytest.raises(asyncio.CancelledError):
        await desk.experiments.stop(LOCAL, NAME, actor="human:ada", reason="enough")
    monkeypatch.undo()
    assert await desk.shown() == (Arm(BASE),)
    ended = await desk.elsewhere().step(LOCAL, NAME)
    assert ended is not None
    assert ended.state == "stopped"
    assert "stopped by human:ada: enough" in ended.reason


async def test_of_one_that_is_over_nothing_is_read_that_came_later_and_what_was_is_read_once(desk: Desk) -> None:
    await desk.start(BASE, await desk.put("first"))
    for number in range(3):
        await desk.visit(f"customer {number}")
    ended = await desk.experiments.stop(LOCAL, NAME, actor="human:ada", reason="enough")
    assert [one.calls for one in ended.standings] == [3, 0]
    await asyncio.sleep(0.01)
    for number in range(50):
        await desk.visit(f"late customer {number}")
    desk.experiments = desk.elsewhere()
    desk.store.given = 0
    assert (await desk.status()).standings == ended.standings
    read = desk.store.given
    assert 6 <= read <= 12, "three calls, their scores, and the roots of their runs"
    assert (await desk.status()).standings == ended.standings
    assert desk.store.given == read


async def test_what_was_read_of_one_that_another_process_ended_is_not_held(desk: Desk) -> None:
    for number in range(3):
        await desk.start(BASE, await desk.put(f"version {number}"), begun=float(number))
        await desk.step()
        await desk.elsewhere().stop(LOCAL, NAME, actor="human:ada", reason="enough")
    assert len(desk.experiments._live) == 1
    assert await desk.step() is None
    assert desk.experiments._live == {}


async def test_versions_of_two_contracts_are_not_compared(desk: Desk) -> None:
    old, new, free = await desk.put("old", "a" * 32), await desk.put("new", "b" * 32), await desk.put("free")
    with pytest.raises(Conflict, match="different contracts"):
        await desk.start(old, new)
    assert await desk.experiments.status(LOCAL, NAME) is None
    assert await desk.shown() is None
    assert (await desk.start(old, free, BASE)).state == "running"


async def test_labels_of_other_names_say_nothing_of_an_experiment(desk: Desk) -> None:
    begun = await desk.start(BASE, await desk.put("first"))
    kept = [Arm(begun.version)]
    await desk.registry.label(LOCAL, KIND, NAME, "keep", kept, actor="human:bob", reason="for the archive")
    assert (await desk.status()).state == "running"
    assert await desk.experiments.programs(LOCAL) == [NAME]
    with pytest.raises(KaizenError, match="is running"):
        await desk.start(BASE, await desk.put("second"), begun=1.0)
