"""Experiments over HTTP: started, judged, stopped."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from pydantic import Field

from kaizen.core.errors import NotFound
from kaizen.core.identity import Identity
from kaizen.core.scope import Scope
from kaizen.learn.experiment.definition import GUARDS, KIND, RULE, Definition, Guard, Quantity, Rule
from kaizen.learn.experiment.experiments import Experiment, Experiments, version_of
from kaizen.ledger.scores import FEEDBACK
from kaizen.registry.registry import PARAMS, PROD
from kaizen.serve.http.entering import Admin, shown
from kaizen.serve.http.learn.inputs import Body, Name, Reason, Which
from kaizen.serve.http.learn.seams import Learning, asked
from kaizen.serve.shown.learning import experiment_json
from kaizen.serve.shown.versions import arm_of

_SHOWN: Final = 50


class NewGuard(Body):
    """A bound that stops an experiment early."""

    quantity: Quantity
    margin: float = Field(ge=0, le=10)


class NewRule(Body):
    """When an experiment ends; see ``kaizen experiment start --help``."""

    least: Annotated[int, Field(ge=100, le=10**7)] = RULE.least
    alpha: Annotated[float, Field(gt=0, le=0.2)] = RULE.alpha
    effect: Annotated[float, Field(ge=0, lt=1)] = RULE.effect
    guards: Annotated[list[NewGuard], Field(max_length=8)] | None = None
    days: Annotated[float, Field(gt=0, le=3650)] = RULE.days
    subjects: Annotated[int, Field(ge=1, le=10**9)] = RULE.subjects
    scores: Annotated[int, Field(ge=1, le=10**4)] = RULE.scores
    window_s: Annotated[float, Field(ge=0, le=10**7)] = RULE.window_s

    def made(self) -> Rule:
        """The rule itself."""
        guards = GUARDS if self.guards is None else tuple(Guard(one.quantity, one.margin) for one in self.guards)
        return Rule(
            least=self.least,
            alpha=self.alpha,
            effect=self.effect,
            guards=guards,
            days=self.days,
            subjects=self.subjects,
            scores=self.scores,
            window_s=self.window_s,
        )


class WeightedArm(Body):
    """A version, and its share of the subjects."""

    version: Which
    weight: float = Field(gt=0, lt=1)


class NewExperiment(Body):
    """An experiment to be started, fixed from here on. The first arm is the control."""

    program: Name
    arms: Annotated[list[WeightedArm], Field(min_length=2, max_length=10)]
    metric: Name = FEEDBACK
    label: Name = PROD
    rule: NewRule = NewRule()
    reason: Reason = ""


class Stop(Body):
    """Why it is stopped."""

    reason: Reason = "by hand"


@dataclass(frozen=True, slots=True)
class _Here:
    """The experiments of every tenant, one request of a tenant's at a time.

    What was read of an experiment is kept, and two must not read it on at once.
    """

    learning: Learning
    experiments: Experiments
    locks: defaultdict[Scope, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def name(self, scope: Scope, program: str) -> str:
        return (await self.learning.subject(scope, PARAMS, program)).name

    async def found(self, scope: Scope, program: str) -> Experiment:
        async with self.locks[scope]:
            experiment = await self.experiments.status(scope, program)
        if experiment is None:
            raise NotFound(f"there was no experiment on {program} yet")
        return experiment

    async def start(self, who: Identity, new: NewExperiment) -> Experiment:
        scope, registry = who.scope, self.learning.registry
        what = await self.learning.subject(scope, PARAMS, new.program)
        program = what.name
        meant = [await version_of(registry, scope, program, arm.version, new.label) for arm in new.arms]
        arms = [
            await arm_of(registry, scope, what, which, arm.weight) for which, arm in zip(meant, new.arms, strict=True)
        ]
        with asked():
            definition = Definition(
                program=program,
                arms=tuple(arms),
                metric=new.metric,
                begun=time.time(),
                label=new.label,
                rule=new.rule.made(),
            )
        async with self.locks[scope]:
            return await self.experiments.start(scope, definition, actor=who.principal, reason=new.reason)

    async def judge(self, scope: Scope, program: str) -> Experiment:
        async with self.locks[scope]:
            judged = await self.experiments.step(scope, program)
        return judged or await self.found(scope, program)

    async def stop(self, who: Identity, program: str, reason: str) -> Experiment:
        async with self.locks[who.scope]:
            return await self.experiments.stop(who.scope, program, actor=who.principal, reason=reason)


def experiment_routes(learning: Learning) -> APIRouter:
    """The experiments of the caller's tenant."""
    routes = APIRouter(prefix="/api/v1/experiments", tags=["experiments"])
    here = _Here(learning, Experiments(learning.ledger, learning.registry))

    @routes.get("")
    async def list_experiments(who: Admin) -> Response:
        """The latest experiment on each program, judged by what there is now; no label moves."""
        names = [name for _, name in await learning.registry.names(who.scope, KIND)][:_SHOWN]
        return shown({"experiments": [experiment_json(await here.found(who.scope, name)) for name in names]})

    @routes.post("", status_code=201)
    async def start_experiment(new: NewExperiment, who: Admin) -> Response:
        """Split a label's traffic between versions, until one is better."""
        return shown(experiment_json(await here.start(who, new)), 201)

    @routes.get("/{program}")
    async def show_experiment(who: Admin, program: Annotated[Name, Path()]) -> Response:
        """The latest experiment on a program, judged by what there is now; no label moves."""
        return shown(experiment_json(await here.found(who.scope, await here.name(who.scope, program))))

    @routes.post("/{program}/judge")
    async def judge_experiment(who: Admin, program: Annotated[Name, Path()]) -> Response:
        """Judge it now, and end it where its rule is met; a gateway does so every ten seconds by itself."""
        return shown(experiment_json(await here.judge(who.scope, await here.name(who.scope, program))))

    @routes.post("/{program}/stop")
    async def stop_experiment(new: Stop, who: Admin, program: Annotated[Name, Path()]) -> Response:
        """End it by hand; the control gets the label back."""
        name = await here.name(who.scope, program)
        return shown(experiment_json(await here.stop(who, name, new.reason or "by hand")))

    _ = list_experiments, start_experiment, show_experiment, judge_experiment, stop_experiment
    return routes
