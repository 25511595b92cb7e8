"""The Kaizen loops over HTTP: how they stand, what they did, and a person's word."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Path, Response
from pydantic import Field

from kaizen.core.errors import InvalidInput
from kaizen.core.identity import Identity
from kaizen.core.scope import Scope
from kaizen.learn.data.dataset import Dataset
from kaizen.learn.loop.loop import Loop, State
from kaizen.learn.loop.plan import KIND, WATCH, Asks, Plan, Watch
from kaizen.learn.loop.rows import may_begin
from kaizen.learn.loop.steps import Step
from kaizen.learn.loop.tunable import TUNING, Tunable
from kaizen.learn.optimize.compose import SEARCHES
from kaizen.ledger.scores import FEEDBACK
from kaizen.serve.http.entering import Admin, shown
from kaizen.serve.http.learn.experiments import NewRule
from kaizen.serve.http.learn.inputs import Body, Metric, Name, Reason, Rows, Seed, metric_of, rows_in
from kaizen.serve.http.learn.seams import Learning, asked
from kaizen.serve.shown.learning import status_json

T = TypeVar("T")


class NewTunable(Body):
    """A parameter that may be moved: between bounds, or among values."""

    name: Name
    low: int | float | None = None
    high: int | float | None = None
    choices: Annotated[tuple[bool | int | float | str, ...], Field(max_length=100)] = ()

    def made(self) -> Tunable:
        """The parameter itself."""
        return Tunable(self.name, self.low, self.high, self.choices)


class NewLoop(Body):
    """A program to be watched, improved within limits, and taken back; see ``kaizen loop start --help``."""

    program: Name
    data: Rows
    metric: Metric = "accuracy"
    scores: Name = FEEDBACK
    floor: float | None = Field(None, ge=0, le=1)
    harm: float = Field(WATCH.harm, gt=0, lt=1)
    share: float = Field(0.5, gt=0, lt=1)
    optimizer: str = Field("compose", json_schema_extra={"enum": [*SEARCHES, TUNING]})
    tunables: tuple[NewTunable, ...] = Field(
        (), max_length=100, description="parameters that the optimizer tuning moves, and nothing else"
    )
    calls: int = Field(200, ge=1, le=1_000_000)
    per_day: int = Field(2, ge=0, le=1000)
    usd_per_day: float = Field(1.0, ge=0, le=10**6)
    asks: Asks = "large"
    rule: NewRule = NewRule()
    seed: Seed = 0
    reason: Reason = ""


class Word(Body):
    """Why."""

    reason: Reason = ""


@dataclass(frozen=True, slots=True)
class _Loops:
    """The loops of every tenant, one object each: what it has read of the scores it keeps."""

    learning: Learning
    made: dict[Scope, Loop] = field(default_factory=dict[Scope, Loop])
    locks: defaultdict[Scope, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def use(self, scope: Scope, work: Callable[[Loop], Coroutine[Any, Any, T]]) -> T:
        """Do something with a tenant's loops; one request at a time, since they read on where they were."""
        async with self.locks[scope]:
            if scope not in self.made:
                programs = {name: one.program for name, one in self.learning.programs.items()}
                self.made[scope] = self.learning.loops(self.learning.within(scope), programs)
            return await work(self.made[scope])

    async def name(self, scope: Scope, name: str) -> str:
        """A program's name, of which the last part is enough."""
        names = [known for _, known in await self.learning.registry.names(scope, KIND)]
        alike = [one for one in names if one == name or one.endswith(f".{name}")]
        return alike[0] if len(alike) == 1 else name


def loop_routes(learning: Learning) -> APIRouter:
    """The loops of the caller's tenant."""
    routes = APIRouter(prefix="/api/v1/loops", tags=["loops"])
    loops = _Loops(learning)

    @routes.get("")
    async def list_loops(who: Admin) -> Response:
        """The programs that have a loop, and how each stands."""

        async def work(loop: Loop) -> list[dict[str, Any]]:
            return [status_json(await loop.status(who.scope, name)) for name in await loop.programs(who.scope)]

        return shown({"loops": await loops.use(who.scope, work)})

    @routes.post("", status_code=201)
    async def start_loop(new: NewLoop, who: Admin) -> Response:
        """Have a program that is served watched."""
        plan = await _plan(learning, who, new)

        async def work(loop: Loop) -> None:
            await loop.begin(who.scope, plan, actor=who.principal, reason=new.reason)

        await loops.use(who.scope, work)
        return shown(asdict(plan), 201)

    @routes.get("/{program}")
    async def show_loop(who: Admin, program: Annotated[Name, Path()]) -> Response:
        """What a loop sees, and what it waits for."""
        name = await loops.name(who.scope, program)
        return shown(status_json(await loops.use(who.scope, lambda loop: loop.status(who.scope, name))))

    @routes.get("/{program}/history")
    async def list_steps(who: Admin, program: Annotated[Name, Path()]) -> Response:
        """What a loop did, and why, oldest first."""
        name = await loops.name(who.scope, program)
        steps = await loops.use(who.scope, lambda loop: loop.history(who.scope, name))
        return shown({"steps": [asdict(step) for step in steps]})

    @routes.post("/{program}/{word}")
    async def say_word(
        new: Word,
        who: Admin,
        program: Annotated[Name, Path()],
        word: Annotated[Literal["approve", "decline", "pause", "resume", "stop"], Path()],
    ) -> Response:
        """Answer the change that waits, or have the loop pause, go on or stop."""
        name = await loops.name(who.scope, program)
        actor, reason = who.principal, new.reason or "by hand"
        if word in ("approve", "decline"):
            yes = word == "approve"

            async def answer(loop: Loop) -> Step:
                return await loop.answer(who.scope, name, yes=yes, actor=actor, comment=new.reason)

            return shown({**asdict(await loops.use(who.scope, answer)), "approved": yes})
        state: State = "paused" if word == "pause" else "on" if word == "resume" else "stopped"
        await loops.use(who.scope, lambda loop: loop.turn(who.scope, name, state, actor=actor, reason=reason))
        return shown({"program": name, "state": state})

    _ = list_loops, start_loop, show_loop, list_steps, say_word
    return routes


async def _plan(learning: Learning, who: Identity, new: NewLoop) -> Plan:
    served = learning.served(new.program)
    program, name = served.program, served.program.spec.name
    if new.optimizer not in SEARCHES and new.optimizer != TUNING:
        raise InvalidInput(f"there is no optimizer {new.optimizer[:100]!r}; there are {', '.join(SEARCHES)}, {TUNING}")
    judged = metric_of(new.metric, program)
    rows = await rows_in(learning.registry, who.scope, program, new.data)
    await may_begin(learning.registry, who.scope, judged, rows, new.seed)
    artifact = Dataset.of(f"{name}/loop", rows, {"from": new.data.source}).artifact()
    data = await learning.registry.put(who.scope, artifact, author=who.principal, reason="rows of the loop")
    with asked():
        return Plan(
            program=name,
            target=served.target,
            metric=new.metric,
            rows=data.artifact.ref,
            scores=new.scores,
            watch=Watch(floor=new.floor, harm=new.harm),
            rule=new.rule.made(),
            share=new.share,
            optimizer=new.optimizer,
            tunables=tuple(one.made() for one in new.tunables),
            calls=new.calls,
            per_day=new.per_day,
            usd_per_day=new.usd_per_day,
            asks=new.asks,
            seed=new.seed,
        )
