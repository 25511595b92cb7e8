"""What learns, joined for the gateway: the programs it serves, and every tenant's runs, searches and loops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kaizen.core.answer import Answer
from kaizen.core.context import Partial, Program
from kaizen.core.errors import ConfigError, KaizenError
from kaizen.core.identity import Identity
from kaizen.core.protocols import Suspended
from kaizen.core.scope import Scope
from kaizen.serve.http.learn.seams import Learning, Served
from kaizen.serve.http.learn.work import Jobs
from kaizen.serve.load import load_program

if TYPE_CHECKING:
    from kaizen.app import App
    from kaizen.learn.evaluate.plan import Plan, Told
    from kaizen.learn.evaluate.result import Evaluation
    from kaizen.learn.experiment.experiments import Experiments
    from kaizen.learn.loop.loop import Loop
    from kaizen.serve.doors import Optimized, Optimizing

_logger = logging.getLogger(__name__)


def load_served(targets: Sequence[str]) -> Mapping[str, Served]:
    """The programs that a server is started with, by name.

    Args:
        targets: ``FILE.py:Name`` each.

    Raises:
        ConfigError: two have one name.
        NotFound, DefinitionError: see ``load_program``.
    """
    found: dict[str, Served] = {}
    for target in targets:
        program = load_program(target)
        name = program.spec.name
        if name in found:
            raise ConfigError(f"{found[name].target} and {target} are both {name}")
        found[name] = Served(program, target)
    return found


def within(app: App, scope: Scope) -> App:
    """The same App over the data of another tenant: its runs, versions and records are theirs."""
    made = copy(app)
    made.scope = scope
    return made


def make_learning(app: App, programs: Mapping[str, Served]) -> Learning:
    """What is behind the routes of what learns."""

    async def start(
        identity: Identity,
        program: Program,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        subject: str = "",
        emit: Callable[[Partial], None] | None = None,
    ) -> Answer | Suspended:
        scope = identity.scope
        program.spec.validate_inputs(inputs)  # before anything is opened
        run = replace(
            await app.new_run(),
            scope=scope,
            principal=identity.principal,
            subject=subject,
            emit=emit,
            releases=await app.releases.at(scope, program.spec.name, version),
        )
        return await app.start_run(run, program, inputs)

    return Learning(
        programs=programs,
        ledger=app.ledger,
        registry=app.registry,
        releases=app.releases,
        within=lambda scope: within(app, scope),
        start=start,
        evaluate=_evaluate,
        optimize=_optimize,
        loops=_loops,
        jobs=Jobs(app.settings.home.absolute() / "jobs"),
    )


async def _evaluate(app: App, plan: Plan, told: Told | None) -> Sequence[Evaluation]:
    from kaizen.app.learn.evaluations import evaluate_plan

    return await evaluate_plan(app, plan, told)


async def _optimize(app: App, wanted: Optimizing) -> Optimized:
    from kaizen.app.learn.optimize import optimize

    return await optimize(app, wanted)


def _loops(app: App, programs: Mapping[str, Program], turns: asyncio.Semaphore | None = None) -> Loop:
    from kaizen.app.learn.loop import make_loop

    return make_loop(app, programs, turns=turns)


def _watched(app: App, programs: Mapping[str, Program], turns: asyncio.Semaphore) -> Loop | Experiments:
    """What is looked at: a loop needs contents, an experiment only records and labels."""
    from kaizen.learn.experiment.experiments import Experiments

    return _loops(app, programs, turns) if app.settings.ledger.payloads else Experiments(app.ledger, app.registry)


async def _look(watched: Loop | Experiments, scope: Scope) -> None:
    from kaizen.app.learn.loop import look
    from kaizen.learn.experiment.experiments import Experiments

    if isinstance(watched, Experiments):
        await _judge(watched, scope)
    else:
        await look(watched, scope)


async def _close(watched: Loop | Experiments) -> None:
    from kaizen.learn.loop.loop import Loop

    if isinstance(watched, Loop):
        await watched.close()


async def _judge(experiments: Experiments, scope: Scope) -> None:
    """Look at every experiment once; what fails is told of and looked at again."""
    try:
        programs = await experiments.programs(scope)
    except KaizenError as error:
        _logger.warning("the experiments can't be read: %s", error)
        return
    for program in programs:
        try:
            await experiments.step(scope, program)
        except KaizenError as error:
            _logger.warning("the experiment on %s: %s", program, error)


async def watch_all(
    app: App,
    programs: Mapping[str, Served],
    scopes: Callable[[], Awaitable[Sequence[Scope]]],
    every: float | None = None,
) -> None:
    """Look after the loops and experiments of every tenant, again and again, until cancelled.

    Two programs are searched for at a time, whosever they are.
    Where contents are not kept there are no loops, which remember by them, and experiments alone are looked after.

    Args:
        app: where they run.
        programs: those that are loaded already.
        scopes: whose are looked after, asked anew each time.
        every: seconds between two looks; those of ``kaizen.app.learn.loop`` by default.
    """
    from kaizen.app.learn.loop import EVERY_S
    from kaizen.learn.loop.searches import TOGETHER

    turns = asyncio.Semaphore(TOGETHER)  # of all tenants: what searches compute is shared by all of them
    loaded = {name: one.program for name, one in programs.items()}
    watched: dict[Scope, Loop | Experiments] = {}
    looking: dict[Scope, asyncio.Task[None]] = {}
    try:
        while True:
            await asyncio.sleep(EVERY_S if every is None else every)
            for scope in await _known(app, scopes):
                if scope not in watched:
                    watched[scope] = _watched(within(app, scope), loaded, turns)
                # each by itself: what takes one tenant long must not stop the watch over the others
                if scope not in looking or looking[scope].done():
                    looking[scope] = asyncio.ensure_future(_look(watched[scope], scope))
    finally:
        for task in looking.values():
            task.cancel()
        await asyncio.gather(*looking.values(), return_exceptions=True)
        await asyncio.gather(*(_close(one) for one in watched.values()))


async def _known(app: App, scopes: Callable[[], Awaitable[Sequence[Scope]]]) -> Sequence[Scope]:
    try:
        return list(dict.fromkeys([app.scope, *await scopes()]))
    except KaizenError as error:
        _logger.warning("the tenants can't be read, and their loops wait: %s", error)
        return [app.scope]
