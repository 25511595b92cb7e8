"""Calls of a program and scores about them, as they come: read from the ledger again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.ledger.ledger import Ledger

_OVERLAP_S: Final = 120.0
"""Records have the time they began at in their ids and are kept when they end: what is this old is looked for again."""
_KEPT: Final = 65_536
_OWN: Final = "kaizen."


@dataclass(frozen=True, slots=True)
class News:
    """A call, or a score about one.

    Args:
        at: when it was known, Unix seconds: a call's end, a score's own time.
        call: the program call.
        score: the score about it; None for the call itself.
    """

    at: float
    call: Record
    score: Record | None = None

    @property
    def subject(self) -> str:
        """Whom the call was for: its run's subject, else who acted, else the run itself."""
        return self.call.subject or self.call.principal or self.call.run_id


class Feed:
    """What users' calls of one program bring; evaluations and optimizers are left out.

    A call that takes longer than two minutes is not seen itself; its scores are.

    Args:
        ledger: where they lie.
        scope: whose.
        program: the program's name.
        metric: name of the scores; None for all.
        since: Unix seconds; earlier ones are left out.
        until: Unix seconds; what began or was said from then on is left out.
        calls: whether calls are read, too, or only scores.
        clock: Unix seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        scope: Scope,
        program: str,
        metric: str | None,
        since: float,
        *,
        until: float | None = None,
        calls: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger, self._scope, self._program, self._metric = ledger, scope, program, metric
        self._since, self._read_to, self._calls, self._clock = since, since, calls, clock
        self._until = until
        self._seen: set[str] = set()
        self._known: dict[str, Record | None] = {}
        self._live: dict[str, bool] = {}

    async def news(self) -> Sequence[News]:
        """What has come since the last call of this that did not fail, by time."""
        now = self._clock()
        floor = id_at(max(self._since, self._read_to - _OVERLAP_S))
        # scores first: the call that a score is about was kept before it, so it is found by what is read after
        scores = await self._new(RecordQuery(kind="score", ref=self._metric, after=floor, until=self._until))
        programs = RecordQuery(kind="program", ref=self._program, after=floor, until=self._until)
        calls = await self._new(programs) if self._calls else []
        found: list[News] = []
        for call in calls:
            self._remember(call)
            if await self._is_live(call):
                found.append(News(call.started_at + call.latency_ms / 1000, call))
        for score in scores:
            about = await self._about(score)
            if about is not None and await self._is_live(about):
                found.append(News(score.started_at, about, score))
        # only now that all of it was read: what a store failed at is looked for again
        self._read_to = now
        self._seen = {one for one in self._seen if one > floor} | {one.id for one in (*scores, *calls)}
        return sorted(found, key=lambda one: (one.at, one.score is not None, (one.score or one.call).id))

    async def _new(self, query: RecordQuery) -> list[Record]:
        return [one async for one in self._ledger.records(self._scope, query) if one.id not in self._seen]

    async def _about(self, score: Record) -> Record | None:
        """The call of the program that a score is about; None for one about something else."""
        if score.about is None or score.value is None:
            return None
        if score.about not in self._known:
            self._remember(await self._ledger.store.record(self._scope, score.about), score.about)
        about = self._known[score.about]
        return about if about is not None and about.kind == "program" and about.ref == self._program else None

    def _remember(self, record: Record | None, key: str = "") -> None:
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[record.id if record is not None else key] = record

    async def _is_live(self, call: Record) -> bool:
        """Whether somebody's call began this run. Rows of an evaluation are branches, or below a program of our own."""
        if call.parent_id is None:
            return call.step == "0"
        if call.run_id not in self._live:
            if len(self._live) >= _KEPT:
                self._live.clear()
            self._live[call.run_id] = await self._begun_live(call)
        return self._live[call.run_id]

    async def _begun_live(self, call: Record) -> bool:
        query = RecordQuery(kind="program", run_id=call.run_id, root_only=True)
        roots = [one async for one in self._ledger.records(self._scope, query)]
        # a root that has not ended has no record yet: its calls are live, since ours keep theirs first
        return all(root.step == "0" and not root.ref.startswith(_OWN) for root in roots)


def id_at(seconds: float) -> str:
    """What ids made from then on come after."""
    text = f"{max(0, int(seconds * 1000)):012x}"
    return f"{text[:8]}-{text[8:]}"
