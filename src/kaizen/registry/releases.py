"""Which version of a program a run gets: a view of the labels in memory, looked up anew while requests come.

A run asks for the view once, when it begins, and keeps it: what is released meanwhile holds from the next run on. The
view is checked against the archive at most twice a second, so a move made by any process is seen within one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import AbstractEventLoop, Task
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate
from typing import Final

from kaizen.core.artifact import BASE, Move, Released, Version
from kaizen.core.context import Releases as View
from kaizen.core.errors import KaizenError, NotFound, StoreError
from kaizen.core.params import NOTHING, Params
from kaizen.core.scope import Scope
from kaizen.registry.params import params_of
from kaizen.registry.registry import LATEST, PARAMS, PROD, Registry

_logger = logging.getLogger(__name__)

_FRESH_S: Final = 0.4  # the archive is asked no more often
_STALE_S: Final = 0.8  # what is older is not used while somebody asks: with the question, still under a second
_TURN: Final = 1 << 64


class Choice:
    """What a label shows: one version, or several by weight."""

    __slots__ = ("_arms", "_edges", "_experiment")

    def __init__(self, arms: Sequence[Released], weights: Sequence[float], experiment: str | None) -> None:
        self._arms, self._experiment = arms, (experiment or "").encode()
        # the last edge is left out: whatever the weights sum to in floating point, there is always an arm
        self._edges = list(accumulate(weights))[:-1]

    def of(self, subject: str) -> Released:
        """The subject's: always the same one, as long as the label does not move."""
        if not self._edges:
            return self._arms[0]
        return self._arms[bisect_right(self._edges, share(self._experiment, subject))]


def share(experiment: bytes, subject: str) -> float:
    """Where a subject falls in an experiment, in [0, 1): even over subjects, and unlike in another experiment."""
    drawn = blake2b(subject.encode(errors="surrogatepass"), digest_size=8, key=experiment[:64])
    return int.from_bytes(drawn.digest()) / _TURN


class Unusable:
    """A label that shows what can't be run: only its own program fails, and says so."""

    __slots__ = ("_problem",)

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def of(self, subject: str) -> Released:
        """Nobody gets it."""
        del subject
        raise lasting(self._problem)


class Labels:
    """A view: what a label shows, by program. Satisfies ``core.context.Releases``."""

    __slots__ = ("choices",)

    def __init__(self, choices: Mapping[str, Choice | Unusable]) -> None:
        self.choices = choices

    def resolve(self, name: str, subject: str, /) -> Released | None:
        """The version of a program that a subject gets; no I/O.

        Raises:
            StoreError: its body is damaged, or of a newer Kaizen.
        """
        choice = self.choices.get(name)
        return None if choice is None else choice.of(subject)


def lasting(problem: str) -> StoreError:
    """An error that goes on until somebody moves the label."""
    error = StoreError(problem)
    error.retryable = False
    return error


NO_RELEASES: Final = Labels({})
"""The params in the code, for every program."""


@dataclass(slots=True)
class _Seen:
    """What was read of a scope.

    Args:
        state: of the archive, before it was read.
        changes: of the registry, before it was read.
        at: monotonic seconds when that was known to hold.
        prod: the view for runs that ask for nothing else.
        whole: the views for others, made when asked for.
    """

    state: int
    changes: int
    at: float
    prod: Labels
    moves: Sequence[Move]
    whole: dict[str, Labels] = field(default_factory=dict[str, Labels])


class Releases:
    """The views of a process.

    Args:
        registry: where versions and labels are.
        clock: monotonic seconds.

    Attributes:
        registry: the same.
    """

    def __init__(self, registry: Registry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry, self._clock = registry, clock
        self._seen: dict[Scope, _Seen] = {}
        self._reading: dict[tuple[AbstractEventLoop, Scope], Task[_Seen]] = {}
        self._params: dict[tuple[Scope, str, str], tuple[int, Params]] = {}

    async def ready(self, scope: Scope) -> View:
        """What runs where nothing else is said: ``prod`` where there is such a label, else the params in the code.

        Where the archive can't be asked, what was seen last goes on to hold, with a warning.

        Raises:
            StoreError: nothing was seen yet.
        """
        seen = self._seen.get(scope)
        if seen is not None and seen.changes == self.registry.changes:
            age = self._clock() - seen.at
            if age < _FRESH_S or (age < _STALE_S and self._reads(scope)):
                return seen.prod
        return (await self._look(scope)).prod

    async def at(self, scope: Scope, name: str, which: str = "") -> View:
        """What runs if ``which`` is asked for of a program: ``kaizen run --version``.

        Args:
            scope: whose.
            name: the program's. Others of the same run follow where they can: to ``base``, ``latest`` or the label, if
                they have it; else, and with a number, they run ``prod``.
            which: empty for ``prod`` where there is such a label and else ``base``; ``base``, the params in the code;
                ``latest``, the newest version, ``base`` where there is none; a label; a number or content address.

        Raises:
            NotFound: there is no such version; says what there is.
        """
        if which == BASE:
            return NO_RELEASES
        view = await self.ready(scope)
        if which in ("", PROD):
            return view
        seen = self._seen[scope]
        if which == LATEST:
            newest = seen.whole.get(LATEST)
            if newest is None:
                newest = seen.whole[LATEST] = await self._latest(scope)
            return newest
        if any(move.label == which and move.name == name for move in seen.moves):
            known = seen.whole.get(which)
            if known is None:
                shown = await self._choices(scope, seen.moves, which)
                known = seen.whole[which] = Labels({**seen.prod.choices, **shown})
            return known
        if not await self.registry.heads(scope, PARAMS, name):
            raise NotFound(f"{name} has no version {which}: it has only {BASE}, the params in the code")
        version = await self.registry.version(scope, PARAMS, name, which)
        return Labels({**seen.prod.choices, name: self._only(scope, version, which)})

    # -- inside -----------------------------------------------------------------------------------

    def _reads(self, scope: Scope) -> bool:
        return any(reading == scope for _, reading in tuple(self._reading))

    async def _look(self, scope: Scope) -> _Seen:
        """Ask the archive, once for all who wait for it on this loop."""
        key = (asyncio.get_running_loop(), scope)
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = key[0].create_task(self._read(scope))
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)  # one who is cancelled must not take it from the others

    def _done(self, key: tuple[AbstractEventLoop, Scope], task: Task[_Seen]) -> None:
        self._reading.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at, should nobody wait for it any more

    async def _read(self, scope: Scope) -> _Seen:
        before, changes, now = self._seen.get(scope), self.registry.changes, self._clock()
        try:
            # the count before what it counts: a move in between is found by the next look
            state = await self.registry.archive.state(scope, PARAMS)
            if before is not None and before.state == state:
                before.at, before.changes = now, changes
                return before
            moves = await self.registry.archive.moves(scope, PARAMS)
            choices = await self._choices(scope, moves, PROD)
        except StoreError as error:
            if before is None:
                raise
            _logger.warning("the registry can't be read, and what was released before goes on to run: %s", error)
            before.at = now
            return before
        seen = self._seen[scope] = _Seen(state, changes, now, Labels(choices), moves)
        return seen

    async def _choices(self, scope: Scope, moves: Sequence[Move], label: str) -> dict[str, Choice | Unusable]:
        last = {move.name: move for move in moves if move.label == label}
        made: dict[str, Choice | Unusable] = {}
        for name, move in last.items():
            try:
                made[name] = await self._choice(scope, move)
            except StoreError as error:
                if error.retryable:  # the archive, not what it holds
                    raise
                _logger.warning("%s", error)
                made[name] = Unusable(str(error))
        return made

    async def _choice(self, scope: Scope, move: Move) -> Choice:
        experiment = move.id if len(move.arms) > 1 else None
        arms = [await self._released(scope, move, arm.version, experiment, at) for at, arm in enumerate(move.arms)]
        return Choice(arms, [arm.weight for arm in move.arms], experiment)

    async def _released(self, scope: Scope, move: Move, version: str, experiment: str | None, at: int) -> Released:
        if version == BASE:
            return Released(NOTHING, BASE, 0, move.name, move.label, experiment, at)
        key = (scope, move.name, version)
        known = self._params.get(key)
        if known is None:
            found = await self.registry.archive.find(scope, PARAMS, move.name, version)
            if found is None:
                raise lasting(f"the version {version} that {move.name}@{move.label} shows is not there")
            known = self._params[key] = (found.number, self._params_in(found, move.label))
        return Released(known[1], version, known[0], move.name, move.label, experiment, at)

    async def _latest(self, scope: Scope) -> Labels:
        newest = {head.name: head for head in await self.registry.heads(scope, PARAMS)}
        made: dict[str, Choice | Unusable] = {}
        for name, head in newest.items():
            version = await self.registry.version(scope, PARAMS, name, head.version)
            made[name] = self._only(scope, version, LATEST)
        return Labels(made)

    def _only(self, scope: Scope, version: Version, label: str) -> Choice:
        artifact = version.artifact
        key = (scope, artifact.name, artifact.version)
        if key not in self._params:
            self._params[key] = (version.number, self._params_in(version, label))
        number, params = self._params[key]
        return Choice([Released(params, artifact.version, number, artifact.name, label)], [1.0], None)

    @staticmethod
    def _params_in(version: Version, label: str) -> Params:
        try:
            return params_of(version.artifact)
        except KaizenError as error:
            artifact = version.artifact
            raise lasting(f"{artifact.name}@{label}, version {version.number}, can't be used: {error}") from None
