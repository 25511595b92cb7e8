"""The board: candidates, what each scored on which rows and cost; and the seam that every optimizer fits."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, Protocol, cast

from kaizen.core.artifact import Artifact
from kaizen.core.context import Context, Program
from kaizen.core.errors import (
    AuthFailed,
    ConfigError,
    Conflict,
    Denied,
    KaizenError,
    OutputInvalid,
    ProviderError,
    Unsupported,
)
from kaizen.core.ids import digest
from kaizen.core.params import Params
from kaizen.learn.budget import Purse, Spent
from kaizen.learn.data.rows import Row, canonical
from kaizen.learn.figures import Figures, figures_of
from kaizen.learn.front import front
from kaizen.learn.optimize.task import Candidate, Outcome, Part, Task
from kaizen.learn.optimize.trial import Frozen, Used, in_time, outcomes_adapter, score_rows, sums, used_of, watched
from kaizen.learn.ranking import task_kind
from kaizen.registry.params import stated

KIND: Final = "candidate"
_WALKED: Final = 3
_STRIDE: Final = 8


@dataclass(frozen=True, slots=True)
class Event:
    """The state of a search, after each step of it.

    Args:
        what: what was done.
        used, limit: model calls, of those the search may use; the limit is None without one.
        candidates: how many there are.
        base, best: mean scores on the rows to choose by; None before they are known.
        how: how the best came about.
    """

    what: str
    used: int
    limit: int | None
    candidates: int
    base: float | None
    best: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate's figures on the rows to choose by.

    Args:
        candidate: which.
        score: mean of the metric over the rows it was scored on.
        rows: how many those are.
        usd: mean dollars a row; None where a price is not known.
        tokens: mean tokens a row.
        calls: mean model calls a row.
    """

    candidate: Candidate
    score: float
    rows: int
    usd: float | None
    tokens: float
    calls: float

    @property
    def cost(self) -> float:
        """Dollars a row, or tokens where dollars are not known: for comparing candidates of one board."""
        return self.tokens if self.usd is None else self.usd


class Board:
    """Keeps and scores candidates for one search.

    A candidate is scored on a row once, however often it is asked for: scoring it on more rows pays for those alone.

    Args:
        task: what is searched for.
        purse: what the search may use.
        told: hears of each step.

    Attributes:
        base: the program as it is.
        start: what a search changes: the base, or the best of the searches before it.
        stage: the name of the search that is at work.
        parts: the programs that have params, by name: found when the base is scored.
        each: model calls that the base takes for one row.
        chosen: a candidate that a search has picked by something else than its score, such as its cost.
    """

    def __init__(self, task: Task, purse: Purse, told: Callable[[Event], None] | None = None) -> None:
        self.task, self._told = task, told
        self.base = self.start = Candidate(task.start, "the program as it is")
        self.parts: dict[str, Part] = {}
        self.each = 1.0
        self.chosen: Candidate | None = None
        self._purses = [purse]
        self.stage = ""
        self._stages: dict[str, str] = {}
        self._candidates: dict[str, Candidate] = {self.base.id: self.base}
        self._scores: dict[tuple[str, str], Outcome] = {}
        self._keys: dict[str, tuple[int, float]] = {}
        self._met: dict[str, set[str]] = {}
        self._rows = {row.key: row for row in (*task.train, *task.val)}
        self._val = [row.key for row in task.val]

    # -- what is left -----------------------------------------------------------------------------

    @property
    def left(self) -> float:
        """Model calls that may still be used here; infinite without a limit."""
        return min(purse.left for purse in self._purses)

    @property
    def used(self) -> int:
        """Model calls used so far."""
        return self._purses[0].used_calls

    def affords(self, rows: int, each: float | None = None) -> bool:
        """Whether so many rows can be scored.

        Args:
            rows: how many.
            each: model calls a row; as the base by default.
        """
        return self.left >= rows * (self.each if each is None else each)

    @contextlib.contextmanager
    def share(self, calls: float) -> Generator[None]:
        """Inside, no more than so many calls are left: for a search that is one of several."""
        self._purses.append(Purse(calls=calls))
        try:
            yield
        finally:
            self._purses.pop()

    # -- scoring ----------------------------------------------------------------------------------

    async def open(self, ctx: Context) -> None:
        """Score the base on the rows to choose by, and find the programs that can be tuned.

        Raises:
            ProviderError: the first rows all failed so: there is nothing to search with.
            ConfigError: no program was met that has params.
            Conflict: the run is resumed, and other params or another model are what its programs run with now.
        """
        opened = ctx.fork()
        failure: KaizenError | None = None
        for row in self.task.val[:_WALKED]:
            outcome = await self._walk(ctx, row)
            if outcome.error is None:
                failure = None
                break
            failure = ProviderError(f"{self.task.name} gave no answer: {outcome.comment}")
        if failure is not None and not self.parts:
            raise failure
        await self._same(opened)
        self.each = max(1.0, self._mean_calls(self.base) or 1.0)
        await self.score(ctx, self.base)
        # programs that only some rows come to
        for row in self.task.val:
            if not self._met.get(row.key, set()) <= self.parts.keys() and self.affords(1):
                await self._walk(ctx, row)
        if not self.parts:
            self._afford(1, None)  # else it was the budget that kept them from being met
            raise ConfigError(f"nothing in {self.task.name} has params to tune: it comes to no program of a model")
        await self._same(opened)

    async def _walk(self, ctx: Context, row: Row) -> Outcome:
        """The base on one row, for the programs it comes to.

        The walk itself is no kept step: a run that is resumed has to meet the programs again. What came of it is one,
        since a row that failed may not fail again.
        """
        self._afford(1, None)
        outcomes, seen = await score_rows(ctx.fork(), self.task, self.base, [row])
        parts = seen[0].parts

        async def work(_: Context) -> Mapping[str, Any]:
            return {"outcomes": outcomes, "met": sorted(parts), **sums(seen)._asdict()}

        result = await frozen(ctx, digest(canonical(["walk", row.key])), work)
        kept = outcomes_adapter.validate_python(result["outcomes"])
        self._take(self.base, [row], kept, used_of(result))
        for name in result["met"]:
            if name in parts:
                self.parts.setdefault(name, parts[name])
        return kept[0]

    async def _same(self, ctx: Context) -> None:
        """Make sure that a resumed run's programs run with the params that they began with, the default model's too."""
        versions = {name: part.params.version for name, part in sorted(self.parts.items())}
        try:
            await frozen(ctx, digest(canonical(versions)), _nothing)
        except Conflict as error:
            raise Conflict(
                f"{self.task.name} runs with other params or on another model than when this run was begun: go on with "
                "it as it was begun, or start a new one",
                detail=error.detail,
            ) from None

    def add(self, candidate: Candidate) -> Candidate:
        """Put a candidate on the board, not scored yet; the one of the same params that is there already."""
        if candidate.id not in self._candidates:
            self._stages[candidate.id] = self.stage
        return self._candidates.setdefault(candidate.id, candidate)

    async def score(
        self, ctx: Context, candidate: Candidate, rows: Sequence[Row] | None = None, *, each: float | None = None
    ) -> tuple[Outcome, ...]:
        """Score a candidate, all rows to choose by if no others are named; in the order of the rows.

        Args:
            ctx: the search's; scoring is a step of it.
            candidate: which.
            rows: of the task's; what it was scored on already costs nothing.
            each: model calls a row is expected to take, where that is not as many as the base's.

        Raises:
            BudgetExceeded: it does not fit into what is left; nothing was asked.
            Denied: a row is none of the task's.
        """
        candidate = self.add(candidate)
        rows = self.task.val if rows is None else rows
        if any(row.key not in self._rows for row in rows):
            raise Denied("a search may score candidates on its own rows only")
        todo = {row.key: row for row in rows if (candidate.id, row.key) not in self._scores}
        if todo:
            self._afford(len(todo), self._mean_calls(candidate) if each is None else each)
            await self._scored(ctx, candidate, list(todo.values()))
        return tuple(self._scores[candidate.id, row.key] for row in rows)

    async def race(self, ctx: Context, candidate: Candidate, other: Candidate, rows: Sequence[Row]) -> bool:
        """Score a candidate on rows that another was scored on, and stop where it is worse beyond doubt.

        Doubt ends where the 95 % interval of the paired difference does; it is looked at after every eight rows.

        Returns:
            Whether it came to the end: not where it was worse, or where the calls were not enough.
        """
        for end in range(_STRIDE, len(rows) + _STRIDE, _STRIDE):
            some = rows[:end]
            if not self.affords(len(some) - len(self.known(candidate, some))):
                return False
            await self.score(ctx, candidate, some)
            if self.compared(other, candidate, some).high < 0:
                return False
        return True

    def compared(self, before: Candidate, after: Candidate, rows: Sequence[Row]) -> Figures:
        """The figures of two candidates on those of the rows that both were scored on; there has to be one."""
        old, new = self.known(before, rows), self.known(after, rows)
        both = [key for key in new if key in old]
        return figures_of([old[key] for key in both], [new[key] for key in both])

    async def _scored(self, ctx: Context, candidate: Candidate, rows: list[Row]) -> None:
        async def work(inner: Context) -> Mapping[str, Any]:
            outcomes, seen = await score_rows(inner, self.task, candidate, rows)
            met = {row.key: sorted(one.parts) for row, one in zip(rows, seen, strict=True)}
            return {"outcomes": outcomes, "met": met, **sums(seen)._asdict()}

        what = digest(canonical([candidate.id, [row.key for row in rows]]))
        result = await frozen(ctx, what, work)
        self._met |= {key: set(names) for key, names in result["met"].items()}
        self._take(candidate, rows, outcomes_adapter.validate_python(result["outcomes"]), used_of(result))

    def _take(self, candidate: Candidate, rows: Sequence[Row], outcomes: Sequence[Outcome], used: Used) -> None:
        for row, outcome in zip(rows, outcomes, strict=True):
            self._scores[candidate.id, row.key] = outcome
        self._count(used)
        shown = f"{candidate.how or 'a candidate'}: {fmean(one.score for one in outcomes):.3f} on {len(rows)} rows"
        self.tell(shown)

    def _count(self, used: Used) -> None:
        calls, tokens, usd = used.others, used.tokens, used.usd
        for key, (read, cost) in used.keys.items():
            known = self._keys.get(key)
            calls += known is None
            # one that failed the first time may be answered the next
            tokens_before, usd_before = known or (0, 0.0)
            tokens += max(0, read - tokens_before)
            usd += max(0.0, cost - usd_before)
            self._keys[key] = max(read, tokens_before), max(cost, usd_before)
        for purse in self._purses:
            purse.add(calls, tokens, usd)

    def _afford(self, rows: int, each: float | None) -> None:
        if not self.affords(rows, each):
            raise Spent(f"{rows} rows don't fit into the {self.left:g} calls that are left for the search")

    # -- asking -----------------------------------------------------------------------------------

    async def ask(
        self, ctx: Context, program: Program, params: Params, inputs: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Ask for a proposal; what is used for it counts as the search's.

        Args:
            ctx: the search's; asking is a step of it.
            program: what writes proposals.
            params: to run it with, such as the teacher's model and a seed.
            inputs: by field name.

        Returns:
            Its outputs as JSON-able values; None where it failed.

        Raises:
            BudgetExceeded: there is nothing left to ask with.
            AuthFailed: its model refuses the credential: no proposal will ever come.
            Unsupported: its model can't do what the params ask for; what that took is counted.
        """
        self._afford(1, 1.0)
        spec = program.spec

        async def work(inner: Context) -> Mapping[str, Any]:
            branch, watch = watched(inner.fork(overrides={spec.name: params}), "none", cached=self.task.cached)
            outputs: Mapping[str, Any] | None = None
            unsupported: str | None = None
            try:
                answer = await branch.call(program, **inputs)
                outputs = {name: answer.outputs[name] for name in spec.outputs}
            except AuthFailed:
                raise
            except Unsupported as error:
                unsupported = error.kept
            except ProviderError:
                in_time(branch)  # else one that could not be asked after all attempts is a proposal less
            except OutputInvalid:
                in_time(branch)
            return {"outputs": outputs, "unsupported": unsupported, **sums([watch.seen])._asdict()}

        what = digest(canonical([spec.name, stated(params), dict(inputs)]))
        result = await frozen(ctx, what, work)
        self._count(used_of(result))
        self.tell(f"asked {spec.name.rsplit('.', 1)[-1]}")
        if (why := result.get("unsupported")) is not None:
            raise Unsupported(why, rules=why)
        return cast("Mapping[str, Any] | None", result["outputs"])

    # -- reading ----------------------------------------------------------------------------------

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All, in the order they came; the base is the first."""
        return tuple(self._candidates.values())

    def known(self, candidate: Candidate, rows: Sequence[Row] | None = None) -> dict[str, Outcome]:
        """What is known of a candidate on rows, by row key; the rows to choose by if no others are named."""
        keys = self._val if rows is None else [row.key for row in rows]
        found = {key: self._scores.get((candidate.id, key)) for key in keys}
        return {key: one for key, one in found.items() if one is not None}

    def standing(self, candidate: Candidate, rows: Sequence[Row] | None = None) -> Standing | None:
        """Its figures on rows; None where it was scored on none of them."""
        known = list(self.known(candidate, rows).values())
        if not known:
            return None
        costs = [one.cost_usd for one in known]
        return Standing(
            candidate,
            fmean(one.score for one in known),
            len(known),
            None if None in costs else fmean(cost or 0.0 for cost in costs),
            fmean(one.tokens for one in known),
            fmean(one.calls for one in known),
        )

    def finished(self) -> list[Standing]:
        """Those that were scored on every row to choose by, in the order they came."""
        whole = len(set(self._val))
        made = (self.standing(one) for one in self._candidates.values())
        return [one for one in made if one is not None and one.rows == whole]

    @property
    def best(self) -> Candidate:
        """The highest mean on the rows to choose by; of equals the cheaper, then the shorter, then the first."""
        found = self.finished()
        if not found:
            return self.base
        return max(found, key=lambda one: (round(one.score, 9), -one.cost, -one.candidate.size)).candidate

    def front(self) -> list[Standing]:
        """The Pareto front of quality against cost, cheapest first: nothing is both better and cheaper."""
        return front(self.finished(), cost=lambda one: one.cost, score=lambda one: one.score)

    def artifacts(self, about: Mapping[str, Any]) -> list[Artifact]:
        """Every candidate that was scored, with its figures; parents are those it was made from.

        Args:
            about: what to keep with each, such as the optimizer's name and the run.
        """
        made: dict[str, Artifact] = {}
        base = self.standing(self.base)
        kind = task_kind(self.task.program.spec)
        for one in self._candidates.values():
            standing = self.standing(one)
            seen = standing or self.standing(one, list(self._rows.values()))
            if seen is None:
                continue
            body = {
                "params": {name: stated(params) for name, params in one.params.items()},
                "how": one.how,
                "changes": sorted(one.changes),
                "score": None if standing is None else standing.score,
                "rows": 0 if standing is None else standing.rows,
                "partial": standing is None or standing.rows < len(set(self._val)),
                "base": None if base is None else base.score,
                "start": self._start_of(one),
                "stage": self._stages.get(one.id, ""),
                "kind": kind,
                "usd": seen.usd,
                "tokens": seen.tokens,
                "calls": seen.calls,
                **about,
            }
            parents = [made[parent].ref for parent in one.parents if parent in made]
            made[one.id] = Artifact(KIND, self.task.name, canonical(body), tuple(parents))
        return list(made.values())

    # -- inside -----------------------------------------------------------------------------------

    def _start_of(self, candidate: Candidate) -> float | None:
        """The mean score of the best that a candidate was made from; None where it was made from none."""
        made = [self._candidates[parent] for parent in candidate.parents if parent in self._candidates]
        scores = [standing.score for one in made if (standing := self.standing(one)) is not None]
        return max(scores, default=None)

    def tell(self, what: str) -> None:
        """Let whoever watches know."""
        if self._told is None:
            return
        purse, best = self._purses[0], self.best
        standing, base = self.standing(best), self.standing(self.base)
        limit = None if purse.calls is None else int(purse.calls)
        scores = [None if one is None else one.score for one in (base, standing)]
        self._told(Event(what, purse.used_calls, limit, len(self._candidates), scores[0], scores[1], best.how))

    def _mean_calls(self, candidate: Candidate) -> float | None:
        known = [one.calls for key, one in self._scores.items() if key[0] == candidate.id]
        return fmean(known) if known else None


class Search(Protocol):
    """An optimizer: it puts candidates on a board and has the board score them. Nothing else decides.

    It draws only from ``random.Random`` seeded by the task, reads no clock, and takes results in the order of its
    calls, so that the same answers give the same search: this is what makes it resumable.
    """

    @property
    def name(self) -> str:
        """As ``--optimizer`` has it."""
        ...

    def estimate(self, task: Task, each: float) -> int:
        """Model calls that it would make on this task if the budget let it, the base's scoring left out.

        Args:
            task: the task.
            each: model calls that one row takes.
        """
        ...

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Put candidates forward until there is nothing more to try or ``board.left`` says that it is enough.

        Raises:
            BudgetExceeded: which ends it as well; what is on the board stays.
        """
        ...


async def _nothing(_: Context) -> Mapping[str, Any]:
    return {}


async def frozen(ctx: Context, what: str, work: Callable[[Context], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any]:
    """Do something as one step that is kept whole, see ``Frozen``."""
    program: Program = Frozen(work)
    answer = await ctx.call(program, what=what)
    return cast("Mapping[str, Any]", answer.outputs["result"])
