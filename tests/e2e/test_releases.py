"""Releases, end to end: what a real server is asked after a label moved, and what the records say."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaizen import Signature, cached, context, program
from kaizen.app import App, build
from kaizen.core.artifact import BASE, Arm, Version
from kaizen.core.context import EVERY
from kaizen.core.errors import Conflict
from kaizen.core.ids import new_id
from kaizen.core.params import NOTHING, Demo, Params
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.registry.params import params_artifact
from kaizen.settings import load_settings
from kaizen.testing.fault_server import FaultServer

Make = Callable[..., App]


class Triage(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: str = context.output("the team")


class Wider(Signature):
    """Name the team."""

    message: str = context.input("what the customer wrote")
    team: str = context.output("the team")
    why: str = context.output("why")


NAME = Triage.spec.name


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer('{"team": "cards"}') as running:
        yield running


@pytest.fixture
def settings(server: FaultServer, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": "mine/large",
        "tenant": new_id(),  # PostgreSQL is the session's
        "home": str(tmp_path / "home"),
        "providers": {"mine": {"kind": "openai", "base_url": server.base_url, "api_key": "k"}},
        "inference": {"attempts": 1},
    }


@pytest.fixture
async def make(settings: dict[str, Any], tmp_path: Path) -> AsyncIterator[Make]:
    opened: list[App] = []

    def making(**overrides: Any) -> App:
        opened.append(build(load_settings(tmp_path, {}, settings | overrides)))
        return opened[-1]

    yield making
    for app in opened:
        await app.close()


async def put(app: App, params: Params, scope: Scope | None = None) -> Version:
    artifact = params_artifact(Triage.spec, params)
    return await app.registry.put(scope or app.scope, artifact, author="human:ada", reason="trial")


async def label(app: App, *versions: Version | str, scope: Scope | None = None) -> str:
    arms = [Arm(one if isinstance(one, str) else one.artifact.version, 1 / len(versions)) for one in versions]
    move = await app.registry.label(scope or app.scope, "params", NAME, "prod", arms, actor="ada", reason="go")
    return move.id


async def ask(app: App, one: Any = Triage, **run: Any) -> Record:
    """One run of its own; its record."""
    answer: Any = await app.start_run(replace(await app.new_run(), **run), one, {"message": "hello"})
    return answer.record


def sent(server: FaultServer) -> str:
    """What the server was asked last, as text."""
    return server.calls[-1].body.decode()


async def test_a_release_changes_what_the_model_is_asked_and_a_rollback_brings_it_back_byte_for_byte(
    make: Make, server: FaultServer
) -> None:
    app = make()
    record = await ask(app)
    before = server.calls[-1].body
    assert "Name the team." in sent(server)
    assert (record.version, record.experiment) == (BASE, None)

    version = await put(
        app,
        Params(instructions="Say who owns it.", demos=(Demo({"message": "hi"}, {"team": "loans"}),), temperature=0.25),
    )
    await ask(app)
    assert server.calls[-1].body == before  # to create is not to release

    await label(app, version)
    record = await ask(app)
    assert "Say who owns it." in sent(server)
    assert "loans" in sent(server)
    assert server.calls[-1].json["temperature"] == 0.25
    assert record.version == version.artifact.version
    released = server.calls[-1].body

    await app.registry.rollback(app.scope, "params", NAME, "prod", actor="ada", reason="bad")
    assert (await ask(app)).version == BASE
    assert server.calls[-1].body == before
    await label(app, version)
    await ask(app)
    assert server.calls[-1].body == released
    # each model call says so, too, and the records can be counted by it
    query = RecordQuery(version=version.artifact.version)
    found = [one async for one in app.ledger.records(app.scope, query)]
    assert sorted(one.kind for one in found) == ["model", "model", "program", "program"]


async def test_a_run_goes_on_with_what_it_began_with(make: Make, server: FaultServer) -> None:
    app = make()
    version = await put(app, Params(instructions="Say who owns it."))

    @program
    async def twice(message: str) -> str:
        """Ask twice, with a release in between."""
        await Triage(message=message)
        await label(app, version)
        return (await Triage(message=message)).team

    await ask(app, twice)
    assert [b"Say who owns it." in call.body for call in server.calls] == [False, False]
    await ask(app)
    assert "Say who owns it." in sent(server)


async def test_params_come_in_order_overrides_own_released_defaults(make: Make, server: FaultServer) -> None:
    app = make(defaults={"temperature": 0.75, "max_tokens": 99})
    await label(app, await put(app, Params(instructions="Released.", temperature=0.5)))

    async def asked(one: Any = Triage, **overrides: Params) -> tuple[bool, float, int, str | None]:
        given = {EVERY if name == "every" else NAME: params for name, params in overrides.items()}
        record = await ask(app, one, overrides=given)
        body = server.calls[-1].json
        most = body.get("max_tokens", body.get("max_completion_tokens"))
        return "Released." in sent(server), body["temperature"], most, record.version

    version = (await app.registry.version(app.scope, "params", NAME)).artifact.version
    assert await asked() == (True, 0.5, 99, version)
    assert await asked(Triage.using(temperature=0.25)) == (True, 0.25, 99, version)
    assert await asked(every=Params(temperature=0.0)) == (True, 0.0, 99, version)
    # an override by name stands in the place of a release: an optimizer's candidate is tried as it will be
    assert await asked(named=Params(max_tokens=7)) == (False, 0.75, 7, None)
    assert await asked(named=NOTHING) == (False, 0.75, 99, None)


async def test_a_version_that_is_asked_for_runs_whatever_is_released(make: Make, server: FaultServer) -> None:
    app = make()
    versions = [await put(app, Params(instructions=f"Version {number}.")) for number in (1, 2, 3)]
    await label(app, versions[1])
    for which, text, number in (
        ("", "Version 2.", 2),
        ("prod", "Version 2.", 2),
        ("latest", "Version 3.", 3),
        ("1", "Version 1.", 1),
        ("base", "Name the team.", 0),
    ):
        record = await ask(app, releases=await app.releases.at(app.scope, NAME, which))
        assert text in sent(server)
        assert record.version == (versions[number - 1].artifact.version if number else BASE)


async def test_kept_answers_go_stale_by_themselves_on_a_release_and_a_rollback(make: Make, server: FaultServer) -> None:
    """``invalidate_on_optimization``: the key of a kept answer is the request, and another version asks another one."""
    kept, asked = [1, 1, 2, 2, 2, 2], [1, 2, 3, 4, 5, 6]
    for layer, on, counts in (("exact", True, kept), ("exact", False, asked), ("semantic", True, kept)):
        layers = {layer: {"enabled": on}, "attempts": 1}
        app = make(inference=layers, defaults={"temperature": 0.0}, tenant=new_id())
        begun, seen = server.count, list[int]()
        version = await put(app, Params(instructions="Say who owns it."))
        for step in (None, None, "release", None, "rollback", None):
            if step == "release":
                await label(app, version)
            if step == "rollback":
                await app.registry.rollback(app.scope, "params", NAME, "prod", actor="ada", reason="")
            await ask(app)
            seen.append(server.count - begun)
        assert seen == counts, layer
        tiers = [one.cache_tier async for one in app.ledger.records(app.scope, RecordQuery(kind="model"))]
        assert tiers.count(layer) == 6 - counts[-1]  # type: ignore[arg-type]  # both are tiers


@pytest.mark.parametrize("of_a_function", [False, True])
async def test_kept_steps_go_stale_with_a_release_of_any_program_below(
    make: Make, server: FaultServer, of_a_function: bool
) -> None:
    @program
    async def route(message: str) -> str:
        """Ask, through another program."""
        return (await Triage(message=message)).team

    step, app = cached(cached(route) if of_a_function else Triage), make()
    version = await put(app, Params(instructions="Say who owns it."))
    counts: list[int] = []
    for _ in range(2):
        await ask(app, step)
        counts.append(server.count)
    await label(app, version)
    for _ in range(2):
        await ask(app, step)
        counts.append(server.count)
    await app.registry.put(app.scope, params_artifact(Wider.spec, Params(seed=1)), author="a", reason="")
    await ask(app, step)  # another program's version is none of its business
    await label(app, BASE)
    await ask(app, step)
    assert [*counts, server.count] == [1, 1, 2, 2, 3 if of_a_function else 2]


async def test_params_of_another_contract_are_an_error_that_says_what_to_do(make: Make, server: FaultServer) -> None:
    app = make()
    other = params_artifact(Wider.spec, Params(instructions="Old."))
    version = await app.registry.put(app.scope, replace(other, name=NAME), author="a", reason="")
    await label(app, version)
    with pytest.raises(Conflict) as caught:
        await ask(app)
    assert str(caught.value) == (
        f"{NAME}@prod shows version 1, made for another contract than it has now: "
        f"`kaizen registry rollback {NAME} --label prod` goes back to the version before, "
        f"`kaizen registry label {NAME} prod base` to the params in the code"
    )
    assert server.count == 0
    record = caught.value.record
    assert record is not None
    assert (record.status, record.error_code, record.version) == ("error", "conflict", version.artifact.version)
    await label(app, BASE)
    assert (await ask(app)).version == BASE
    with pytest.raises(Conflict, match="change them to fit its fields"):
        await ask(app, overrides={NAME: Params(contract="x")})


async def test_two_tenants_run_their_own_versions(make: Make, server: FaultServer) -> None:
    ours, theirs = make(), make(tenant=new_id())
    version = await put(ours, Params(instructions="Ours."))
    await label(ours, version)
    await ask(theirs)
    assert "Ours." not in sent(server)
    assert await theirs.registry.heads(theirs.scope) == []
    await ask(ours)
    assert "Ours." in sent(server)


async def test_arms_stick_to_subjects_and_stand_on_the_records_and_their_scores(
    make: Make, server: FaultServer
) -> None:
    app = make()
    version = await put(app, Params(instructions="Say who owns it."))
    experiment = await label(app, BASE, version)
    subjects = [f"user {number}" for number in range(12)]
    first = [await ask(app, subject=subject) for subject in subjects]
    again = [await ask(app, subject=subject) for subject in subjects]
    arms = [record.version for record in first]
    assert set(arms) == {BASE, version.artifact.version}
    assert [record.version for record in again] == arms
    assert {record.experiment for record in first} == {experiment}
    assert [record.subject for record in first] == subjects
    changed = [b"Say who owns it." in call.body for call in server.calls][: len(subjects)]
    assert changed == [arm != BASE for arm in arms]
    # without a subject the principal is one, and else each run stands for itself
    assert len({(await ask(app, principal="key:1")).version for _ in range(6)}) == 1
    assert len({(await ask(app)).version for _ in range(24)}) == 2
    found = [one async for one in app.ledger.records(app.scope, RecordQuery(experiment=experiment, kind="program"))]
    assert len(found) == 12 + 12 + 6 + 24


# -- several processes ----------------------------------------------------------------------------


class Worker:
    """One in a process of its own."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        script = Path(__file__).with_name("release_worker.py")
        command = [sys.executable, str(script), json.dumps(settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)

    def tell(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()

    def heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, *words: str) -> str:
        self.tell(*words)
        return self.heard()

    def end(self) -> int:
        self._process.communicate("", timeout=20)
        return self._process.returncode


@pytest.mark.parametrize("storage", ["sqlite", "postgres"])
def test_a_move_is_seen_in_every_process_in_under_a_second(
    settings: dict[str, Any], tmp_path: Path, storage: str, request: pytest.FixtureRequest
) -> None:
    if storage == "postgres":
        settings |= {"storage": {"database_url": request.getfixturevalue("postgres_url")}}
    workers = [Worker(settings, tmp_path) for _ in range(2)]
    name = workers[0].ask("name")
    assert [worker.ask("run") for worker in workers] == [BASE, BASE]
    app = build(load_settings(tmp_path, {}, settings))
    artifact = replace(params_artifact(Triage.spec, Params(instructions="New.")), name=name)
    version = asyncio.run(_put_and_close(app, artifact))
    delays: list[float] = []
    moves = ((0, ("label", "prod", version), version), (1, ("back",), BASE), (0, ("label", "prod", version), version))
    for mover, words, shows in moves:
        watcher = workers[1 - mover]
        watcher.tell("watch", shows)
        time.sleep(0.1)  # it has looked already, and looks on
        moved = float(workers[mover].ask(*words))
        delays.append(float(watcher.heard()) - moved)
        assert workers[mover].ask("run") == shows  # at once, where the move was made
    assert max(delays) < 1.0
    assert [worker.end() for worker in workers] == [0, 0]


async def _put_and_close(app: App, artifact: Any) -> str:
    version = await app.registry.put(app.scope, artifact, author="a", reason="")
    await app.close()
    return version.artifact.version
