"""Experiments on live traffic: a label is split, its calls and scores are read, and the winner gets the label.

All that is known of one lies in the registry and the ledger: what it is (an artifact), where it stands (labels of that
artifact: ``running``, then how it ended), who got what (records), so any process can go on with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast, get_args

from kaizen.core.artifact import BASE, Arm, Move, Version
from kaizen.core.errors import Conflict, InvalidInput, NotFound
from kaizen.core.scope import Scope
from kaizen.learn.experiment.definition import KIND, Definition, Standing, State, Verdict, definition_of
from kaizen.learn.experiment.trial import Call, Trial
from kaizen.learn.feed import Feed
from kaizen.ledger.ledger import Ledger
from kaizen.registry.params import params_of
from kaizen.registry.registry import LATEST, PARAMS, Registry

_RUNNING: Final = "running"
_STATES: Final = get_args(State)
_SPLITTING_S: Final = 60.0
"""Seconds after its mark at which an experiment whose label is not split was given up by who began it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment as it stands.

    Args:
        number: of its artifact.
        version: content address of its artifact.
        definition: what it is.
        state: where it is.
        reason: why it ended, with the numbers; empty while it runs.
        standings: of its arms, the control first.
        ended: Unix seconds; None while it runs.
        others: how many scores of other names came, which decide nothing.
    """

    number: int
    version: str
    definition: Definition
    state: State
    reason: str
    standings: Sequence[Standing]
    ended: float | None = None
    others: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class _Live:
    trial: Trial
    feed: Feed
    split: Move
    last: Move
    others: Counter[str] = field(default_factory=Counter[str])


class Experiments:
    """Starts, judges and ends experiments.

    Args:
        ledger: where calls and scores lie.
        registry: where versions and labels are.
        clock: Unix seconds.
    """

    def __init__(self, ledger: Ledger, registry: Registry, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._registry, self._clock = ledger, registry, clock
        self._live: dict[tuple[Scope, str], _Live] = {}
        self._over: dict[tuple[Scope, str], Experiment] = {}

    async def start(self, scope: Scope, definition: Definition, *, actor: str, reason: str = "") -> Experiment:
        """Keep the definition, then split the label's traffic.

        Raises:
            Conflict: one is running on this program or begins at the same time, the label moves at the same time, or
                two arms were made for different contracts.
            NotFound: there is no such version.
        """
        program, label = definition.program, definition.label
        marks = await self._marks(scope, program)
        running = await self._running(scope, program, marks)
        if running is not None:
            raise Conflict(
                f"experiment {running.number} is running on {program}: `kaizen experiment stop {program}` ends it"
            )
        moves = await self._registry.history(scope, PARAMS, program, label)
        known = {head.version for head in await self._registry.heads(scope, PARAMS, program)} | {BASE}
        if lacking := [arm.version for arm in definition.arms if arm.version not in known]:
            raise NotFound(f"{program} has no version {lacking[0]}")
        await self._check_contracts(scope, definition)
        version = await self._registry.put(scope, definition.artifact(), author=actor, reason=reason or "experiment")
        address = version.artifact.version
        # of two that begin at once one is refused here, before it has split anything
        begun = [mark.id for mark in marks if mark.label == _RUNNING]
        since = begun[-1] if begun else ""
        await self._mark(scope, program, address, _RUNNING, actor, reason or "begun", since=since)
        try:
            split = await self._registry.label(
                scope,
                PARAMS,
                program,
                label,
                definition.arms,
                actor=_actor(address),
                reason=f"experiment {version.number} begins: {reason or definition.metric}",
                since=moves[-1].id if moves else "",
            )
        except BaseException:
            # the label may have moved though the answer was lost: then it goes back
            verdict = Verdict("stopped", 0, "its traffic could not be split", self._clock())
            await self._end(scope, version, None, verdict)
            raise
        if _last_of(await self._marks(scope, program))[address].label != _RUNNING:
            # it took so long that a look in between held it for given up: from here on it is looked after again
            await self._mark(scope, program, address, _RUNNING, actor, reason or "begun")
        # nothing has come yet, and what is read of it belongs to who judges it
        return await self._report(scope, version, self._watched(scope, definition, split))

    async def programs(self, scope: Scope) -> Sequence[str]:
        """Names of the programs that have an experiment running."""
        marks: dict[str, list[Move]] = {}
        for move in await self._registry.archive.moves(scope, KIND):
            if move.label in _STATES:
                marks.setdefault(move.name, []).append(move)
        return [name for name, moves in marks.items() if _running_of(moves)]

    async def status(self, scope: Scope, program: str) -> Experiment | None:
        """The latest experiment on a program, judged by what there is now, nothing moved; None where there was none."""
        marks = await self._marks(scope, program)
        if not marks:
            return None
        address = _running_of(marks) or marks[-1].arms[0].version
        return await self._report(scope, await self._registry.version(scope, KIND, program, address))

    async def step(self, scope: Scope, program: str) -> Experiment | None:
        """Judge the running experiment by what there is now, and move the label if it is over; None where none runs.

        One whose label somebody else moved is over, too: no more subjects come, so no rule would ever end it.
        """
        marks = await self._marks(scope, program)
        version = await self._running(scope, program, marks)
        if version is None:
            self._live.pop((scope, program), None)  # another process ended it: what was read of it is of no more use
            return None
        address = version.artifact.version
        live = await self._read(scope, version)
        if live is None:
            if self._clock() - _last_of(marks)[address].at < _SPLITTING_S:
                return await self._report(scope, version)  # who began it is about to split the label
            verdict = Verdict("stopped", 0, "its traffic was never split", self._clock())
            return await self._end(scope, version, None, verdict)
        live.trial.due(self._clock())
        verdict = live.trial.verdict
        if verdict is None and live.last.id != live.split.id:
            # moved by hand, which is told at the end, or by who ended it and died before it could say so
            verdict = Verdict("stopped", 0, live.last.reason, live.last.at)
        if verdict is None:
            return await self._report(scope, version, live)
        return await self._end(scope, version, live, verdict)

    async def stop(self, scope: Scope, program: str, *, actor: str, reason: str) -> Experiment:
        """End the running experiment by hand; the control gets the label back.

        Raises:
            NotFound: none is running.
        """
        version = await self._running(scope, program, await self._marks(scope, program))
        if version is None:
            raise NotFound(f"no experiment is running on {program}")
        live = await self._read(scope, version)
        verdict = Verdict("stopped", 0, f"stopped by {actor}: {reason}", self._clock())
        return await self._end(scope, version, live, verdict)

    # -- inside -----------------------------------------------------------------------------------

    async def _marks(self, scope: Scope, program: str) -> Sequence[Move]:
        """Where the experiments on a program stood, oldest first."""
        moves = await self._registry.history(scope, KIND, program)
        return [move for move in moves if move.label in _STATES]

    async def _running(self, scope: Scope, program: str, marks: Sequence[Move]) -> Version | None:
        address = _running_of(marks)
        return None if address is None else await self._registry.version(scope, KIND, program, address)

    async def _check_contracts(self, scope: Scope, definition: Definition) -> None:
        """Whatever contract the program has: of versions made for two, one fails every call."""
        program = definition.program
        made = [
            params_of((await self._registry.version(scope, PARAMS, program, arm.version)).artifact).contract
            for arm in definition.arms
            if arm.version != BASE
        ]
        if len({contract for contract in made if contract is not None}) > 1:
            raise Conflict(f"versions of {program} that were made for different contracts can't be compared")

    async def _split(self, scope: Scope, definition: Definition, address: str) -> tuple[Move | None, Move | None]:
        """The move that split the label for an experiment, and the label's last move."""
        moves = await self._registry.history(scope, PARAMS, definition.program, definition.label)
        own = [move for move in moves if move.actor == _actor(address) and len(move.arms) > 1]
        return (own[-1] if own else None), (moves[-1] if moves else None)

    def _watched(self, scope: Scope, definition: Definition, split: Move, until: float | None = None) -> _Live:
        """An experiment of which nothing is read yet."""
        # overlapping what came a moment before the split costs nothing: it has no arm
        since = split.at - 1
        feed = Feed(self._ledger, scope, definition.program, None, since, until=until, clock=self._clock)
        return _Live(Trial(replace(definition, begun=split.at)), feed, split, split)

    async def _read(self, scope: Scope, version: Version, until: float | None = None) -> _Live | None:
        """The experiment with all that has come; None where its label was never split.

        Where it is said until when, it is over: it is read once, and not kept to be read on.
        """
        artifact = version.artifact
        key = (scope, artifact.name)
        definition = definition_of(artifact)
        split, last = await self._split(scope, definition, artifact.version)
        if split is None or last is None:
            return None
        live = self._live.get(key)
        if live is None or live.split.id != split.id or until is not None:
            live = self._watched(scope, definition, split, until)
            if until is None:
                self._live[key] = live
        live.last = last
        places = {arm.version: place for place, arm in enumerate(definition.arms)}
        for news in await live.feed.news():
            call, score = news.call, news.score
            arm = places.get(call.version or "")
            if arm is None or call.experiment != live.split.id:
                continue
            if score is None:
                failed = call.status == "error"
                if failed or call.status == "ok":
                    live.trial.call(Call(news.subject, arm, news.at, failed, call.latency_ms, call.cost_usd))
            elif score.ref == definition.metric and score.value is not None:
                live.trial.score(news.subject, arm, score.value, news.at)
            elif score.ref != definition.metric:
                live.others[score.ref] += 1
        return live

    async def _end(self, scope: Scope, version: Version, live: _Live | None, verdict: Verdict) -> Experiment:
        """Give the label to who has it from here on, then say how it ended.

        A process that dies in between is followed by one that finds the label moved already and only says so.
        """
        artifact = version.artifact
        definition, address = definition_of(artifact), artifact.version
        split, last = await self._split(scope, definition, address)
        if split is not None and last is not None:
            if last.id == split.id:
                arm = definition.arms[verdict.arm]
                await self._registry.label(
                    scope,
                    PARAMS,
                    definition.program,
                    definition.label,
                    [Arm(arm.version)],
                    actor=_actor(address),
                    reason=f"experiment {version.number} {verdict.state}: {verdict.reason}",
                    since=split.id,
                )
            elif last.actor != _actor(address):
                said = f"{definition.label} was moved by {last.actor} while it ran: {last.reason}"
                verdict = Verdict("stopped", 0, said, last.at)
        await self._mark(scope, definition.program, address, verdict.state, _actor(address), verdict.reason)
        return await self._report(scope, version, live)

    async def _mark(
        self, scope: Scope, program: str, address: str, state: str, actor: str, reason: str, *, since: str | None = None
    ) -> None:
        arms = [Arm(address)]
        await self._registry.label(scope, KIND, program, state, arms, actor=actor, reason=reason, since=since)

    async def _report(self, scope: Scope, version: Version, live: _Live | None = None) -> Experiment:
        artifact = version.artifact
        mark = _last_of(await self._marks(scope, artifact.name))[artifact.version]
        over = mark.label != _RUNNING
        key = (scope, artifact.name)
        if over:
            known = self._over.get(key)
            if known is not None and (known.version, known.ended) == (artifact.version, mark.at):
                return known
            self._live.pop(key, None)
        live = live or await self._read(scope, version, mark.at if over else None)
        made = Experiment(
            number=version.number,
            version=artifact.version,
            definition=definition_of(artifact),
            state=cast("State", mark.label),
            reason=mark.reason if over else "",
            standings=[] if live is None else live.trial.standings(),
            ended=mark.at if over else None,
            others={} if live is None else live.others,
        )
        if over:
            self._over[key] = made
        return made


def _last_of(marks: Sequence[Move]) -> dict[str, Move]:
    """Each experiment's own last mark, by its address."""
    return {mark.arms[0].version: mark for mark in marks}


def _running_of(marks: Sequence[Move]) -> str | None:
    """Which experiment is running: its own last mark says so, whatever was said of another one after it."""
    running = [address for address, mark in _last_of(marks).items() if mark.label == _RUNNING]
    return running[-1] if running else None


async def arms_of(registry: Registry, scope: Scope, program: str, text: str, label: str) -> tuple[Arm, ...]:
    """Arms as they are written: ``prod=0.5,latest=0.5``; the first is the control.

    The label's own name stands for what it shows, ``base`` where there is no such label yet.

    Raises:
        InvalidInput: they are not written so.
        NotFound: there is no such version.
    """
    made: list[Arm] = []
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        try:
            share = float(weight)
        except ValueError:
            share = -1.0
        if not name or not equals or not 0 < share < 1:
            raise InvalidInput(f"{part.strip()!r} is no arm: it should be a version and its share, such as latest=0.5")
        made.append(Arm(await version_of(registry, scope, program, name, label), share))
    return tuple(made)


async def version_of(registry: Registry, scope: Scope, program: str, which: str, label: str = "prod") -> str:
    """The content address that a word stands for, or ``base``.

    Raises:
        NotFound: it stands for none.
        Conflict: it is a label that is split.
    """
    if which == BASE:
        return BASE
    shown = await registry.arms(scope, PARAMS, program, which)
    if shown is not None and len(shown) == 1:
        return shown[0].version
    if (
        shown is None
        and which in (label, LATEST)
        and (which == label or not await registry.heads(scope, PARAMS, program))
    ):
        return BASE
    return (await registry.version(scope, PARAMS, program, which)).artifact.version


def _actor(address: str) -> str:
    return f"experiment:{address}"
