"""Experiments end to end: a model on a real socket whose answers depend on the prompt, subjects, feedback, labels."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from kaizen import Signature, context, program
from kaizen.app import App, build
from kaizen.app.learn.evaluations import evaluate_plan
from kaizen.core.answer import Answer
from kaizen.core.artifact import BASE, Arm
from kaizen.core.errors import Conflict, KaizenError, NotFound
from kaizen.core.params import Params
from kaizen.core.record import RecordQuery
from kaizen.learn.data.rows import Row
from kaizen.learn.evaluate.plan import Plan
from kaizen.learn.experiment.definition import Definition, Rule
from kaizen.learn.experiment.experiments import Experiments, arms_of
from kaizen.learn.metrics.metric import metric
from kaizen.ledger.scores import keep_feedback
from kaizen.registry.params import params_artifact
from kaizen.registry.registry import PARAMS
from kaizen.settings import load_settings
from kaizen.testing.fault_server import FaultServer, status

RULE = Rule(scores=1, window_s=0.0)
CAREFUL, CARELESS = "Read with care.", "Guess."


class Triage(Signature):
    """Name the team that owns a bank customer's message."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers"] = context.output("the team that owns it")


NAME = Triage.spec.name


def reply(request: Any) -> str:
    """Right with care; else right for every other message."""
    text = str(request["messages"])
    number = int(text.rsplit("message number ", 1)[1].split()[0])
    right = CAREFUL in text or (CARELESS not in text and number % 2 == 0)
    return '{"team": "cards"}' if right else '{"team": "transfers"}'


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(reply) as running:
        yield running


@pytest.fixture
async def app(server: FaultServer, tmp_path: Path) -> AsyncIterator[App]:
    provider = {"kind": "openai", "base_url": server.base_url, "api_key": "k"}
    tree = {"model": "up/model", "home": str(tmp_path / "home"), "providers": {"up": provider}}
    made = build(load_settings(tmp_path, {}, {**tree, "inference": {"attempts": 1}}))
    yield made
    await made.close()


async def version(app: App, instructions: str) -> str:
    """A version of the program's params."""
    artifact = params_artifact(Triage.spec, Params(instructions=instructions))
    return (await app.registry.put(app.scope, artifact, author="human:ada", reason=instructions)).artifact.version


async def visit(app: App, number: int, *, scored: bool = True) -> Answer | None:
    """A subject asks, and says whether it was right."""
    run = replace(await app.new_run(), subject=f"customer {number}")
    try:
        answer = await app.start_run(run, Triage, {"message": f"message number {number} of today"})
    except KaizenError:
        return None
    assert isinstance(answer, Answer)
    if scored:
        await keep_feedback(app.ledger, answer.record, float(answer.outputs["team"] == "cards"))
    return answer


def definition(*versions: str, rule: Rule = RULE) -> Definition:
    """Even shares of some versions."""
    arms = tuple(Arm(one, 1 / len(versions)) for one in versions)
    return Definition(program=NAME, arms=arms, metric="feedback", begun=0.0, rule=rule)


async def test_the_better_arm_is_promoted_with_its_numbers_in_the_move(app: App, server: FaultServer) -> None:
    careful = await version(app, CAREFUL)
    experiments = Experiments(app.ledger, app.registry)
    await experiments.start(app.scope, definition(BASE, careful), actor="human:ada")
    for number in range(260):
        await visit(app, number)

    prompts = [str(call.json["messages"]) for call in server.calls]
    served = sum(CAREFUL in prompt for prompt in prompts)
    assert server.count == 260
    assert 90 <= served <= 170, "both arms were asked for upstream"

    ended = await experiments.step(app.scope, NAME)
    assert ended is not None
    assert ended.state == "won"
    assert [one.subjects for one in ended.standings][1] <= served
    move = (await app.registry.history(app.scope, PARAMS, NAME, "prod"))[-1]
    assert move.arms == (Arm(careful),)
    assert move.actor.startswith("experiment:")
    assert "difference +0." in move.reason
    assert await experiments.step(app.scope, NAME) is None

    server.calls.clear()
    await visit(app, 1)
    assert CAREFUL in str(server.calls[-1].json["messages"]), "who had the other arm gets the winner"


async def test_another_process_comes_to_the_same_end(app: App) -> None:
    careful = await version(app, CAREFUL)
    await Experiments(app.ledger, app.registry).start(app.scope, definition(BASE, careful), actor="human:ada")
    for number in range(260):
        await visit(app, number)
    watched = Experiments(app.ledger, app.registry)
    assert (await watched.status(app.scope, NAME)).state == "running"  # pyright: ignore[reportOptionalMemberAccess]
    first = await Experiments(app.ledger, app.registry).step(app.scope, NAME)
    status_after = await watched.status(app.scope, NAME)
    assert first is not None
    assert status_after is not None
    assert (status_after.state, status_after.reason) == (first.state, first.reason)


async def test_a_candidate_whose_calls_fail_is_stopped_by_its_guard(app: App, server: FaultServer) -> None:
    careful = await version(app, CAREFUL)
    experiments = Experiments(app.ledger, app.registry)
    await experiments.start(app.scope, definition(BASE, careful), actor="human:ada")
    for number in range(80):
        view = await app.releases.ready(app.scope)
        shown = view.resolve(NAME, f"customer {number}")
        if shown is not None and shown.arm == 1:
            server.queue(status(400))
        await visit(app, number)
    ended = await experiments.step(app.scope, NAME)
    assert ended is not None
    assert ended.state == "stopped"
    assert "failed" in ended.reason
    assert sum(one.subjects for one in ended.standings) < 100, "before it could win or lose"
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(BASE),)


async def test_calls_of_an_evaluation_are_no_subjects(app: App) -> None:
    careful = await version(app, CAREFUL)
    experiments = Experiments(app.ledger, app.registry)
    await experiments.start(app.scope, definition(BASE, careful), actor="human:ada")
    rows = [Row({"message": f"message number {number} of today"}, {"team": "cards"}) for number in range(5)]
    plan = Plan(program=Triage, rows=rows, metric=metric("accuracy", Triage.spec))
    await evaluate_plan(app, plan)
    answer = await visit(app, 3)
    assert answer is not None
    running = await experiments.status(app.scope, NAME)
    assert running is not None
    assert sum(one.calls for one in running.standings) == 1
    scores = [one async for one in app.ledger.records(app.scope, RecordQuery(kind="score"))]
    assert len(scores) == 6


async def test_only_one_runs_and_a_label_moved_by_hand_ends_it(app: App) -> None:
    careful = await version(app, CAREFUL)
    careless = await version(app, CARELESS)
    experiments = Experiments(app.ledger, app.registry)
    assert await experiments.status(app.scope, NAME) is None
    await experiments.start(app.scope, definition(BASE, careful), actor="human:ada")
    with pytest.raises(Conflict, match="is running"):
        await experiments.start(app.scope, definition(BASE, careless), actor="human:ada")
    await app.registry.label(app.scope, PARAMS, NAME, "prod", [Arm(careless)], actor="human:bob", reason="urgent")
    ended = await experiments.step(app.scope, NAME)
    assert ended is not None
    assert (ended.state, ended.reason) == ("stopped", "prod was moved by human:bob while it ran: urgent")
    assert await app.registry.arms(app.scope, PARAMS, NAME, "prod") == (Arm(careless),)
    with pytest.raises(NotFound):
        await experiments.stop(app.scope, NAME, actor="human:ada", reason="it is over")


async def test_arms_are_written_as_versions_and_shares(app: App) -> None:
    careful = await version(app, CAREFUL)
    arms = await arms_of(app.registry, app.scope, NAME, "prod=0.9, latest=0.1", "prod")
    assert arms == (Arm(BASE, 0.9), Arm(careful, 0.1))
    assert await arms_of(app.registry, app.scope, NAME, "1=0.5,base=0.5", "prod") == (Arm(careful, 0.5), Arm(BASE, 0.5))
    with pytest.raises(KaizenError, match="is no arm"):
        await arms_of(app.registry, app.scope, NAME, "prod", "prod")
    with pytest.raises(NotFound):
        await arms_of(app.registry, app.scope, NAME, "prod=0.5,7=0.5", "prod")


async def test_an_experiment_that_can_not_split_its_label_is_over_at_once(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    careful = await version(app, CAREFUL)
    experiments = Experiments(app.ledger, app.registry)
    with pytest.raises(NotFound, match="has no version"):
        await experiments.start(app.scope, definition(BASE, "f" * 32), actor="human:ada")
    label = app.registry.label

    async def moved(scope: Any, kind: str, *words: Any, **more: Any) -> Any:
        if kind == PARAMS:
            raise Conflict("the label has moved since")
        return await label(scope, kind, *words, **more)

    monkeypatch.setattr(app.registry, "label", moved)
    with pytest.raises(Conflict, match="moved"):
        await experiments.start(app.scope, definition(BASE, careful), actor="human:ada")
    monkeypatch.undo()
    assert await experiments.step(app.scope, NAME) is None
    found = await experiments.status(app.scope, NAME)
    assert found is not None
    assert (found.state, found.reason) == ("stopped", "its traffic could not be split")


async def test_one_that_died_before_it_split_its_label_is_stopped(app: App) -> None:
    careful = await version(app, CAREFUL)
    artifact = definition(BASE, careful).artifact()
    kept = await app.registry.put(app.scope, artifact, author="human:ada", reason="died")
    arms = [Arm(kept.artifact.version)]
    await app.registry.label(app.scope, "experiment", NAME, "running", arms, actor="human:ada", reason="begun")
    now = time.time()
    experiments = Experiments(app.ledger, app.registry, clock=lambda: now)
    assert await experiments.programs(app.scope) == [NAME]
    waiting = await experiments.step(app.scope, NAME)
    assert waiting is not None
    assert waiting.state == "running", "who marked it may be about to split the label"
    now += 61
    ended = await experiments.step(app.scope, NAME)
    assert ended is not None
    assert (ended.state, ended.standings) == ("stopped", [])


async def test_calls_below_a_users_program_count_and_those_of_other_programs_do_not(app: App) -> None:
    careful = await version(app, CAREFUL)
    experiments = Experiments(app.ledger, app.registry)
    await experiments.start(app.scope, definition(BASE, careful), actor="human:ada")

    @program
    async def front(number: int) -> str:
        """Asks the desk."""
        answer = await Triage(message=f"message number {number} of today")
        await keep_feedback(app.ledger, answer.record, 1.0)
        return answer.team

    run = replace(await app.new_run(), subject="customer 1")
    outer = await app.start_run(run, front, {"number": 4})
    assert isinstance(outer, Answer)
    await keep_feedback(app.ledger, outer.record, 0.0)
    running = await experiments.status(app.scope, NAME)
    assert running is not None
    assert sum(one.calls for one in running.standings) == 1
    assert [one.score for one in running.standings if one.subjects] == [1.0]
