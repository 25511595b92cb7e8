"""What a loop sees: the scores of a program and the moves of its label, in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kaizen.core.artifact import BASE, Move
from kaizen.core.record import Record
from kaizen.core.scope import Scope
from kaizen.learn.feed import Feed, News
from kaizen.learn.loop.monitor import Monitor, Signal
from kaizen.learn.loop.plan import Plan
from kaizen.learn.loop.seams import Arrived
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.scores import said_with
from kaizen.registry.registry import PARAMS, Registry

LOOP: Final = "loop"
"""The actor of a loop's moves."""
_LOOKED_BACK_S: Final = 30 * 86_400.0
_RECENT: Final = 400


@dataclass(frozen=True, slots=True)
class Seen:
    """A signal, and Unix seconds of the score that gave it."""

    at: float
    signal: Signal


class Watching:
    """One plan, watched. All of it can be made again from ledger and registry.

    Args:
        ledger: where scores lie.
        registry: where labels are.
        scope: whose.
        plan: what is watched, and how.
        began: Unix seconds since when the loop acts; scores of the 30 days before tell it the level.
        clock: Unix seconds.

    Attributes:
        monitor: what is known of each version.
        recent: the latest scores.
        pending: signals that were not answered yet.
    """

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        scope: Scope,
        plan: Plan,
        began: float,
        clock: Callable[[], float],
    ) -> None:
        self._ledger, self._registry, self._scope = ledger, registry, scope
        self.plan, self.began = plan, began
        self._since = began - _LOOKED_BACK_S
        self._feed = Feed(ledger, scope, plan.program, plan.scores, self._since, calls=False, clock=clock)
        self._moves: set[str] | None = None
        self.monitor = Monitor(plan.watch, BASE)
        self.recent: Sequence[News] = ()
        self.pending: list[Seen] = []
        # since the last proposal, by time: any number may come, while ``recent`` holds so many only
        self._failed: list[float] = []
        self._corrected: list[float] = []
        self._said: list[tuple[float, Record]] = []  # with a comment or a correction, not read yet

    async def look(self) -> None:
        """Take in what has come since the last look."""
        plan = self.plan
        moves = await self._registry.history(self._scope, PARAMS, plan.program, plan.label)
        if self._moves is None:
            before = [move for move in moves if move.at <= self._since]
            single = [move for move in before if len(move.arms) == 1]
            self.monitor = Monitor(plan.watch, single[-1].arms[0].version if single else BASE)
            self._moves = {move.id for move in before}
        fresh = [move for move in moves if move.id not in self._moves]
        news = await self._feed.news()
        self._moves |= {move.id for move in fresh}  # nothing is waited for from here on: all of it is taken in, or none
        self.recent = [*self.recent, *news][-_RECENT:]
        # in the order they came; a score of the same moment as a move is about a call before it
        waiting = list(fresh)
        for one in news:
            while waiting and waiting[0].at < one.at:
                self._move(waiting.pop(0))
            self._score(one.at, one)
        for move in waiting:
            self._move(move)

    def answered(self, upto: float) -> None:
        """Signals up to then need no further answer."""
        self.pending = [one for one in self.pending if one.at > max(upto, self.began)]

    async def arrived(self, since: float) -> Arrived:
        """What has come since then.

        Args:
            since: Unix seconds of the last proposal: never earlier than the time before.
        """
        while self._said:
            at, score = self._said[-1]
            if at > since and (await said_with(self._ledger, score)).correct is not None:
                self._corrected.append(at)
            self._said.pop()
        self._failed = [at for at in self._failed if at > since]
        self._corrected = [at for at in self._corrected if at > since]
        latest = [one for one in self.recent if one.at > since]
        return Arrived(since=since, latest=latest, failures=len(self._failed), corrections=len(self._corrected))

    def _move(self, move: Move) -> None:
        if len(move.arms) != 1:
            return  # an experiment: the control goes on to be what is watched
        version = move.arms[0].version
        if version != self.monitor.version:
            self.pending.clear()  # they were about another version
        if move.undoes or move.actor == LOOP:
            self.monitor.returned(version)
        else:
            self.monitor.released(version)

    def _score(self, at: float, news: News) -> None:
        version, score = news.call.version, news.score
        if score is None or score.value is None:
            return
        if at > self.began and score.value < 0.5:
            self._failed.append(at)
        if at > self.began and score.output_digest is not None and self.plan.watch.feedback:
            self._said.append((at, score))
        if version is None:
            return
        signal = self.monitor.score(version, news.subject, min(1.0, max(0.0, score.value)))
        if signal is not None:
            self.pending.append(Seen(at, signal))
