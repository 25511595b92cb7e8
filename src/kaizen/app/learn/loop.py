"""The Kaizen loop, joined: with the optimizers, the embedder and the App's runs."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from kaizen.app.learn.apart import apart
from kaizen.app.learn.optimize import optimize
from kaizen.core.answer import Answer
from kaizen.core.artifact import BASE
from kaizen.core.context import Context, Program
from kaizen.core.errors import ConfigError, Conflict, KaizenError
from kaizen.core.params import NOTHING, Params
from kaizen.core.protocols import Suspended
from kaizen.core.scope import Scope
from kaizen.learn.data.dataset import KIND as DATASET
from kaizen.learn.data.dataset import Dataset
from kaizen.learn.data.guard import kept_for_tests
from kaizen.learn.data.rows import Row
from kaizen.learn.feed import Feed
from kaizen.learn.loop.failures import alike
from kaizen.learn.loop.loop import Loop
from kaizen.learn.loop.monitor import Signal
from kaizen.learn.loop.plan import Plan
from kaizen.learn.loop.rows import parted
from kaizen.learn.loop.seams import Arrived, Proposal, Wanted
from kaizen.learn.loop.steps import Step, Turn
from kaizen.learn.loop.tunable import Tuning
from kaizen.ledger.scores import said_with
from kaizen.registry.params import params_of
from kaizen.registry.registry import PARAMS
from kaizen.registry.releases import NO_RELEASES
from kaizen.serve.doors import Optimized, Optimizing
from kaizen.serve.load import load_program
from kaizen.serve.measures import load_metric

if TYPE_CHECKING:
    from kaizen.app import App

_logger = logging.getLogger(__name__)

_REWRITTEN: Final = 0.5
"""Instructions that have less than this in common with those before are a large change."""
_READ: Final = 300

EVERY_S: Final = 10.0
"""Seconds between two looks of a gateway."""


def make_loop(
    app: App, programs: Mapping[str, Program] | None = None, *, turns: asyncio.Semaphore | None = None
) -> Loop:
    """The loops of an App.

    Args:
        app: where they run.
        programs: by name, those that are loaded already; others are loaded from their plan's file when first needed.
        turns: as ``Loop`` has them.

    Raises:
        ConfigError: contents are not kept, and a loop remembers by them what it did and spent.
    """
    if not app.settings.ledger.payloads:
        raise ConfigError("a loop remembers its steps by their contents: it needs ledger.payloads = true")

    async def start(scope: Scope, turn: Turn, inputs: Mapping[str, Any]) -> Answer | Suspended:
        run = replace(await app.new_run(), scope=scope, principal="loop", releases=NO_RELEASES)
        return await app.start_run(run, turn, inputs)

    return Loop(
        app.ledger,
        app.registry,
        start=start,
        propose=_Proposing(app, dict(programs or {})),
        notice=_Noticing(app),
        turns=turns,
    )


async def watch(
    loop: Loop, scope: Scope, *, every: float | None, told: Callable[[str, str], None] | None = None
) -> None:
    """Look at every program that has a loop or an experiment, again and again, until cancelled.

    What fails is told of and looked at again: one program's mistake must not stop the others' watch.

    Args:
        loop: the loops.
        scope: whose.
        every: seconds between two looks; None looks once, and waits for what is searched.
        told: hears of each step: the program and what was done.
    """
    try:
        while True:
            await look(loop, scope, waits=every is None, told=told)
            if every is None:
                return
            await asyncio.sleep(every)
    finally:
        await loop.close()


async def look(
    loop: Loop, scope: Scope, *, waits: bool = False, told: Callable[[str, str], None] | None = None
) -> None:
    """Look once at every program that has a loop or an experiment.

    Args:
        loop: the loops.
        scope: whose.
        waits: whether to wait for what is searched; else it goes on beside the next looks, until ``loop.close``.
        told: hears of each step: the program and what was done.
    """
    try:
        loops = await loop.programs(scope)
        experiments = await loop.experiments.programs(scope)
    except KaizenError as error:
        _logger.warning("the loops can't be read: %s", error)
        return
    for program in dict.fromkeys([*loops, *experiments]):
        for line in await _done(loop, scope, program, has_loop=program in loops, waits=waits):
            if told is not None:
                told(program, line)


async def _done(loop: Loop, scope: Scope, program: str, *, has_loop: bool, waits: bool) -> Sequence[str]:
    """What a look at one program did."""
    try:
        steps: Sequence[Step] = await loop.tick(scope, program, waits=waits) if has_loop else ()
        said = [f"{step.action}: {step.said}" for step in steps]
        # one that a person began, beside a loop that is paused or without any
        experiment = await loop.experiments.step(scope, program)
        if experiment is not None and experiment.state != "running":
            said.append(f"experiment {experiment.number} {experiment.state}: {experiment.reason}")
    except KaizenError as error:
        _logger.warning("the loop of %s: %s", program, error)
        return []
    return said


class _Proposing:
    """Makes proposals with ``kaizen optimize``'s own means. Satisfies ``Proposer``."""

    def __init__(self, app: App, programs: dict[str, Program]) -> None:
        self._app, self._programs = app, programs

    async def __call__(self, wanted: Wanted, /) -> Proposal:
        try:
            return await apart(lambda: self._made(wanted), "kaizen-proposal")
        except Conflict as error:
            if error.detail.get("held"):
                raise
            # such as one that was begun with another plan: it will not be otherwise later
            raise ConfigError(error.message) from error
        except KaizenError:
            raise
        except Exception as error:
            # a mistake of the program's or the metric's: a loop counts errors of ours, and begins others again for ever
            _logger.warning("the search for a better %s failed", wanted.plan.program, exc_info=True)
            raise ConfigError(f"the search failed with {type(error).__name__}; the log says more") from error

    async def _made(self, wanted: Wanted) -> Proposal:
        app, plan = self._app, wanted.plan
        program = self._program(plan)
        rows = await self._rows(plan)
        # the same parts each time: what was learned from once is never tested on later
        parts = parted(rows, plan.seed)
        tested = {row.asked for row in parts["test"]} | set(await kept_for_tests(app.registry, app.scope))
        corrected = [row for row in await self._corrections(plan, wanted.since) if row.asked not in tested]
        start = await self._params(plan.program, wanted.start)
        found = await optimize(
            app,
            Optimizing(
                program=program,
                train=(*parts["train"], *corrected),
                val=parts["val"],
                test=parts["test"],
                metric=load_metric(plan.metric, program),
                optimizer=Tuning(plan.tunables) if plan.tunables else plan.optimizer,
                calls=plan.calls,
                usd=wanted.usd,
                seed=plan.seed,
                run_id=wanted.run_id,
                start={} if start == NOTHING else {plan.program: start},
            ),
        )
        return await self._proposal(plan, program, found, start)

    async def _proposal(self, plan: Plan, program: Program, found: Optimized, start: Params) -> Proposal:
        report, test = found.report, found.report.test
        if not report.improved:
            return Proposal(version=None, said=report.reason, usd=found.usd)
        if test is None or test.after <= test.before:
            seen = "none could be tested" if test is None else f"{test.before:.3f} to {test.after:.3f}"
            return Proposal(version=None, said=f"nothing gained on held-out rows: {seen}", usd=found.usd)
        if set(found.versions) != {plan.program}:
            changed = ", ".join(found.versions)
            said = f"the change is of {changed}, and an experiment is about {plan.program} alone: release it by hand"
            return Proposal(version=None, said=said, usd=found.usd)
        version = await self._app.registry.version(self._app.scope, PARAMS, plan.program, found.versions[plan.program])
        said = (
            f"version {version.number}, {report.how}: {test.before:.3f} to {test.after:.3f} on {test.rows} "
            f"held-out rows ({test.low:+.3f} to {test.high:+.3f} at 95 %)"
        )
        large = change(start, params_of(version.artifact), program.spec.doc)
        return Proposal(version=version.artifact.version, said=said, large=large, usd=found.usd)

    def _program(self, plan: Plan) -> Program:
        program = self._programs.get(plan.program)
        if program is None:
            program = self._programs[plan.program] = load_program(plan.target)
        if program.spec.name != plan.program:
            raise ConfigError(f"{plan.target} is {program.spec.name}, and the loop is over {plan.program}")
        return program

    async def _rows(self, plan: Plan) -> Sequence[Row]:
        name, _, address = plan.rows.removeprefix(f"{DATASET}/").rpartition("@")
        version = await self._app.registry.version(self._app.scope, DATASET, name, address)
        return Dataset.load(version.artifact).rows

    async def _params(self, program: str, version: str) -> Params:
        if version == BASE:
            return NOTHING
        return params_of((await self._app.registry.version(self._app.scope, PARAMS, program, version)).artifact)

    async def _corrections(self, plan: Plan, upto: float) -> Sequence[Row]:
        """What people said should have come out, up to when the proposal began: a resumed one learns from the same."""
        ledger, scope = self._app.ledger, self._app.scope
        found: dict[str, Row] = {}
        feed = Feed(ledger, scope, plan.program, plan.scores, 0.0, calls=False)
        for news in await feed.news():
            if news.score is None or news.score.output_digest is None or news.at > upto:
                continue
            correct = (await said_with(ledger, news.score)).correct
            data = await ledger.payload(scope, news.call.input_digest)
            if correct is not None and data is not None:
                row = Row(from_json(data), correct)
                found[row.asked] = row
        return list(found.values())


def change(before: Params, after: Params, doc: str) -> str:
    """What is large about a change of params; empty where nothing is."""
    said: list[str] = []
    old, new = before.instructions or doc, after.instructions or doc
    ratio = difflib.SequenceMatcher(None, old.split(), new.split(), autojunk=False).ratio()
    if ratio < _REWRITTEN:
        said.append(f"its instructions are rewritten ({ratio:.0%} is left)")
    if after.model not in (None, before.model):
        said.append(f"it runs on another model, {after.model}")
    if after.options not in (None, before.options):
        said.append("it asks other things of the layers")
    return " and ".join(said)


class _Noticing:
    """Corrections that came, and failures that are alike. Satisfies ``Noticing``."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._looked: dict[str, tuple[float, int]] = {}

    async def __call__(self, plan: Plan, arrived: Arrived, /) -> Signal | None:
        if not arrived.latest:
            return None
        version = arrived.latest[-1].call.version or BASE
        if plan.watch.feedback and arrived.corrections >= plan.watch.feedback:
            return Signal("feedback", version, f"{arrived.corrections} corrections since the last proposal")
        clustered = await self._clustered(plan, arrived)
        return None if clustered is None else Signal("failures", version, clustered)

    async def _clustered(self, plan: Plan, arrived: Arrived) -> str | None:
        """Looked for when as many failures have come as make a cluster since it was looked for last."""
        least = plan.watch.alike
        since, before = self._looked.get(plan.program, (arrived.since, 0))
        if since != arrived.since:
            before = 0
        if not least or arrived.failures - before < least:
            return None
        self._looked[plan.program] = (arrived.since, arrived.failures)
        texts: list[str] = []
        wrong: list[bool] = []
        for one in arrived.latest[-_READ:]:
            data = await self._app.ledger.payload(self._app.scope, one.call.input_digest)
            if data is not None and one.score is not None:
                texts.append(" ".join(str(value) for value in from_json(data).values()))
                wrong.append((one.score.value or 0.0) < 0.5)
        try:
            points = await Context(await self._app.new_run()).embed(texts)
        except ConfigError as error:
            _logger.info("failures are not compared: %s", error)
            return None
        cluster = await asyncio.to_thread(alike, points.data, points.dim, wrong, least)
        if cluster is None:
            return None
        shown = texts[cluster.centre][:100]
        return (
            f"{len(cluster.failures)} of {cluster.of} inputs like {shown!r} failed, {cluster.share:.0%} "
            f"against {cluster.overall:.0%} of all"
        )
