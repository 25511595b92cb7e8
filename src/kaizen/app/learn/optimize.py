"""An optimizer's run, joined with the ledger, the registry and the durable count of its requests."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from kaizen.app.adapters import DEFAULT_MODEL, endpoint_of, own_prices
from kaizen.core.artifact import Arm, Artifact, Version
from kaizen.core.errors import Denied, NotFound
from kaizen.core.ids import new_id
from kaizen.core.protocols import Suspended
from kaizen.core.record import RecordQuery
from kaizen.core.request import Usage
from kaizen.inference.ceiling import Ceiling
from kaizen.inference.endpoint import Endpoint
from kaizen.inference.prices import PriceTable
from kaizen.learn.budget import parted
from kaizen.learn.data.dataset import Sealed
from kaizen.learn.data.guard import refuse_tests
from kaizen.learn.evaluate.gate import may_decide
from kaizen.learn.evaluate.judging import name_of
from kaizen.learn.optimize.board import KIND, Board
from kaizen.learn.optimize.compose import Ranked, is_strong, search_named
from kaizen.learn.optimize.task import Task
from kaizen.learn.ranking import Past, past_of
from kaizen.learn.study import Plan, Study
from kaizen.learn.verdict import Report, report_of
from kaizen.registry.registry import PROD
from kaizen.registry.releases import NO_RELEASES
from kaizen.serve.doors import Optimized, Optimizing
from kaizen.stores.allowances import FileAllowance, Limits, Taken

if TYPE_CHECKING:
    from kaizen.app import App

_PAST: Final = 1000
_AT_ONCE: Final = 8


async def optimize(app: App, wanted: Optimizing) -> Optimized:
    """Make a program better: search, choose, test once, and keep the winner as a version.

    The run goes on where it was if it was begun before: what is on record is not asked again.

    Raises:
        Conflict: another process works on the run, or it was begun with another plan; or test rows are to be learned
            from.
        NotFound: there is no such run to go on with.
        Denied: policy asks for somebody's word, rows are kept for a test, or the metric asks a judge that may not
            decide anything.
    """
    await may_decide(app.registry, app.scope, wanted.metric)
    await refuse_tests(app.registry, app.scope, (*wanted.train, *wanted.val))
    run_id = wanted.run_id or new_id()
    replay = await app.ledger.steps(app.scope, run_id, useless=True)
    allowance = _allowance(app, wanted, run_id)
    plan = _plan(app, wanted, run_id)
    study = Study(
        plan,
        told=wanted.told,
        narrow=lambda calls: allowance.narrow(replace(allowance.limits, calls=calls)),
        keep=partial(_keep_candidates, app, plan),
    )
    try:
        if wanted.resumed and not await allowance.known():
            raise NotFound(f"there is no optimizer's run {run_id} to go on with in {app.scope}")
        await allowance.open(plan.version)
        wanted.begun(run_id, plan.search.estimate(plan.task, 1.0), len(plan.task.val))
        seconds = allowance.left_seconds()
        run = replace(
            await app.new_run(run_id),
            replay=replay or None,
            allowance=allowance,
            deadline=None if seconds is None else time.monotonic() + seconds,
            releases=NO_RELEASES,  # a search starts from the code, or from what it is given, whatever is released
        )
        answer = await app.start_run(run, study, {"plan": plan.version})
    finally:
        taken = await allowance.close()
    if isinstance(answer, Suspended):
        detail = {"run_id": answer.run_id, "step": answer.step}
        raise Denied(f"run {run_id} waits for approval: {answer.question}", detail=detail)
    report = report_of(answer.outputs["report"])
    # a run that was over already may be told again long afterwards: what was done with the label since then stands
    over = answer.record.started_at + answer.record.latency_ms / 1000 if study.board is None else None
    versions, released = await _keep_winner(app, wanted, report, run_id, over)
    return await _optimized(app, run_id, report, taken, versions, released=released)


def _plan(app: App, wanted: Optimizing, run_id: str) -> Plan:
    settings = app.settings
    endpoints = {name: endpoint_of(one) for name, one in settings.providers.items()}

    def embedded(ref: str) -> bool:
        return endpoints.get(ref.partition("/")[0], Endpoint("openai")).kind == "embedded"

    def strong(ref: str) -> bool:
        return is_strong(ref, embedded=embedded(ref))

    shares = parted(wanted.calls, len(wanted.test))
    task = Task(
        program=wanted.program,
        train=wanted.train,
        val=wanted.val,
        metric=wanted.metric,
        seed=wanted.seed,
        teacher=wanted.teacher,
        models=wanted.models,
        concurrency=wanted.concurrency or (1 if embedded(settings.model or DEFAULT_MODEL) else _AT_ONCE),
        start=wanted.start,
        cached=settings.inference.exact.enabled is not False,
    ).within(shares.search)
    search = search_named(wanted.optimizer) if isinstance(wanted.optimizer, str) else wanted.optimizer
    test = Sealed(wanted.test) if wanted.test else None
    return Plan(
        task=task,
        search=search,
        shares=shares,
        tokens=wanted.tokens,
        usd=wanted.usd,
        test=test,
        openings=None if test is None else partial(test.openings, app.ledger, app.scope, besides=run_id),
        run_id=run_id,
        strong=strong,
        past=partial(_past, app, run_id) if isinstance(search, Ranked) else None,
    )


async def _past(app: App, run_id: str) -> Sequence[Past]:
    """The candidates of past runs, the latest of them."""
    heads = sorted(await app.registry.heads(app.scope, KIND), key=lambda head: head.at)[-_PAST:]
    found: list[Past] = []
    for head in heads:
        version = await app.registry.archive.find(app.scope, KIND, head.name, head.version)
        past = None if version is None else past_of(version.artifact)
        if past is not None and past.run != run_id:
            found.append(past)
    return found


def _allowance(app: App, wanted: Optimizing, run_id: str) -> FileAllowance:
    """The durable count, in a file of its own beside the ledger.

    Not in the ledger: that is only ever added to, once a call is over, and this is changed before it is sent.
    """
    settings = app.settings
    endpoints = {name: endpoint_of(one) for name, one in settings.providers.items()}
    prices = PriceTable(own_prices(settings), endpoints)
    written = {ref: model.max_output_tokens for ref, model in settings.models.items()}

    def price(ref: str, usage: Usage) -> float | None:
        found = (prices.quote(ref) or prices.look_up(ref)).price
        return None if found is None else found.cost(usage)

    return FileAllowance(
        settings.home.absolute() / "allowances.db",
        app.scope,
        run_id,
        Limits(calls=wanted.calls, tokens=wanted.tokens, usd=wanted.usd, seconds=wanted.seconds),
        bound=Ceiling(prices, written),
        price=price,
    )


async def _keep_candidates(app: App, plan: Plan, board: Board) -> None:
    """Every candidate that was scored, whether the run came to its end or not."""
    name = plan.search.name
    about = {"optimizer": name, "run": plan.run_id, "metric": name_of(plan.task.metric)}
    for artifact in board.artifacts(about):
        await app.registry.put(app.scope, artifact, author=f"optimizer:{name}", reason="tried")


async def _keep_winner(
    app: App, wanted: Optimizing, report: Report, run_id: str, over: float | None
) -> tuple[Mapping[str, int], bool]:
    """The winner's params as a version of each program they are for; with ``release`` the label moves to it as well.

    Args:
        app: where they are kept.
        wanted: what was asked for.
        report: what was found.
        run_id: the run.
        over: when it was over, Unix seconds, if that was before it was asked for; None where it has just ended.

    Returns:
        The versions' numbers by program name, and whether they are what is released now.
    """
    author = f"optimizer:{report.optimizer}"
    figures = report.test or report.chosen_on
    shown = "" if figures is None else f"; {figures.before:.3f} to {figures.after:.3f} on {figures.rows} rows"
    reason = f"{report.how}: {report.reason}{shown} (run {run_id})"
    versions: dict[str, int] = {}
    released = wanted.release and bool(report.params)
    for name, body in report.params.items():
        version = await app.registry.put(
            app.scope, Artifact("params", name, body.encode()), author=author, reason=reason
        )
        versions[name] = version.number
        if wanted.release:
            released &= await _release(app, version, author, reason, over)
    return versions, released


async def _release(app: App, version: Version, author: str, reason: str, over: float | None) -> bool:
    """Have ``prod`` show a version, unless it was moved after the run was over; whether it shows it."""
    name, arms = version.artifact.name, (Arm(version.artifact.version),)
    since = None
    if over is not None:
        moves = await app.registry.history(app.scope, "params", name, PROD)
        if moves and moves[-1].at >= over:
            return moves[-1].arms == arms
        since = moves[-1].id if moves else ""
    await app.registry.label(app.scope, "params", name, PROD, arms, actor=author, reason=reason, since=since)
    return True


async def _optimized(
    app: App, run_id: str, report: Report, taken: Taken, versions: Mapping[str, int], *, released: bool
) -> Optimized:
    usd: float | None = 0.0
    tokens = 0
    async for record in app.ledger.records(app.scope, RecordQuery(run_id=run_id, kind="model")):
        tokens += record.tokens_in + record.tokens_out if record.cache_tier == "model" else 0
        if record.status == "ok":
            usd = None if usd is None or record.cost_usd is None else usd + record.cost_usd
    return Optimized(
        run_id=run_id,
        report=report,
        calls=taken.calls,
        tokens=tokens,
        seconds=taken.seconds,
        usd=usd,
        versions=versions,
        released=released,
    )
