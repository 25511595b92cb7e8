"""Evaluations as runs: the version to run, the budget, what is on record already, and the report in the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kaizen.core.artifact import BASE
from kaizen.core.errors import Denied, NotFound
from kaizen.core.protocols import Suspended
from kaizen.core.record import Record
from kaizen.learn.data.curate import OWN
from kaizen.learn.evaluate.plan import Evaluating, Plan, Told
from kaizen.learn.evaluate.result import Evaluation
from kaizen.stores.allowances import FileAllowance, Limits

if TYPE_CHECKING:
    from kaizen.app import App

_ROOT = "0"
_PRINCIPAL = f"{OWN}eval"


async def evaluate_plan(app: App, plan: Plan, told: Told | None = None) -> Sequence[Evaluation]:
    """Do what a plan says, as one run.

    Args:
        app: where.
        plan: what.
        told: hears of each row.

    Returns:
        An evaluation for each of the plan's versions. Each is kept in the registry.

    Raises:
        NotFound: the run to go on with has nothing on record, or there is no such version.
        Conflict: the run was another evaluation, or another process works on it.
        BudgetExceeded: see ``evaluate``.
        Denied: policy asks for somebody's word first.
    """
    name = plan.program.spec.name
    views = [await app.releases.at(app.scope, name, version) for version in plan.versions]
    run = await app.new_run(plan.run_id)
    replay = _resumable(plan.run_id, run.replay or {}) if plan.resume else None
    # it stands for itself: an experiment's arm is drawn for each evaluation, not once for all
    run = replace(run, replay=replay, principal=_PRINCIPAL, subject=run.run_id)
    allowance = FileAllowance(app.settings.home / "allowances.db", app.scope, run.run_id, Limits(calls=plan.calls))
    subject = run.stands_for
    versions = [None if (shown := view.resolve(name, subject)) is None else shown.ref for view in views]
    await allowance.open(f"{plan.digest} {versions}")
    async with allowance:
        run = replace(run, releases=views[0], allowance=allowance if plan.calls is not None else None)
        work = Evaluating(plan, views, told)
        answer = await app.start_run(run, work, work.inputs)
    if isinstance(answer, Suspended):
        raise Denied(
            f"run {answer.run_id} waits for approval: {answer.question}",
            detail={"run_id": answer.run_id, "step": answer.step},
        )
    for found, version in zip(work.found, versions, strict=True):
        parents = () if version is None or version.endswith(f"@{BASE}") else (version,)
        reason = f"{found.metric} on {plan.source or plan.data}"
        await app.registry.put(app.scope, found.artifact(parents), author="eval", reason=reason)
    return work.found


def _resumable(run_id: str, replay: Mapping[str, Record]) -> Mapping[str, Record]:
    """What the run has on record, but for the whole of it: its rows are what the report is made of.

    Raises:
        NotFound: it has nothing.
    """
    if not replay:
        raise NotFound(f"run {run_id} has nothing on record to go on with")
    return {step: record for step, record in replay.items() if step != _ROOT}
