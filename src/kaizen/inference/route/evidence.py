"""What the records show of each model: how good its answers were judged, and how long they were."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kaizen.core.protocols import Store
from kaizen.core.record import Kind, Record, RecordQuery
from kaizen.core.request import Usage
from kaizen.core.scope import Scope
from kaizen.inference.route.candidates import BYTES_A_TOKEN, UNKNOWN, Worth

SCALE: Final = 5.0
"""The best quality there is."""

# Records that are read at first, the newest; then those that came since, with some overlap, as another process may
# append a record a moment after one that is newer.
_FIRST: Final = 5000
_OVERLAP_S: Final = 60.0
_SCOPES: Final = 1024
_MODELS: Final = 4096


@dataclass(frozen=True, slots=True)
class Judging:
    """How scores become qualities.

    Args:
        best: the score that is worth 5; 0 is worth 0.
        least: fewer scores than this tell nothing.
        names: the scores that count; none named means all.
        every: seconds after which the records are looked at again.
    """

    best: float = 1.0
    least: int = 5
    names: frozenset[str] = frozenset()
    every: float = 30.0


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    n: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.n += 1


@dataclass(slots=True)
class Book:
    """What is known in one scope. A task of None is all tasks together."""

    scores: dict[tuple[str | None, str], _Mean] = field(default_factory=dict[tuple[str | None, str], _Mean])
    written: dict[tuple[str | None, str], _Mean] = field(default_factory=dict[tuple[str | None, str], _Mean])
    due: float = 0.0
    since: dict[str, float] = field(default_factory=dict[str, float])
    read: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])

    def tokens_out(self, task: str | None, model: str) -> tuple[float | None, int]:
        """Mean tokens of the model's answers, to this type of task if it had any, and of how many answers."""
        mean = self.written.get((task, model)) or self.written.get((None, model))
        return (None, 0) if mean is None else (mean.total / mean.n, mean.n)


class Evidence:
    """Reads scores and answers from the records of a scope, at the first need and then every so often.

    Nothing crosses scopes: what one tenant's users think of a model is not shown by another's routes.

    Args:
        store: where the records lie.
        judging: how scores become qualities.
        clock: seconds that only grow.
    """

    def __init__(self, store: Store, judging: Judging, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._judging, self._clock = store, judging, clock
        self._books: OrderedDict[Scope, Book] = OrderedDict()
        self._bytes: OrderedDict[str, _Mean] = OrderedDict()

    async def of(self, scope: Scope) -> Book:
        """What is known in this scope."""
        book = self._books.get(scope)
        if book is None:
            book = self._books[scope] = Book()
            if len(self._books) > _SCOPES:
                self._books.popitem(last=False)
        self._books.move_to_end(scope)
        now = self._clock()
        if now >= book.due:
            book.due = now + self._judging.every  # first, so that calls meanwhile go on with what is known
            try:
                for kind in ("score", "model"):
                    await self._read(scope, book, kind)
            except BaseException:
                book.due = 0.0
                raise
        return book

    def worth(self, book: Book, task: str | None, model: str) -> Worth:
        """Mean score of a model's answers to this type of task, on the scale of 5; unknown where there are too few."""
        mean = book.scores.get((task, model))
        if mean is None or mean.n < self._judging.least:
            return Worth(None, mean.n) if mean is not None else UNKNOWN
        return Worth(SCALE * mean.total / mean.n, mean.n, "scores")

    def bytes_a_token(self, model: str) -> float:
        """Bytes of a prompt for each token that the model counted in it."""
        mean = self._bytes.get(model)
        return BYTES_A_TOKEN if mean is None else mean.total / mean.n

    def observe(self, model: str, prompt_bytes: int, usage: Usage) -> None:
        """An answer came: what its provider counted."""
        if usage.tokens_in and prompt_bytes and not usage.estimated:
            mean = self._bytes.setdefault(model, _Mean())
            mean.total += prompt_bytes
            mean.n += usage.tokens_in
            if len(self._bytes) > _MODELS:
                self._bytes.popitem(last=False)

    async def _read(self, scope: Scope, book: Book, kind: Kind) -> None:
        since = book.since.get(kind)
        query = RecordQuery(
            kind=kind, newest_first=True, limit=_FIRST, since=None if since is None else since - _OVERLAP_S
        )
        async for record in self._store.records(scope, query):
            if record.id in book.read:
                continue
            book.since[kind] = max(book.since.get(kind, 0.0), record.started_at)
            book.read[record.id] = None
            if kind == "score":
                await self._judged(scope, book, record)
            elif record.status == "ok" and record.cache_tier == "model" and record.model is not None:
                for task in {record.task, None}:
                    book.written.setdefault((task, record.model), _Mean()).add(record.tokens_out)
        while len(book.read) > 4 * _FIRST:
            book.read.popitem(last=False)

    async def _judged(self, scope: Scope, book: Book, score: Record) -> None:
        how = self._judging
        if score.value is None or score.about is None or (how.names and score.ref not in how.names):
            return
        about = await self._store.record(scope, score.about)
        model = score.model or (None if about is None else about.model)
        if about is None or model is None:
            return
        share = min(1.0, max(0.0, score.value / how.best))
        for task in {await self._task(scope, about), None}:
            book.scores.setdefault((task, model), _Mean()).add(share)

    async def _task(self, scope: Scope, about: Record) -> str | None:
        """The type of task that a judged call was: its own, that of a model call below it, or else its program."""
        if about.task is not None or about.kind != "program":
            return about.task
        async for call in self._store.records(scope, RecordQuery(run_id=about.run_id, kind="model")):
            if call.parent_id == about.id and call.task is not None:
                return call.task
        return about.ref
