"""Evaluations and searches over HTTP: begun, looked at while they run, stopped, and gone on with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from kaizen.core.context import Program
from kaizen.core.errors import InvalidInput
from kaizen.core.identity import Identity
from kaizen.core.ids import new_id
from kaizen.core.scope import Scope
from kaizen.learn.data.guard import refuse_tests
from kaizen.learn.data.split import kept_back
from kaizen.learn.evaluate.gate import may_decide
from kaizen.learn.evaluate.plan import Plan
from kaizen.learn.evaluate.result import Evaluation, RowResult, compare
from kaizen.learn.optimize.board import Event
from kaizen.learn.optimize.compose import SEARCHES
from kaizen.learn.optimize.kept import check_enough, start_at
from kaizen.serve.doors import Optimizing
from kaizen.serve.http.entering import Admin, shown
from kaizen.serve.http.learn.inputs import Body, Calls, JobId, Metric, Name, Ref, Rows, Seed, Which, metric_of, rows_in
from kaizen.serve.http.learn.seams import Learning, asked
from kaizen.serve.http.learn.work import Job, Kind, Told
from kaizen.serve.shown.learning import optimized_json

_TELL_S: Final = 0.25


class NewEvaluation(Body):
    """A program to be run on rows and scored. It is kept in the registry as ``kaizen eval`` keeps it."""

    program: Name
    data: Rows
    metric: Metric = "accuracy"
    version: Which = ""
    compare: Which | None = Field(None, description="another version, run on the same rows and compared by pairs")
    calls: Calls | None = Field(None, description="the most requests that may reach a model")
    concurrency: int = Field(8, ge=1, le=64)
    resume: JobId | None = Field(None, description="a job to go on with, of the same plan")


class NewOptimization(Body):
    """A program to be made better. The winner becomes a version; ``release`` moves ``prod`` to it as well."""

    program: Name
    train: Rows
    val: Rows | None = None
    test: Rows | None = None
    metric: Metric = "accuracy"
    optimizer: str = Field("compose", json_schema_extra={"enum": list(SEARCHES)})
    calls: Calls = 500
    tokens: int | None = Field(None, ge=1, le=10**12)
    usd: float | None = Field(None, gt=0, le=10**6)
    seconds: float | None = Field(None, gt=0, le=7 * 86_400)
    seed: Seed = 0
    teacher: Ref | None = None
    models: Annotated[tuple[Ref, ...], Field(max_length=16)] = ()
    start: Which = "base"
    concurrency: int | None = Field(None, ge=1, le=64)
    release: bool = False
    resume: JobId | None = None


def job_routes(learning: Learning) -> APIRouter:
    """Jobs of the caller's tenant. They act for the tenant: its limits hold for them, not the key's."""
    routes = APIRouter(prefix="/api/v1", tags=["learn"])
    jobs = learning.jobs

    @routes.post("/evaluations", status_code=202)
    async def begin_evaluation(new: NewEvaluation, who: Admin) -> Response:
        """Begin an evaluation; the answer is its job, whose result will hold the figures."""
        program, work = await _evaluation(learning, who.scope, new)
        job = await _begun(learning, who, "evaluation", program, work, new.resume)
        return shown(job.shown(), 202)

    @routes.post("/optimizations", status_code=202)
    async def begin_optimization(new: NewOptimization, who: Admin) -> Response:
        """Begin a search for better params; the answer is its job, whose events are its best so far."""
        program, work = await _optimization(learning, who.scope, new)
        job = await _begun(learning, who, "optimization", program, work, new.resume)
        return shown(job.shown(), 202)

    @routes.get("/jobs")
    async def list_jobs(who: Admin, kind: Annotated[Kind | None, Query()] = None) -> Response:
        """The tenant's jobs, newest first, without their events."""
        found = await asyncio.to_thread(jobs.list, who.scope)
        return shown({"jobs": [{**one.shown(), "events": []} for one in found if kind in (None, one.kind)]})

    @routes.get("/jobs/{job_id}")
    async def show_job(
        who: Admin,
        job_id: Annotated[str, Path(max_length=100)],
        after: Annotated[int, Query(ge=-1, le=2**53, description="only events after this one's n")] = -1,
    ) -> Response:
        """How a job stands, and its events."""
        return shown((await asyncio.to_thread(jobs.get, who.scope, job_id)).shown(after))

    @routes.delete("/jobs/{job_id}", status_code=202)
    async def stop_job(who: Admin, job_id: Annotated[str, Path(max_length=100)]) -> Response:
        """Have a job stop, within a second or so. What it paid for stays on record: ``resume`` goes on with it."""
        return shown((await asyncio.to_thread(jobs.stop, who.scope, job_id)).shown(), 202)

    _ = begin_evaluation, begin_optimization, list_jobs, show_job, stop_job
    return routes


async def _begun(learning: Learning, who: Identity, kind: Kind, program: Program, work: Any, resume: str | None) -> Job:
    job = Job(id=resume or new_id(), kind=kind, program=program.spec.name, by=who.principal)
    begin = partial(learning.jobs.begin, who.scope, job, partial(work, job.id), resume=resume is not None)
    return await asyncio.to_thread(begin)


# -- evaluations ----------------------------------------------------------------------------------


async def _evaluation(learning: Learning, scope: Scope, new: NewEvaluation) -> tuple[Program, Any]:
    program = learning.served(new.program).program
    judged = metric_of(new.metric, program)
    plan = Plan(
        program=program,
        rows=await rows_in(learning.registry, scope, program, new.data),
        metric=judged,
        versions=(new.version,) if new.compare is None else (new.compare, new.version),
        concurrency=new.concurrency,
        calls=new.calls,
        resume=new.resume is not None,
        source=new.data.source,
    )
    for version in plan.versions:  # said now, not by a job that fails
        await learning.releases.at(scope, program.spec.name, version)

    async def work(run_id: str, tell: Told) -> Mapping[str, Any]:
        heard = _Rows(tell, len(plan.rows) * len(plan.versions))
        found = await learning.evaluate(learning.within(scope), replace(plan, run_id=run_id), heard)
        result = found[-1].summary()
        return result if len(found) == 1 else result | _compared(found[0], found[1])

    return program, work


class _Rows:
    """Tells of rows as they are done, a few times a second."""

    def __init__(self, tell: Told, total: int) -> None:
        self._tell, self._total = tell, total
        self._done = self._failed = self._calls = 0
        self._sum, self._scored, self._last = 0.0, 0, 0.0

    def __call__(self, version: str, row: RowResult) -> None:
        """One more."""
        self._done += 1
        self._failed += row.error is not None
        self._calls += row.calls
        if row.score is not None:
            self._sum, self._scored = self._sum + row.score, self._scored + 1
        now = time.monotonic()
        if self._done < self._total and now - self._last < _TELL_S:
            return
        self._last = now
        score = self._sum / self._scored if self._scored else None
        counts = {"done": self._done, "total": self._total, "failed": self._failed, "calls": self._calls}
        self._tell({"version": version, **counts, "score": score})


def _compared(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    return {"compared": before.summary() | {"gain": compare(before, after).summary()}}


# -- searches -------------------------------------------------------------------------------------


async def _optimization(learning: Learning, scope: Scope, new: NewOptimization) -> tuple[Program, Any]:
    program, registry = learning.served(new.program).program, learning.registry
    if new.optimizer not in SEARCHES:
        raise InvalidInput(f"there is no optimizer {new.optimizer[:100]!r}; there are {', '.join(SEARCHES)}")
    judged = metric_of(new.metric, program)
    await may_decide(registry, scope, judged)
    train = await rows_in(registry, scope, program, new.train)
    val = None if new.val is None else await rows_in(registry, scope, program, new.val)
    test = () if new.test is None else await rows_in(registry, scope, program, new.test)
    if val is None:
        train, val = kept_back(train, new.seed)
    with asked():
        check_enough(train, val)
    await refuse_tests(registry, scope, (*train, *val))
    wanted = Optimizing(
        program=program,
        train=train,
        val=val,
        test=test,
        metric=judged,
        optimizer=new.optimizer,
        calls=new.calls,
        tokens=new.tokens,
        usd=new.usd,
        seconds=new.seconds,
        seed=new.seed,
        teacher=new.teacher,
        models=new.models,
        concurrency=new.concurrency,
        resumed=new.resume is not None,
        start=await start_at(registry, scope, program.spec.name, new.start),
        release=new.release,
    )

    async def work(run_id: str, tell: Told) -> Mapping[str, Any]:
        def begun(_: str, calls: int, rows: int) -> None:
            tell({"what": "begun", "projected": calls, "limit": wanted.calls, "rows": rows})

        def told(event: Event) -> None:
            tell(asdict(event))

        mine = replace(wanted, run_id=run_id, begun=begun, told=told)
        return optimized_json(await learning.optimize(learning.within(scope), mine), mine)

    return program, work
