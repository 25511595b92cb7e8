"""The Kaizen loop end to end: a model on a real socket, records and labels on disk, an optimizer, an experiment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from kaizen import Signature, context
from kaizen.app import App, build
from kaizen.app.gateway import gateway_settings
from kaizen.app.learn.loop import change, make_loop, watch
from kaizen.app.learn.optimize import optimize
from kaizen.app.serving import make_gateway
from kaizen.core.answer import Answer
from kaizen.core.artifact import BASE, Arm
from kaizen.core.errors import ConfigError, Conflict, Denied, KaizenError, StoreError
from kaizen.core.params import Params
from kaizen.core.record import RecordQuery
from kaizen.core.request import Embeddings, Options
from kaizen.core.scope import Scope
from kaizen.learn.data.dataset import Dataset
from kaizen.learn.data.rows import Row
from kaizen.learn.experiment.definition import Definition, Rule
from kaizen.learn.loop.loop import Loop
from kaizen.learn.loop.plan import Plan, Watch
from kaizen.learn.loop.seams import Proposal, Wanted
from kaizen.learn.loop.steps import Step
from kaizen.learn.loop.tunable import Tunable, Tuning
from kaizen.learn.metrics.metric import metric
from kaizen.learn.optimize.task import Task
from kaizen.ledger.scores import keep_feedback
from kaizen.registry.params import params_artifact, params_of
from kaizen.registry.registry import PARAMS
from kaizen.serve.doors import Optimizing
from kaizen.serve.http.metrics import Metrics
from kaizen.settings import load_settings, merge
from kaizen.testing.fault_server import FaultServer, status

CAREFUL, CARELESS = "Read with care.", "Guess."


class Triage(Signature):
    """Name the team that owns a bank customer's message."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers"] = context.output("the team that owns it")


NAME = Triage.spec.name
ROWS = [Row({"message": f"message number {number} of old"}, {"team": "cards"}) for number in range(120)]


def reply(request: Any) -> str:
    """As the program: right with care, never when told to guess, else for every other message. As the teacher: care."""
    text = str(request["messages"])
    if "revised" in str(request["response_format"]):
        return '{"revised": "Read with care."}'
    number = int(text.rsplit("message number ", 1)[1].split()[0])
    right = number % 10 > 0 if CAREFUL in text else CARELESS not in text and number % 2 == 0
    return '{"team": "cards"}' if right else '{"team": "transfers"}'


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(reply) as running:
        yield running


@pytest.fixture
async def app(server: FaultServer, tmp_path: Path) -> AsyncIterator[App]:
    provider = {"kind": "openai", "base_url": server.base_url, "api_key": "k"}
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "output_mode": "schema"}
    tree = {"model": "up/model-70b", "home": str(tmp_path / "home"), "providers": {"up": provider}}
    tree |= {"models": {"up/model-70b": prices}, "inference": {"attempts": 1}}
    made = build(load_settings(tmp_path, {}, tree))
    yield made
    await made.close()


async def release(app: App, instructions: str) -> str:
    """A version of the program's params that ``prod`` shows."""
    artifact = params_artifact(Triage.spec, Params(instructions=instructions))
    version = (await app.registry.put(app.scope, artifact, author="human:ada", reason="try")).artifact.version
    await app.registry.label(app.scope, PARAMS, NAME, "prod", [Arm(version)], actor="human:ada", reason="release")
    return version


async def traffic(app: App, first: int, last: int) -> None:
    """Subjects ask, and say whether it was right."""
    for number in range(first, last):
        run = replace(await app.new_run(), subject=f"customer {number}")
        answer = await app.start_run(run, Triage, {"message": f"message number {number} of today"})
        assert isinstance(answer, Answer)
        await keep_feedback(app.ledger, answer.record, float(answer.outputs["team"] == "cards"))


async def begun(app: App, **changes: Any) -> Loop:
    """A loop over the program."""
    loop = make_loop(app, {NAME: Triage})
    data = await app.registry.put(app.scope, Dataset.of("triage", ROWS).artifact(), author="human:ada", reason="rows")
    plan = Plan(
        program=NAME,
        target="triage.py:Triage",
        metric="accuracy",
        rows=data.artifact.ref,
        watch=Watch(floor=0.8, alike=0, feedback=0),
        rule=Rule(scores=1, window_s=0.0),
        optimizer="reflective",
        calls=400,
        asks="never",
    )
    await loop.begin(app.scope, replace(plan, **changes), actor="human:ada")
    return loop


async def actions(loop: Loop, app: App) -> list[str]:
    """What the loop did so far."""
    return [step.action for step in await loop.history(app.scope, NAME)]


async def test_a_bad_release_is_taken_back_with_the_numbers_in_the_move(app: App, server: FaultServer) -> None:
    good = await release(app, CAREFUL)
    loop = await begun(app, watch=Watch(alike=0, feedback=0))
    await traffic(app, 0, 120)
    assert await loop.tick(app.scope, NAME) == []
    bad = await release(app, CARELESS)
    before = server.count
    for number in range(200, 240):
        await traffic(app, number, number + 1)
        if await loop.tick(app.scope, NAME):
            break
    assert server.count - before <= 30, "scored calls of the bad version"
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(good),)
    move = (await app.registry.history(app.scope, PARAMS, NAME, "prod"))[-1]
    assert move.actor == "loop"
    assert move.undoes
    assert bad[:12] in move.reason
    assert "0.9" in move.reason
    server.calls.clear()
    await traffic(app, 300, 301)
    assert CAREFUL in str(server.calls[-1].json["messages"])
    assert await actions(loop, app) == ["rollback"]
    again = make_loop(app, {NAME: Triage})
    assert await again.tick(app.scope, NAME) == [], "another process does not do it again"


async def test_scores_under_the_floor_lead_to_a_better_version_by_an_experiment(app: App, server: FaultServer) -> None:
    loop = await begun(app)
    await traffic(app, 0, 100)
    await loop.tick(app.scope, NAME)
    steps = await loop.history(app.scope, NAME)
    assert [step.action for step in steps] == ["propose", "experiment"]
    assert steps[0].trigger == "floor"
    assert steps[1].usd, "what it cost is on record"
    asked = server.count
    assert asked - 100 <= 400, "the calls of a proposal are bounded"
    arms = await app.registry.arms(app.scope, PARAMS, NAME, "prod")
    assert arms is not None
    assert [arm.version == BASE for arm in arms] == [True, False]

    await traffic(app, 1000, 1320)
    killed = make_loop(app, {NAME: Triage})  # the process died: another goes on from what is on record
    await killed.tick(app.scope, NAME)
    assert (await actions(killed, app))[-1] == "won"
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(steps[1].version),)
    status = await killed.status(app.scope, NAME)
    assert status.version == steps[1].version
    assert (status.state, status.proposals) == ("on", 1)


async def test_a_large_change_waits_for_a_person(app: App) -> None:
    loop = await begun(app, asks="always")
    await traffic(app, 0, 100)
    await loop.tick(app.scope, NAME)
    assert await actions(loop, app) == ["propose", "ask"]
    query = RecordQuery(kind="program", ref=f"kaizen.loop.{NAME}", status="suspended")
    (waiting,) = [one async for one in app.ledger.records(app.scope, query)]
    assert await loop.tick(app.scope, NAME) == []
    asked = await loop.answer(app.scope, NAME, yes=True, actor="human:ada")
    assert asked.id == waiting.id
    await loop.tick(app.scope, NAME)
    assert (await actions(loop, app))[-2:] == ["approved", "experiment"]


async def test_a_person_may_decline_and_stop(app: App) -> None:
    loop = await begun(app, asks="always")
    await traffic(app, 0, 100)
    await loop.tick(app.scope, NAME)
    await loop.answer(app.scope, NAME, yes=False, actor="human:ada", comment="too long")
    await loop.tick(app.scope, NAME)
    assert (await actions(loop, app))[-1] == "declined"
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") is None
    await loop.turn(app.scope, NAME, "paused", actor="human:ada", reason="holiday")
    await traffic(app, 200, 300)
    assert await loop.tick(app.scope, NAME) == []
    assert (await loop.status(app.scope, NAME)).state == "paused"


async def test_no_more_proposals_a_day_than_are_allowed(app: App, server: FaultServer) -> None:
    loop = await begun(app, per_day=0)
    await traffic(app, 0, 100)
    asked = server.count
    await loop.tick(app.scope, NAME)
    await loop.tick(app.scope, NAME)
    assert await actions(loop, app) == ["limit"], "said once"
    assert server.count == asked


async def test_corrections_call_for_a_proposal_that_learns_from_them(app: App, server: FaultServer) -> None:
    loop = await begun(app, watch=Watch(alike=0, feedback=5), asks="always")
    for number in range(6):
        answer = await app.start(Triage, {"message": f"message number {2 * number + 1} of today"})
        assert isinstance(answer, Answer)
        await keep_feedback(app.ledger, answer.record, 0.0, correct={"team": "cards"})
    server.calls.clear()
    steps = await loop.tick(app.scope, NAME)
    assert steps[0].trigger == "feedback"
    assert "6 corrections" in steps[0].said
    prompts = "".join(str(call.json["messages"]) for call in server.calls)
    assert "message number 3 of today" in prompts, "what people corrected is among what is learned from"


async def corrected(app: App, numbers: Iterable[int]) -> None:
    """People say what should have come out."""
    for number in numbers:
        answer = await app.start(Triage, {"message": f"message number {number} of today"})
        assert isinstance(answer, Answer)
        await keep_feedback(app.ledger, answer.record, 0.0, correct={"team": "cards"})


async def test_what_is_kept_for_a_test_is_not_learned_from_though_it_was_corrected(
    app: App, server: FaultServer
) -> None:
    kept = [Row({"message": "message number 3 of today"}, {"team": "cards"})]
    dataset = Dataset.of("triage/test", kept, {"part": "test"})
    await app.registry.put(app.scope, dataset.artifact(), author="human:ada", reason="kept")
    loop = await begun(app, watch=Watch(alike=0, feedback=5), asks="always")
    await corrected(app, range(1, 13, 2))
    server.calls.clear()
    steps = await loop.tick(app.scope, NAME)
    assert steps[0].action == "propose"
    assert steps[-1].action in ("ask", "no gain")
    prompts = "".join(str(call.json["messages"]) for call in server.calls)
    assert "message number 5 of today" in prompts
    assert "message number 3 of today" not in prompts


async def test_corrections_are_counted_however_many_scores_come_between(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaizen.learn.loop.watching._RECENT", 6)
    loop = await begun(app, watch=Watch(alike=0, feedback=5), per_day=0)
    for first in range(0, 50, 10):
        await corrected(app, [first + 1])
        await traffic(app, first, first + 9)
        await loop.tick(app.scope, NAME)
    assert [(step.action, step.trigger) for step in await loop.history(app.scope, NAME)] == [("limit", "feedback")]


async def test_failures_are_counted_past_those_that_are_compared(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.learn.loop.watching._RECENT", 6)
    texts: list[int] = []

    class Points:
        async def embed(self, scope: Scope, given: Sequence[str], /) -> Embeddings:
            texts.append(len(given))
            return Embeddings("scripted", 1, b"\0\0\x80?" * len(given))

    monkeypatch.setattr(app._runner, "_embedder", Points())  # pyright: ignore[reportPrivateUsage] - the App's own
    loop = await begun(app, watch=Watch(alike=4, feedback=0), per_day=0)
    for first in range(0, 50, 10):
        await traffic(app, first, first + 10)  # half of them fail
        await loop.tick(app.scope, NAME)
    assert texts == [6] * 5, "looked for again with every five failures"


async def test_failures_that_are_alike_call_for_a_proposal(app: App) -> None:
    pytest.importorskip("wordllama")
    loop = await begun(app, watch=Watch(alike=6, feedback=0), per_day=0)
    refund, other = "the refund of my order, message number 1 of", "exchange rate of the dollar, message number 2 of"
    for number in range(30):
        text = refund if number % 2 else other
        answer = await app.start(Triage, {"message": f"{text} day {number}"})
        assert isinstance(answer, Answer)
        await keep_feedback(app.ledger, answer.record, float(text == other))
    (step,) = await loop.tick(app.scope, NAME)
    assert (step.action, step.trigger) == ("limit", "failures")
    assert "refund" in step.said


async def test_what_gains_nothing_changes_nothing(app: App) -> None:
    good = await release(app, CAREFUL)
    loop = await begun(app, watch=Watch(floor=0.99, alike=0, feedback=0))
    await traffic(app, 0, 300)
    (begin, end) = await loop.tick(app.scope, NAME)
    assert (begin.action, end.action) == ("propose", "no gain")
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(good),)
    assert await loop.tick(app.scope, NAME) == [], "it was answered"


async def test_a_proposal_that_can_not_be_made_is_told_and_counted(app: App, server: FaultServer) -> None:
    loop = await begun(app)
    await traffic(app, 0, 100)
    server.default = status(401)
    steps = await loop.tick(app.scope, NAME)
    assert [step.action for step in steps] == ["propose", "failed"]
    assert (await loop.status(app.scope, NAME)).usd == 1.0, "what it might have cost is counted"


async def test_a_proposal_that_was_broken_off_is_gone_on_with(app: App, server: FaultServer) -> None:
    loop = await begun(app)
    await traffic(app, 0, 100)
    seen = server.count
    inner = loop._propose  # pyright: ignore[reportPrivateUsage] - a process that dies

    async def dying(wanted: Wanted, /) -> Proposal:
        await inner(wanted)
        raise asyncio.CancelledError

    loop._propose = dying  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(asyncio.CancelledError):
        await loop.tick(app.scope, NAME)
    asked = server.count
    assert asked > seen
    after = make_loop(app, {NAME: Triage})
    assert [step.action for step in await after.tick(app.scope, NAME)] == ["experiment"]
    assert server.count == asked, "nothing that was asked is asked again"


async def test_a_search_does_not_stop_the_watch(app: App, server: FaultServer) -> None:
    good = await release(app, CAREFUL)
    loop = await begun(app, watch=Watch(alike=0, feedback=5))
    await traffic(app, 0, 120)
    await corrected(app, range(501, 511, 2))
    inner, going = loop._propose, asyncio.Event()  # pyright: ignore[reportPrivateUsage] - a search that takes long

    async def slow(wanted: Wanted, /) -> Proposal:
        await going.wait()
        return await inner(wanted)

    loop._propose = slow  # pyright: ignore[reportPrivateUsage]
    assert [step.action for step in await loop.tick(app.scope, NAME, waits=False)] == ["propose"]
    await release(app, CARELESS)
    await traffic(app, 200, 240)
    assert [step.action for step in await loop.tick(app.scope, NAME, waits=False)] == ["rollback"]
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(good),)
    assert await loop.tick(app.scope, NAME, waits=False) == [], "one search at a time"
    going.set()
    async with asyncio.timeout(20):
        steps = await loop.tick(app.scope, NAME)
    assert steps[0].action in ("experiment", "no gain")
    await loop.close()


async def test_a_loop_that_is_paused_or_closed_breaks_its_search_off(app: App) -> None:
    loop = await begun(app)
    await traffic(app, 0, 100)
    ended: list[str] = []

    async def endless(wanted: Wanted, /) -> Proposal:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(wanted.run_id)
        raise AssertionError("it is broken off")

    loop._propose = endless  # pyright: ignore[reportPrivateUsage] - a search that takes long
    [step] = await loop.tick(app.scope, NAME, waits=False)
    await asyncio.sleep(0)
    await loop.turn(app.scope, NAME, "paused", actor="human:ada", reason="too dear")
    await loop.tick(app.scope, NAME, waits=False)
    assert ended == [step.run_id]
    await loop.turn(app.scope, NAME, "on", actor="human:ada", reason="go on")
    assert await loop.tick(app.scope, NAME, waits=False) == [], "the same run goes on"
    await asyncio.sleep(0)
    await loop.close()
    assert ended == [step.run_id] * 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Conflict("run 1 was begun with other data"), "begun with other data"),  # another plan's run is nobody's
        (ZeroDivisionError("of a metric"), "config_error: the search failed with ZeroDivisionError"),
    ],
)
async def test_a_search_computes_in_a_thread_of_its_own_and_one_that_fails_is_counted(
    app: App, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    threads: list[str] = []

    async def found(app: App, wanted: Optimizing) -> Any:
        threads.append(threading.current_thread().name)
        raise error

    monkeypatch.setattr("kaizen.app.learn.loop.optimize", found)
    loop = await begun(app, per_day=1)
    await traffic(app, 0, 100)
    for _ in range(2):
        await loop.tick(app.scope, NAME)
    assert threads == ["kaizen-proposal"], "it is not searched for again"
    steps = await loop.history(app.scope, NAME)
    assert [step.action for step in steps] == ["propose", "failed"]
    assert said in steps[1].said
    await traffic(app, 200, 300)
    await loop.tick(app.scope, NAME)
    assert (await actions(loop, app))[2:] == ["limit"], "its caps hold"
    assert len(threads) == 1


async def test_a_proposal_in_other_hands_is_theirs_however_long_it_takes(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = await begun(app)
    await traffic(app, 0, 100)
    refusal: KaizenError = Conflict("another process works on it")

    async def refused(wanted: Wanted, /) -> Proposal:
        raise refusal

    loop._propose = refused  # pyright: ignore[reportPrivateUsage]
    inner = loop._keep  # pyright: ignore[reportPrivateUsage]

    async def beside(scope: Scope, plan: Plan, step: Step) -> None:
        await inner(scope, plan, step)
        if step.action == "propose":
            await inner(scope, plan, Step(action="limit", said="another process, at the same moment"))

    loop._keep = beside  # pyright: ignore[reportPrivateUsage]
    assert [step.action for step in await loop.tick(app.scope, NAME)] == ["propose", "limit"]
    monkeypatch.setattr("kaizen.learn.loop.loop._GIVEN_UP_S", 0.0)
    assert await loop.tick(app.scope, NAME) == []
    refusal = Denied("somebody has to say yes")
    assert [step.action for step in await loop.tick(app.scope, NAME)] == ["failed"], "what is not allowed runs out"


async def approved(app: App) -> tuple[Loop, str]:
    """A loop whose change a person said yes to; and the version."""
    loop = await begun(app, asks="always")
    await traffic(app, 0, 100)
    steps = await loop.tick(app.scope, NAME)
    await loop.answer(app.scope, NAME, yes=True, actor="human:ada")
    return loop, steps[-1].version


@pytest.mark.parametrize("error", [asyncio.CancelledError(), StoreError("the disk is full"), Conflict("it has moved")])
async def test_an_approved_change_is_tried_though_the_first_try_was_broken_off(
    app: App, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    loop, _ = await approved(app)

    async def broken(*given: Any, **more: Any) -> Any:
        await release(app, CARELESS)  # the label moves at the same time
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(loop.experiments, "start", broken)
        if isinstance(error, Conflict):
            await loop.tick(app.scope, NAME)
        else:
            with pytest.raises(type(error)):
                await loop.tick(app.scope, NAME)
    assert (await actions(loop, app))[-1] == "approved"
    after = make_loop(app, {NAME: Triage})
    assert [step.action for step in await after.tick(app.scope, NAME)] == ["experiment"]


async def test_an_approved_change_that_can_not_be_tried_is_told_once(app: App) -> None:
    loop, version = await approved(app)
    await app.registry.label(app.scope, PARAMS, NAME, "prod", [Arm(version)], actor="human:ada", reason="at once")
    steps = await loop.tick(app.scope, NAME)
    assert [step.action for step in steps] == ["approved", "failed"]
    assert "one version in two arms" in steps[-1].said
    assert await loop.tick(app.scope, NAME) == []


async def test_a_conflict_that_will_not_pass_is_told_once(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, _ = await approved(app)

    async def refused(*given: Any, **more: Any) -> Any:
        raise Conflict("they were made for different contracts")

    monkeypatch.setattr(loop.experiments, "start", refused)
    assert [step.action for step in await loop.tick(app.scope, NAME)] == ["approved", "failed"]
    assert await loop.tick(app.scope, NAME) == []


async def test_a_look_that_failed_loses_neither_releases_nor_scores(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = await begun(app, watch=Watch(alike=0, feedback=0))
    await loop.tick(app.scope, NAME)
    version = await release(app, CAREFUL)
    await traffic(app, 0, 20)
    inner, fails = app.ledger.store.record, [True]

    async def flaky(*given: Any) -> Any:
        if fails.pop():
            raise StoreError("the disk is full")
        fails.append(False)
        return await inner(*given)

    monkeypatch.setattr(app.ledger.store, "record", flaky)
    with pytest.raises(StoreError):
        await loop.tick(app.scope, NAME)
    fails.append(False)
    status = await loop.status(app.scope, NAME)
    assert status.version == version
    assert status.recent[0] == 20


async def test_an_unmeasured_judge_decides_about_no_version(app: App, server: FaultServer) -> None:
    judge = metric("judge:up/model-70b", Triage.spec)
    wanted = Optimizing(program=Triage, train=tuple(ROWS[:10]), val=tuple(ROWS[10:20]), metric=judge, calls=100)
    with pytest.raises(Denied, match="was never measured"):
        await optimize(app, wanted)
    assert server.count == 0


async def test_a_loop_moves_the_parameters_that_it_may_and_nothing_else(app: App, server: FaultServer) -> None:
    tunables = (Tunable("instructions", choices=(CAREFUL, CARELESS)), Tunable("temperature", 0, 1))
    loop = await begun(app, optimizer="tuning", tunables=tunables)
    await traffic(app, 0, 100)
    steps = await loop.tick(app.scope, NAME)
    assert [step.action for step in steps] == ["propose", "experiment"]
    version = await app.registry.version(app.scope, PARAMS, NAME, steps[1].version)
    params = params_of(version.artifact)
    assert params.instructions == CAREFUL
    assert not params.demos
    assert params.temperature is None or 0 <= params.temperature <= 1


async def test_a_control_that_turns_bad_ends_its_experiment_too(app: App) -> None:
    good = await release(app, CAREFUL)
    loop = await begun(app, watch=Watch(alike=0, feedback=0))
    await traffic(app, 0, 150)
    await loop.tick(app.scope, NAME)
    bad = await release(app, CARELESS)
    arms = (Arm(bad, 0.5), Arm(BASE, 0.5))
    definition = Definition(program=NAME, arms=arms, metric="feedback", begun=0.0, rule=Rule(guards=()))
    await loop.experiments.start(app.scope, definition, actor="human:ada")
    await traffic(app, 200, 260)
    (step,) = await loop.tick(app.scope, NAME)
    assert step.action == "rollback"
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(good),)
    assert (await loop.experiments.status(app.scope, NAME)).state == "stopped"  # pyright: ignore[reportOptionalMemberAccess]


async def test_a_release_that_turns_bad_after_its_experiment_ended_is_taken_back(app: App) -> None:
    good = await release(app, CAREFUL)
    loop = await begun(app, watch=Watch(alike=0, feedback=0))
    await traffic(app, 0, 150)
    await loop.tick(app.scope, NAME)
    bad = await release(app, CARELESS)
    definition = Definition(program=NAME, arms=(Arm(bad, 0.5), Arm(BASE, 0.5)), metric="feedback", begun=0.0)
    await loop.experiments.start(app.scope, definition, actor="human:ada")
    await loop.experiments.stop(app.scope, NAME, actor="human:ada", reason="enough")
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(bad),), "its last move shows it again"
    await traffic(app, 200, 240)
    (step,) = await loop.tick(app.scope, NAME)
    assert step.action == "rollback"
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(good),)


async def test_parameters_are_tuned_within_their_bounds(app: App, server: FaultServer) -> None:
    tunables = [Tunable("instructions", choices=(CAREFUL, CARELESS)), Tunable("temperature", 0.0, 0.5)]
    found = await optimize(
        app,
        Optimizing(
            program=Triage,
            train=tuple(ROWS[:10]),
            val=tuple(ROWS[10:50]),
            test=tuple(ROWS[50:80]),
            metric=metric("accuracy", Triage.spec),
            optimizer=Tuning(tunables, tries=8),
            calls=600,
        ),
    )
    assert found.report.improved
    assert CAREFUL in found.report.params[NAME]
    warmth = [call.json["temperature"] for call in server.calls if call.json.get("temperature") is not None]
    assert warmth
    assert all(0 <= one <= 0.5 for one in warmth)
    small = Tuning(tunables, tries=4)
    assert small.estimate(Task(program=Triage, train=(), val=tuple(ROWS[:5]), metric=Triage), 2.0) == 40


async def test_a_gateway_looks_at_every_loop_and_experiment_and_one_mistake_stops_no_other(
    app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere.py").write_text("", "utf-8")
    careful = await release(app, CAREFUL)
    loop = await begun(app)
    broken = replace(
        Plan(program="gone.Program", target="gone.py:Program", metric="accuracy", rows="dataset/triage@none"),
        watch=Watch(floor=0.9, least=1, window=1),
    )
    await loop.begin(app.scope, broken, actor="human:ada")
    definition = Definition(
        program=NAME,
        arms=(Arm(BASE, 0.5), Arm(careful, 0.5)),
        metric="feedback",
        begun=0.0,
        rule=Rule(scores=1, window_s=0.0),
    )
    await loop.turn(app.scope, NAME, "paused", actor="human:ada", reason="by hand")
    await loop.experiments.start(app.scope, definition, actor="human:ada")
    await traffic(app, 0, 260)
    told: list[str] = []
    await watch(loop, app.scope, every=None, told=lambda program, said: told.append(f"{program} {said}"))
    assert len(told) == 1
    assert told[0].startswith(f"{NAME} experiment 1 won")
    watching = asyncio.ensure_future(watch(loop, app.scope, every=0.01))
    await asyncio.sleep(0.1)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_without_contents_there_is_no_loop(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {}, {"home": str(tmp_path / "bare"), "ledger": {"payloads": False}})
    bare = build(settings)
    with pytest.raises(ConfigError, match="payloads"):
        make_loop(bare)
    await bare.close()


def test_what_is_large_about_a_change_is_said() -> None:
    before = Params(instructions="Name the team that owns it.")
    assert change(before, replace(before, temperature=0.5), "") == ""
    assert "rewritten" in change(Params(), Params(instructions="Guess."), "Name the team that owns it.")
    assert "another model, up/large" in change(before, replace(before, model="up/large"), "")
    assert "layers" in change(before, replace(before, options=Options(semantic=True)), "")


@pytest.mark.parametrize("payloads", [True, False])
async def test_a_gateway_looks_after_what_runs(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payloads: bool
) -> None:
    careful = await release(app, CAREFUL)
    loop = make_loop(app)
    arms = (Arm(BASE, 0.5), Arm(careful, 0.5))
    rule = Rule(scores=1, window_s=0.0)
    definition = Definition(program=NAME, arms=arms, metric="feedback", begun=0.0, rule=rule)
    await loop.experiments.start(app.scope, definition, actor="human:ada")
    await traffic(app, 0, 260)
    monkeypatch.setattr("kaizen.app.learn.loop.EVERY_S", 0.02)
    (tmp_path / "counts").mkdir()
    # without contents there are no loops, and experiments are judged all the same
    settings = gateway_settings(merge(app.settings, {"ledger": {"payloads": payloads}}))
    gateway = make_gateway(settings, Metrics(tmp_path / "counts", 0), local=True, loops=True)
    ending = asyncio.Event()
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        if "lifespan.startup.complete" in said:
            await ending.wait()
            return {"type": "lifespan.shutdown"}
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    living = asyncio.ensure_future(gateway({"type": "lifespan"}, receive, send))
    for _ in range(200):
        await asyncio.sleep(0.05)
        if await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(careful),):
            break
    ending.set()
    await living
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(careful),)
    assert said[-1] == "lifespan.shutdown.complete"


async def test_the_program_is_loaded_from_its_file_when_it_is_needed(app: App, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "from kaizen import Signature, context\n\n\nclass Other(Signature):\n"
        '    """Another."""\n\n    text: str = context.input("a")\n    more: str = context.output("b")\n',
        "utf-8",
    )
    loop = make_loop(app)
    data = await app.registry.put(app.scope, Dataset.of("triage", ROWS).artifact(), author="human:ada", reason="rows")
    target = f"{tmp_path / 'other.py'}:Other"
    watching = Watch(floor=0.8, alike=0, feedback=0)
    plan = Plan(program=NAME, target=target, metric="accuracy", rows=data.artifact.ref, watch=watching)
    await loop.begin(app.scope, plan, actor="human:ada")
    await traffic(app, 0, 100)
    steps = await loop.tick(app.scope, NAME)
    assert [step.action for step in steps] == ["propose", "failed"]
    assert "other.Other, and the loop is over" in steps[1].said
