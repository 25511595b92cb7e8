"""The Kaizen loop over a program: watch, propose, test, ask, experiment, release, take back.

A loop remembers nothing that is not in the ledger (scores, its own steps, people's answers) or the registry (its plan,
versions, labels, experiments), so a process that dies is followed by another that goes on where it was. It moves labels
and makes versions of params; code is never edited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, cast

from kaizen.core.artifact import Arm
from kaizen.core.errors import ConfigError, Conflict, Denied, KaizenError, NotFound
from kaizen.core.ids import new_id
from kaizen.core.record import RecordQuery, Score
from kaizen.core.scope import Scope
from kaizen.learn.experiment.definition import Definition
from kaizen.learn.experiment.experiments import Experiment, Experiments
from kaizen.learn.loop.monitor import Signal
from kaizen.learn.loop.plan import KIND, Plan, plan_of
from kaizen.learn.loop.seams import Noticing, Proposal, Proposer, Wanted
from kaizen.learn.loop.searches import Searches
from kaizen.learn.loop.steps import (
    APPROVAL,
    ENDS,
    Action,
    Start,
    Step,
    keep,
    steps_of,
    unfinished,
    untried,
    waiting_of,
)
from kaizen.learn.loop.watching import LOOP, Seen, Watching
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.scores import keep_scores
from kaizen.registry.registry import PARAMS, Registry

State: TypeAlias = Literal["on", "paused", "stopped"]

_STATES: Final = ("on", "paused", "stopped")
_PROPOSING: Final = "proposing"
_DAY: Final = 86_400.0
_GIVEN_UP_S: Final = 3600.0
"""Seconds after which a proposal that policy refuses is taken for failed."""
_OVERLAP_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Status:
    """How a loop stands.

    Args:
        plan: what it does.
        state: whether it is on.
        version: what the label shows.
        recent: scores in the window, and their mean.
        experiment: the one that is running, or the last.
        waiting: the step that waits for a person.
        proposals, usd: of the last 24 hours.
        last: the last step.
    """

    plan: Plan
    state: State
    version: str
    recent: tuple[int, float | None]
    experiment: Experiment | None
    waiting: Step | None
    proposals: int
    usd: float
    last: Step | None


class Loop:
    """All loops of an App.

    Args:
        ledger: where scores and steps lie.
        registry: where plans, versions and labels are.
        start: begins a run: steps are runs.
        propose: makes proposals.
        notice: finds other reasons for one; None looks for none.
        clock: Unix seconds.
        turns: how many searches go on at once, shared with the loops of other tenants; None makes two of its own.

    Attributes:
        experiments: those that it begins, and others.
    """

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        *,
        start: Start,
        propose: Proposer,
        notice: Noticing | None = None,
        clock: Callable[[], float] = time.time,
        turns: asyncio.Semaphore | None = None,
    ) -> None:
        self._ledger, self._registry, self._clock = ledger, registry, clock
        self._start, self._propose, self._notice = start, propose, notice
        self.experiments = Experiments(ledger, registry, clock=clock)
        self._searches = Searches(turns)
        self._watched: dict[tuple[Scope, str], Watching] = {}
        self._known: dict[tuple[Scope, str], tuple[float, dict[str, Step]]] = {}

    # -- by hand ----------------------------------------------------------------------------------

    async def begin(self, scope: Scope, plan: Plan, *, actor: str, reason: str = "") -> None:
        """Have a program watched; a plan there was before is replaced."""
        version = await self._registry.put(scope, plan.artifact(), author=actor, reason=reason or "loop")
        await self._mark(scope, plan.program, version.artifact.version, "on", actor, reason or "begun")

    async def turn(self, scope: Scope, program: str, state: State, *, actor: str, reason: str) -> None:
        """Have a loop go on, pause or stop. An experiment that is running stops with it.

        Raises:
            NotFound: there is no loop over this program.
        """
        _, _, address = await self._plan(scope, program)
        await self._mark(scope, program, address, state, actor, reason)
        experiment = await self.experiments.status(scope, program) if state != "on" else None
        if experiment is not None and experiment.state == "running":
            await self.experiments.stop(scope, program, actor=actor, reason=f"the loop is {state}")

    async def answer(self, scope: Scope, program: str, *, yes: bool, actor: str, comment: str = "") -> Step:
        """A person's word on the change that waits for one.

        Raises:
            NotFound: none is waiting.
        """
        waiting = waiting_of(await self.history(scope, program))
        if waiting is None:
            raise NotFound(f"no change of {program} waits for an answer")
        record = await self._ledger.record(scope, waiting.id)
        await keep_scores(self._ledger, scope, [Score(APPROVAL, record, float(yes), comment)], by=actor)
        return waiting

    # -- how it stands ----------------------------------------------------------------------------

    async def programs(self, scope: Scope) -> Sequence[str]:
        """Names of the programs that have a loop, whatever its state."""
        return [name for _, name in await self._registry.names(scope, KIND)]

    async def history(self, scope: Scope, program: str) -> Sequence[Step]:
        """What a loop did, oldest first."""
        # the ledger is read from where it was read to: what is in it by then may be much
        since, known = self._known.get((scope, program), (0.0, dict[str, Step]()))
        now = self._clock()
        for step in await steps_of(self._ledger, scope, program, since - _OVERLAP_S):
            known[step.id] = step
        self._known[scope, program] = now, known
        return [known[key] for key in sorted(known)]

    async def status(self, scope: Scope, program: str) -> Status:
        """How a loop stands; nothing is done.

        Raises:
            NotFound: there is no loop over this program.
        """
        plan, state, _ = await self._plan(scope, program)
        steps = await self.history(scope, program)
        watching = await self._look(scope, plan)
        proposals, usd = self._today(steps)
        return Status(
            plan=plan,
            state=state,
            version=watching.monitor.version,
            recent=watching.monitor.recent,
            experiment=await self.experiments.status(scope, program),
            waiting=waiting_of(steps),
            proposals=proposals,
            usd=usd,
            last=steps[-1] if steps else None,
        )

    # -- at work ----------------------------------------------------------------------------------

    async def tick(self, scope: Scope, program: str, *, waits: bool = True) -> Sequence[Step]:
        """Look once, and do what is called for; the steps that were taken.

        Where another process is at the same step, that one does it.

        Args:
            scope: whose.
            program: the program's name.
            waits: whether to wait for the end of a search. Else it goes on beside the looks that follow, until
                ``close``: one of those finds it done.

        Raises:
            NotFound: there is no loop over this program.
        """
        plan, state, _ = await self._plan(scope, program)
        if state != "on":
            await self._searches.end(scope, program)
            return []
        steps = await self.history(scope, program)
        watching = await self._look(scope, plan)
        watching.answered(max((step.upto for step in steps), default=0.0))
        with suppress(Conflict):  # the label moved, or the proposal is in other hands: the next look finds what to do
            await self._act(scope, watching, steps, waits)
        return (await self.history(scope, program))[len(steps) :]

    async def close(self) -> None:
        """Break off the searches of this process: each can be gone on with."""
        await self._searches.close()

    async def _act(self, scope: Scope, watching: Watching, steps: Sequence[Step], waits: bool) -> None:
        """The first thing that is called for."""
        plan = watching.plan
        for seen in watching.pending:
            if seen.signal.trigger == "bad release":
                return await self._take_back(scope, plan, seen)
        if await self._experiment(scope, plan):
            return None
        waiting = waiting_of(steps)
        if waiting is not None:
            return await self._answered(scope, plan, waiting)
        approved = untried(steps)
        if approved is not None:
            return await self._try(scope, plan, approved)
        begun = unfinished(steps)
        if begun is not None:
            return await self._proposed(scope, plan, begun, waits)
        seen = watching.pending[0] if watching.pending else None
        if seen is None and self._notice is not None:
            since = max((step.at for step in steps if step.action == "propose"), default=watching.began)
            signal = await self._notice(plan, await watching.arrived(since))
            seen = None if signal is None else Seen(self._clock(), signal)
        if seen is not None:
            await self._called_for(scope, watching, steps, seen, waits)
        return None

    # -- steps ------------------------------------------------------------------------------------

    async def _take_back(self, scope: Scope, plan: Plan, seen: Seen) -> None:
        """A release turned bad: the label shows what it showed before."""
        program, signal = plan.program, seen.signal
        experiment = await self.experiments.status(scope, program)
        if experiment is not None and experiment.state == "running":
            await self.experiments.stop(scope, program, actor=LOOP, reason=f"its control turned bad: {signal.said}")
        moves = await self._registry.history(scope, PARAMS, program, plan.label)
        if moves and moves[-1].arms == (Arm(signal.version),):
            reason = f"taken back by the loop: {signal.said}"
            # past the experiments that this version was the control of, to what was shown before it
            await self._registry.rollback(
                scope, PARAMS, program, plan.label, actor=LOOP, reason=reason, since=moves[-1].id
            )
        await self._keep(scope, plan, _called(signal, "rollback", signal.said, upto=seen.at))

    async def _experiment(self, scope: Scope, plan: Plan) -> bool:
        """Judge the experiment that is running; whether there is one."""
        experiment = await self.experiments.step(scope, plan.program)
        if experiment is None:
            return False
        if experiment.state != "running":
            arms = experiment.definition.arms
            version = arms[-1].version
            await self._keep(scope, plan, Step(action=experiment.state, said=experiment.reason, version=version))
        return True

    async def _answered(self, scope: Scope, plan: Plan, waiting: Step) -> None:
        """Go on as the person said, if there is an answer."""
        query = RecordQuery(kind="score", ref=APPROVAL, about=waiting.id)
        answers = [one async for one in self._ledger.records(scope, query)]
        if not answers:
            return
        who, yes = answers[-1].principal, (answers[-1].value or 0.0) >= 0.5
        action = "approved" if yes else "declined"
        step = Step(action=action, said=f"by {who}", version=waiting.version, run_id=waiting.run_id)
        await self._keep(scope, plan, step)
        if yes:
            await self._try(scope, plan, waiting)

    async def _called_for(
        self, scope: Scope, watching: Watching, steps: Sequence[Step], seen: Seen, waits: bool
    ) -> None:
        """Begin a proposal, within today's limits. It is on record before anything is asked."""
        plan, signal = watching.plan, seen.signal
        proposals, usd = self._today(steps)
        left = plan.usd_per_day - usd
        if proposals >= plan.per_day or left <= 0:
            said = f"{proposals} of {plan.per_day} proposals and {usd:.4f} of {plan.usd_per_day:g} dollars in 24 hours"
            if not any(step.action == "limit" and step.at >= self._clock() - _DAY for step in steps):
                step = _called(signal, "limit", f"{signal.trigger}: {signal.said}; {said}")
                await self._keep(scope, plan, step)
            return
        _, _, address = await self._plan(scope, plan.program)
        claims = await self._registry.history(scope, KIND, plan.program, _PROPOSING)
        run_id = new_id()
        version = watching.monitor.version
        await self._registry.label(
            scope,
            KIND,
            plan.program,
            _PROPOSING,
            [Arm(address)],
            actor=LOOP,
            reason=run_id,
            since=claims[-1].id if claims else "",
        )
        said = f"{signal.trigger}: {signal.said}"
        upto = max(seen.at, *(one.at for one in watching.pending), 0.0)  # one proposal answers all there is
        made = _called(signal, "propose", said, version=version, run_id=run_id, usd=left, upto=upto)
        await self._keep(scope, plan, made)
        # not simply the last one: another process may have kept a step, too
        begun = [step for step in await self.history(scope, plan.program) if step.run_id == run_id]
        if begun:
            await self._proposed(scope, plan, begun[0], waits)

    async def _proposed(self, scope: Scope, plan: Plan, begun: Step, waits: bool) -> None:
        """Have the optimizer search, and see what became of it."""
        run_id = begun.run_id
        wanted = Wanted(plan=plan, run_id=run_id, start=begun.version, usd=begun.usd or 0.0, since=begun.at)
        try:
            found = await self._searches.found(scope, wanted, self._propose, waits=waits)
        except Conflict:
            raise  # in other hands, however long that takes
        except KaizenError as error:
            if isinstance(error, Denied) and self._clock() - begun.at < _GIVEN_UP_S:
                raise  # waiting for policy
            # what it cost is not known, so what it might have is counted
            said = f"{error.code}: {error.message}"
            await self._keep(scope, plan, Step(action="failed", said=said, run_id=run_id, usd=begun.usd))
            return
        if found is None:
            return  # it goes on
        if found.version is None:
            await self._keep(scope, plan, Step(action="no gain", said=found.said, run_id=run_id, usd=found.usd))
        elif plan.asks == "always" or (plan.asks == "large" and found.large):
            await self._ask(scope, plan, found, run_id)
        else:
            made = Step(action="propose", said=found.said, version=found.version, run_id=run_id, usd=found.usd)
            await self._try(scope, plan, made)

    async def _ask(self, scope: Scope, plan: Plan, found: Proposal, run_id: str) -> None:
        said = f"{found.large or 'every change is asked about'}: {found.said}"
        step = Step(action="ask", said=said, version=found.version or "", run_id=run_id, usd=found.usd)
        await self._keep(scope, plan, step)

    async def _try(self, scope: Scope, plan: Plan, made: Step) -> None:
        """Begin an experiment between what the label shows and the version that was made."""
        watching = await self._look(scope, plan)
        arms = (Arm(watching.monitor.version, 1 - plan.share), Arm(made.version, plan.share))
        before = await self._registry.history(scope, PARAMS, plan.program, plan.label)
        try:
            definition = Definition(
                program=plan.program,
                arms=arms,
                metric=plan.scores,
                begun=self._clock(),
                label=plan.label,
                rule=plan.rule,
            )
            begun = await self.experiments.start(scope, definition, actor=LOOP, reason=made.said)
        except (ConfigError, NotFound, Conflict) as error:
            if isinstance(error, Conflict) and await self._passes(scope, plan, len(before)):
                raise
            # it would be so at every look: the version is gone, say, or the label shows it already
            said = f"{error.code}: {error.message}"
            await self._keep(scope, plan, replace(made, action="failed", said=said))
            return
        await self._keep(
            scope, plan, replace(made, action="experiment", said=f"experiment {begun.number}: {made.said}")
        )

    async def _passes(self, scope: Scope, plan: Plan, moves: int) -> bool:
        """Whether a conflict is one of the moment: an experiment has begun, or the label has moved since."""
        now = await self._registry.history(scope, PARAMS, plan.program, plan.label)
        return len(now) > moves or plan.program in await self.experiments.programs(scope)

    # -- inside -----------------------------------------------------------------------------------

    async def _keep(self, scope: Scope, plan: Plan, step: Step) -> None:
        await keep(self._start, scope, plan.program, step)

    async def _mark(self, scope: Scope, program: str, address: str, state: State, actor: str, reason: str) -> None:
        await self._registry.label(scope, KIND, program, state, [Arm(address)], actor=actor, reason=reason)

    async def _plan(self, scope: Scope, program: str) -> tuple[Plan, State, str]:
        moves = [one for one in await self._registry.history(scope, KIND, program) if one.label in _STATES]
        if not moves:
            raise NotFound(f"there is no loop over {program}: `kaizen loop start` begins one")
        version = await self._registry.version(scope, KIND, program, moves[-1].arms[0].version)
        return plan_of(version.artifact), cast("State", moves[-1].label), version.artifact.version

    async def _look(self, scope: Scope, plan: Plan) -> Watching:
        key = (scope, plan.program)
        watching = self._watched.get(key)
        if watching is None or watching.plan != plan:
            moves = await self._registry.history(scope, KIND, plan.program)
            watching = Watching(self._ledger, self._registry, scope, plan, moves[0].at, self._clock)
            self._watched[key] = watching
        await watching.look()
        return watching

    def _today(self, steps: Sequence[Step]) -> tuple[int, float]:
        """Proposals of the last 24 hours and their dollars: what one may cost, until it is known what it did."""
        since = self._clock() - _DAY
        cost = {step.run_id: step.usd or 0.0 for step in steps if step.action == "propose" and step.at >= since}
        for step in steps:
            if step.run_id in cost and step.action in ENDS and step.usd is not None:
                cost[step.run_id] = step.usd
        return len(cost), sum(cost.values())


def _called(signal: Signal, action: Action, said: str, **more: Any) -> Step:
    """A step that a signal called for."""
    return replace(Step(action=action, said=said, trigger=signal.trigger, version=signal.version), **more)
