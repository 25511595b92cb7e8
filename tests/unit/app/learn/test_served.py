"""The programs that a gateway is started with, and the watch over every tenant's loops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

import kaizen.app
from kaizen.app.learn import served
from kaizen.app.learn.served import load_served, make_learning, watch_all, within
from kaizen.core.artifact import BASE, Arm, Artifact
from kaizen.core.errors import ConfigError, NotFound, StoreError
from kaizen.core.scope import Scope
from kaizen.learn.experiment.definition import Definition, Rule
from kaizen.learn.experiment.experiments import Experiment, Experiments
from kaizen.learn.loop.loop import Loop
from kaizen.learn.loop.plan import Plan
from kaizen.learn.loop.seams import Proposal, Wanted
from kaizen.learn.loop.steps import Step
from kaizen.registry.registry import PARAMS
from kaizen.settings import load_settings

FILE = '''from kaizen import Signature, context


class Triage(Signature):
    """Name the team."""

    message: str = context.input()
    team: str = context.output()
'''
ACME, OTHER = Scope("acme", "prod"), Scope("other", "prod")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "served_triage.py").write_text(FILE)
    return tmp_path / "served_triage.py"


def test_programs_are_loaded_once_each(file: Path) -> None:
    loaded = load_served([f"{file}:Triage"])
    [(name, one)] = loaded.items()
    assert (name, one.target) == ("served_triage.Triage", f"{file}:Triage")
    with pytest.raises(ConfigError, match=r"are both served_triage\.Triage"):
        load_served([f"{file}:Triage", str(file)])
    with pytest.raises(NotFound):
        load_served([f"{file}:Nobody"])


async def test_an_app_within_another_tenant_is_the_same_but_for_its_data(tmp_path: Path) -> None:
    app = kaizen.app.build(load_settings(tmp_path, {}, {"home": str(tmp_path)}))
    other = within(app, OTHER)
    assert (other.scope, other.ledger, other.registry) == (OTHER, app.ledger, app.registry)
    assert (await other.new_run()).scope == OTHER
    assert (await app.new_run()).scope == app.scope != OTHER
    assert make_learning(app, {}).within(ACME).scope == ACME
    await app.close()


async def test_every_tenant_is_looked_after_though_one_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = kaizen.app.build(load_settings(tmp_path, {}, {"home": str(tmp_path)}))
    looked: list[Scope] = []
    enough = asyncio.Event()
    asked = 0

    async def look(loop: Loop, scope: Scope) -> None:
        looked.append(scope)
        if looked.count(OTHER) == 3:
            enough.set()
        if scope == ACME:
            await asyncio.sleep(60)

    async def scopes() -> Sequence[Scope]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise StoreError("the keys can't be read")
        return [ACME, OTHER]

    monkeypatch.setattr(served, "_look", look)
    watching = asyncio.ensure_future(watch_all(app, {}, scopes, every=0.01))
    async with asyncio.timeout(10):
        await enough.wait()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert looked.count(ACME) == 1
    assert looked.count(app.scope) >= 3
    assert "their loops wait" in caplog.text
    await app.close()


async def test_without_contents_experiments_are_judged_and_one_mistake_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(tmp_path, {}, {"home": str(tmp_path), "ledger": {"payloads": False}})
    app = kaizen.app.build(settings)
    experiments = Experiments(app.ledger, app.registry)
    for name in ("bank.Broken", "bank.Triage"):
        put = await app.registry.put(ACME, Artifact(PARAMS, name, b"{}"), author="human:ada", reason="")
        arms = (Arm(BASE, 0.5), Arm(put.artifact.version, 0.5))
        definition = Definition(program=name, arms=arms, metric="feedback", begun=0.0, rule=Rule(days=1e-9))
        await experiments.start(ACME, definition, actor="human:ada")
    programs, step, asked = Experiments.programs, Experiments.step, 0

    async def read(self: Experiments, scope: Scope) -> Sequence[str]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise StoreError("the file is locked")
        return await programs(self, scope)

    async def judged(self: Experiments, scope: Scope, program: str) -> Experiment | None:
        if program == "bank.Broken":
            raise StoreError("its body is damaged")
        return await step(self, scope, program)

    async def scopes() -> Sequence[Scope]:
        return [ACME]

    monkeypatch.setattr(Experiments, "programs", read)
    monkeypatch.setattr(Experiments, "step", judged)
    watching = asyncio.ensure_future(watch_all(app, {}, scopes, every=0.01))
    async with asyncio.timeout(10):
        while await app.registry.arms(ACME, PARAMS, "bank.Triage", "prod") != (Arm(BASE),):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert "the experiments can't be read: the file is locked" in caplog.text
    assert "the experiment on bank.Broken: its body is damaged" in caplog.text
    await app.close()


async def test_all_tenants_share_the_turns_of_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = kaizen.app.build(load_settings(tmp_path, {}, {"home": str(tmp_path)}))
    going: list[Scope] = []

    class Looking(Loop):
        """A loop that has something to search for in every tenant."""

        async def programs(self, scope: Scope) -> Sequence[str]:
            return ["bank.Triage"]

        async def tick(self, scope: Scope, program: str, *, waits: bool = True) -> Sequence[Step]:
            plan = Plan(program=program, target="a.py:A", metric="accuracy", rows="dataset/a@1")
            wanted = Wanted(plan=plan, run_id="run", start=BASE, usd=1.0, since=0.0)

            async def endless(_: Wanted, /) -> Proposal:
                going.append(scope)
                await asyncio.sleep(60)
                raise AssertionError("it is broken off")

            await self._searches.found(scope, wanted, endless, waits=waits)
            return []

    async def scopes() -> Sequence[Scope]:
        return [ACME, OTHER]

    monkeypatch.setattr("kaizen.app.learn.loop.Loop", Looking)
    watching = asyncio.ensure_future(watch_all(app, {}, scopes, every=0.01))
    await asyncio.sleep(0.2)
    assert going == [app.scope, ACME], "two at a time, whosever they are"
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    await app.close()


async def test_searches_end_with_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = kaizen.app.build(load_settings(tmp_path, {}, {"home": str(tmp_path)}))
    closed: list[Loop] = []

    async def close(self: Loop) -> None:
        closed.append(self)

    async def scopes() -> Sequence[Scope]:
        return [ACME]

    monkeypatch.setattr(Loop, "close", close)
    watching = asyncio.ensure_future(watch_all(app, {}, scopes, every=0.01))
    await asyncio.sleep(0.1)
    assert closed == [], "they go on beside the looks"
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert len(closed) == 2
    await app.close()
