"""Which version a run gets: the view in memory, how it is kept fresh, and the arms of experiments."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from kaizen.core.artifact import BASE, Arm, Artifact, Head, Move, Released, Version
from kaizen.core.errors import NotFound, StoreError
from kaizen.core.params import NOTHING, Params
from kaizen.core.scope import LOCAL, Scope
from kaizen.registry.params import save
from kaizen.registry.registry import Registry
from kaizen.registry.releases import Releases, share
from kaizen.stores.registry.memory import MemoryArchive

NAME, OTHER = "bank.Triage", "bank.Reply"


class Counting(MemoryArchive):
    """An archive that counts how it is asked, waits for ``gate``, and fails with ``failure``."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.failure: StoreError | None = None
        self.gate: asyncio.Event | None = None
        self.damaged: set[str] = set()

    async def state(self, scope: Scope, kind: str, /) -> int:
        self.asked["state"] += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return await super().state(scope, kind)

    async def moves(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Move]:
        self.asked["moves"] += 1
        return await super().moves(scope, kind, name)

    async def heads(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Head]:
        self.asked["heads"] += 1
        return await super().heads(scope, kind, name)

    async def find(self, scope: Scope, kind: str, name: str, version: str, /) -> Version | None:
        self.asked["find"] += 1
        if version in self.damaged:
            error = StoreError("it is damaged")
            error.retryable = False
            raise error
        return await super().find(scope, kind, name, version)


class Desk:
    """A process's releases, with a clock of its own; ``elsewhere`` is the registry of another process."""

    def __init__(self) -> None:
        self.now = 100.0
        self.archive = Counting()
        self.elsewhere = Registry(self.archive)
        self.releases = Releases(Registry(self.archive), clock=lambda: self.now)

    async def put(self, text: str, name: str = NAME, scope: Scope = LOCAL) -> str:
        body = save(Params(instructions=text))
        return (await self.elsewhere.put(scope, Artifact("params", name, body), author="a", reason="")).artifact.version

    async def label(
        self, *arms: Arm | str, name: str = NAME, label: str = "prod", scope: Scope = LOCAL, by: Registry | None = None
    ) -> Move:
        shown = [arm if isinstance(arm, Arm) else Arm(arm) for arm in arms]
        return await (by or self.elsewhere).label(scope, "params", name, label, shown, actor="a", reason="")

    async def runs(self, name: str = NAME, subject: str = "s", scope: Scope = LOCAL) -> str:
        """What a run that begins now has as instructions."""
        return said((await self.releases.ready(scope)).resolve(name, subject))

    async def at(self, which: str, name: str = NAME) -> dict[str, str]:
        view = await self.releases.at(LOCAL, name, which)
        return {one: said(view.resolve(one, "s")) for one in (NAME, OTHER)}


def said(released: Released | None) -> str:
    return BASE if released is None or released.version == BASE else str(released.params.instructions)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_without_a_label_the_code_runs(desk: Desk) -> None:
    await desk.put("one")
    assert await desk.runs() == BASE
    assert (await desk.releases.ready(LOCAL)).resolve("none", "s") is None


async def test_a_release_says_what_it_is(desk: Desk) -> None:
    version = await desk.put("one")
    await desk.label(version)
    found = (await desk.releases.ready(LOCAL)).resolve(NAME, "s")
    assert found == Released(Params(instructions="one"), version, 1, NAME, "prod")
    assert found is not None
    assert found.ref == f"params/{NAME}@{version}"


async def test_a_move_elsewhere_is_seen_within_half_a_second_and_asked_for_no_more_often(desk: Desk) -> None:
    one, two = await desk.put("one"), await desk.put("two")
    await desk.label(one)
    assert await desk.runs() == "one"
    asked = desk.archive.asked["state"]
    await desk.label(two)
    desk.now += 0.39
    assert [await desk.runs() for _ in range(100)] == ["one"] * 100
    assert desk.archive.asked["state"] == asked
    desk.now += 0.02
    assert await desk.runs() == "two"
    assert desk.archive.asked["state"] == asked + 1


async def test_what_did_not_change_is_not_read_again(desk: Desk) -> None:
    await desk.label(await desk.put("one"))
    first = await desk.releases.ready(LOCAL)
    asked = desk.archive.asked.copy()
    for _ in range(10):
        desk.now += 1
        assert await desk.releases.ready(LOCAL) is first
    assert desk.archive.asked - asked == {"state": 10}


async def test_a_body_is_read_once_however_often_labels_move(desk: Desk) -> None:
    one, two = await desk.put("one"), await desk.put("two")
    resolved: list[Released | None] = []
    for version in (one, two, one, two):
        await desk.label(version)
        desk.now += 1
        resolved.append((await desk.releases.ready(LOCAL)).resolve(NAME, "s"))
    assert desk.archive.asked["find"] == 2
    first, second, third, _ = resolved
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.params is third.params  # so that what was made of it is found again


async def test_a_move_of_this_process_holds_from_the_next_run_on(desk: Desk) -> None:
    one = await desk.put("one")
    assert await desk.runs() == BASE
    await desk.label(one, by=desk.releases.registry)
    assert await desk.runs() == "one"


async def test_tenants_see_their_own(desk: Desk) -> None:
    theirs = Scope("other")
    await desk.label(await desk.put("ours"))
    await desk.label(await desk.put("theirs", scope=theirs), scope=theirs)
    assert await desk.runs() == "ours"
    assert await desk.runs(scope=theirs) == "theirs"
    assert await desk.runs(scope=Scope("third")) == BASE


# -- many at once ---------------------------------------------------------------------------------


async def test_runs_that_begin_at_once_ask_once(desk: Desk) -> None:
    desk.archive.gate = asyncio.Event()
    await desk.label(await desk.put("one"))
    runs = [asyncio.ensure_future(desk.runs()) for _ in range(50)]
    await asyncio.sleep(0)
    runs[0].cancel()  # who began the question must not take it from the others
    await asyncio.sleep(0)
    desk.archive.gate.set()
    assert set(await asyncio.gather(*runs[1:])) == {"one"}
    assert desk.archive.asked["state"] == 1


async def test_while_somebody_asks_the_others_go_on_as_long_as_what_they_have_is_fresh_enough(desk: Desk) -> None:
    one, two = await desk.put("one"), await desk.put("two")
    await desk.label(one)
    assert await desk.runs() == "one"
    await desk.label(two)
    desk.archive.gate = asyncio.Event()
    desk.now += 0.5
    asking = asyncio.ensure_future(desk.runs())
    await asyncio.sleep(0.01)
    assert await asyncio.wait_for(desk.runs(), 1) == "one"
    desk.now += 0.5  # now what they have may be a second old
    waiting = asyncio.ensure_future(desk.runs())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    desk.archive.gate.set()
    assert await asyncio.gather(asking, waiting) == ["two", "two"]


def test_several_loops_may_ask(desk: Desk) -> None:
    asyncio.run(desk.label(asyncio.run(desk.put("one"))))
    found: list[str] = []

    def work() -> None:
        for _ in range(20):
            desk.now += 1
            found.append(asyncio.run(desk.runs()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["one"] * 60


# -- what goes wrong ------------------------------------------------------------------------------


async def test_a_registry_that_can_not_be_asked_leaves_what_was_released(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.label(await desk.put("one"))
    assert await desk.runs() == "one"
    desk.archive.failure = StoreError("the disk is gone")
    desk.now += 1
    with caplog.at_level(logging.WARNING):
        assert [await desk.runs() for _ in range(10)] == ["one"] * 10
    assert [record.getMessage() for record in caplog.records] == [
        "the registry can't be read, and what was released before goes on to run: the disk is gone"
    ]
    desk.archive.failure = None
    await desk.label(await desk.put("two"))
    desk.now += 1
    assert await desk.runs() == "two"


async def test_a_registry_that_was_never_read_is_an_error_and_not_the_code(desk: Desk) -> None:
    desk.archive.failure = StoreError("the disk is gone")
    with pytest.raises(StoreError, match="the disk is gone"):
        await desk.runs()
    desk.archive.failure = None
    assert await desk.runs() == BASE


async def test_a_damaged_version_fails_its_own_program_only(desk: Desk) -> None:
    damaged = await desk.put("one")
    await desk.label(damaged)
    await desk.label(await desk.put("fine", OTHER), name=OTHER)
    desk.archive.damaged.add(damaged)
    view = await desk.releases.ready(LOCAL)
    assert said(view.resolve(OTHER, "s")) == "fine"
    for _ in range(2):
        with pytest.raises(StoreError, match="it is damaged") as caught:
            view.resolve(NAME, "s")
        assert not caught.value.retryable
    await desk.label(BASE)
    desk.now += 1
    assert await desk.runs() == BASE


async def test_a_version_that_this_kaizen_can_not_read_fails_its_program_only(desk: Desk) -> None:
    artifact = Artifact("params", NAME, b'{"invented_later":1}')
    await desk.elsewhere.put(LOCAL, artifact, author="a", reason="")
    await desk.label(artifact.version)
    with pytest.raises(StoreError, match=r"bank\.Triage@prod, version 1, can't be used: .*'invented_later'"):
        await desk.runs()
    assert await desk.runs(OTHER) == BASE


async def test_a_label_that_shows_what_is_gone_fails_its_program_only(desk: Desk) -> None:
    await desk.archive.move(LOCAL, Move("m", "params", NAME, "prod", (Arm("f" * 32),), "a", "", 1.0))
    with pytest.raises(StoreError, match="is not there"):
        await desk.runs()


# -- which version --------------------------------------------------------------------------------


async def test_a_version_can_be_asked_for(desk: Desk) -> None:
    one, two = await desk.put("one"), await desk.put("two")
    await desk.label(one)
    await desk.label(two, label="canary")
    await desk.put("three")
    reply = await desk.put("reply", OTHER)
    await desk.label(reply, name=OTHER)
    await desk.put("newer reply", OTHER)
    both = {NAME: "one", OTHER: "reply"}
    assert await desk.at("") == both
    assert await desk.at("prod") == both
    assert await desk.at("base") == {NAME: BASE, OTHER: BASE}
    assert await desk.at("latest") == {NAME: "three", OTHER: "newer reply"}
    assert await desk.at("canary") == {NAME: "two", OTHER: "reply"}
    assert await desk.at("2") == {NAME: "two", OTHER: "reply"}
    assert await desk.at(two[:10]) == {NAME: "two", OTHER: "reply"}
    assert await desk.at("canary") == {NAME: "two", OTHER: "reply"}  # kept
    await desk.label(one, label="canary")
    desk.now += 1
    assert await desk.at("canary") == both


async def test_latest_is_read_once_until_there_is_a_newer_one(desk: Desk) -> None:
    for name in (NAME, OTHER):
        await desk.put("old", name)
    assert await desk.at("latest") == {NAME: "old", OTHER: "old"}
    asked = desk.archive.asked.copy()
    for _ in range(10):
        desk.now += 1
        assert await desk.at("latest") == {NAME: "old", OTHER: "old"}
    assert desk.archive.asked - asked == {"state": 10}
    await desk.put("new")
    desk.now += 0.5
    assert await desk.at("latest") == {NAME: "new", OTHER: "old"}


async def test_latest_is_the_code_where_there_is_no_version(desk: Desk) -> None:
    assert await desk.at("latest") == {NAME: BASE, OTHER: BASE}


@pytest.mark.parametrize("which", ["9", "canary", "deadbeef"])
async def test_a_version_that_is_not_there_is_an_error(desk: Desk, which: str) -> None:
    with pytest.raises(NotFound, match=f"has no version {which}: it has only base, the params in the code"):
        await desk.at(which)
    await desk.put("one")
    with pytest.raises(NotFound, match=f"has no version {which}: its versions are 1, and it has no label"):
        await desk.at(which)


# -- experiments ----------------------------------------------------------------------------------


async def test_a_subject_keeps_its_arm_while_the_move_stands(desk: Desk) -> None:
    one, two = await desk.put("one"), await desk.put("two")
    move = await desk.label(Arm(one, 0.5), Arm(two, 0.5))
    subjects = [f"subject {number}" for number in range(300)]
    first = {subject: await desk.runs(subject=subject) for subject in subjects}
    desk.now += 10
    await desk.label(BASE, label="canary")  # another label's move
    assert {subject: await desk.runs(subject=subject) for subject in subjects} == first
    other = Desk()  # another process
    other.archive._versions, other.archive._moves = desk.archive._versions, desk.archive._moves
    assert {subject: await other.runs(subject=subject) for subject in subjects} == first
    found = (await desk.releases.ready(LOCAL)).resolve(NAME, "subject 1")
    assert found is not None
    assert found.experiment == move.id
    assert found.arm == ["one", "two"].index(said(found))


async def test_a_new_split_deals_the_subjects_anew(desk: Desk) -> None:
    one, two = await desk.put("one"), await desk.put("two")
    subjects = [f"subject {number}" for number in range(4000)]
    arms: list[list[str]] = []
    for _ in range(2):
        await desk.label(Arm(one, 0.5), Arm(two, 0.5))
        desk.now += 1
        view = await desk.releases.ready(LOCAL)
        arms.append([said(view.resolve(NAME, subject)) for subject in subjects])
    same = sum(a == b for a, b in zip(*arms, strict=True))
    assert abs(same / len(subjects) - 0.5) < 0.04  # five standard errors: the second says nothing about the first


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5), (0.99, 0.01)])
async def test_shares_of_subjects_are_the_weights(desk: Desk, weights: tuple[float, ...]) -> None:
    versions = [await desk.put(f"{at}") for at in range(len(weights))]
    await desk.label(*(Arm(version, weight) for version, weight in zip(versions, weights, strict=True)))
    view = await desk.releases.ready(LOCAL)
    count = 20_000
    found = Counter(said(view.resolve(NAME, f"user-{number}@example.com")) for number in range(count))
    # Pearson's chi-squared against the weights; 16.3 is its 99.9 % point at three degrees of freedom
    chi = sum((found[f"{at}"] - count * weight) ** 2 / (count * weight) for at, weight in enumerate(weights))
    assert chi < 16.3
    assert sum(found.values()) == count


def test_shares_are_even_and_hold_any_subject() -> None:
    drawn = [share(b"m", f"{number}") for number in range(10_000)]
    assert all(0 <= one < 1 for one in drawn)
    assert abs(sum(drawn) / len(drawn) - 0.5) < 0.015
    assert share(b"m", "\ud800") != share(b"m", "")
    assert share(b"m", "a") != share(b"n", "a")


async def test_one_arm_may_be_the_code(desk: Desk) -> None:
    await desk.label(Arm(BASE, 0.5), Arm(await desk.put("one"), 0.5))
    view = await desk.releases.ready(LOCAL)
    found = [view.resolve(NAME, f"{number}") for number in range(50)]
    assert Counter(said(one) for one in found).keys() == {BASE, "one"}
    assert all(one is not None and one.experiment for one in found)
    assert [one for one in found if one is not None and one.version == BASE and one.params != NOTHING] == []


# -- the hot path ---------------------------------------------------------------------------------


async def test_to_resolve_does_no_io_and_is_quick(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.label(Arm(await desk.put("one"), 0.5), Arm(await desk.put("two"), 0.5))
    view = await desk.releases.ready(LOCAL)
    asked = desk.archive.asked.copy()

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("no I/O on the hot path")

    for module, name in ((socket, "socket"), (sqlite3, "connect"), (threading, "Thread"), (asyncio, "to_thread")):
        monkeypatch.setattr(module, name, refused)
    monkeypatch.setattr("builtins.open", refused)
    rounds = [_timed(view) for _ in range(20)]
    assert desk.archive.asked == asked
    assert min(rounds) < 10e-6  # the bar of benchmarks/learn/resolve.py, which measures it in peace


def _timed(view: Any) -> float:
    begun = time.perf_counter()
    for number in range(500):
        view.resolve(NAME, "subject")
        del number
    return (time.perf_counter() - begun) / 500
