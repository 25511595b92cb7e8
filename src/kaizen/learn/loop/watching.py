"""What a loop sees: the scores of a program and the moves of its label, in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kaizen.core.artifact import BASE, Move
from kaizen.core.scope import Scope
from kaizen.learn.feed import Feed, News
from kaizen.learn.loop.monitor import Monitor, Signal
from kaizen.learn.loop.plan import Plan
from kaizen.ledger.ledger import Ledger
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
        self._registry, self._scope = registry, scope
        self.plan, self.began = plan, began
        self._since = began - _LOOKED_BACK_S
        self._feed = Feed(ledger, scope, plan.program, plan.scores, self._since, calls=False, clock=clock)
        self._moves: set[str] | None = None
        self.monitor = Monitor(plan.watch, BASE)
        self.recent: Sequence[News] = ()
        self.pending: list[Seen] = []

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
        self._moves |= {move.id for move in fresh}
        news = await self._feed.news()
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
        if version is None or score is None or score.value is None:
            return
        signal = self.monitor.score(version, news.subject, min(1.0, max(0.0, score.value)))
        if signal is not None:
            self.pending.append(Seen(at, signal))
