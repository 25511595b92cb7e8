"""An optimizer's run from end to end: the base, the search, the choice, and the one test on held-out rows."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.errors import BudgetExceeded
from kaizen.core.ids import digest
from kaizen.core.params import Params
from kaizen.learn.budget import Purse, Shares
from kaizen.learn.data.dataset import Sealed
from kaizen.learn.data.rows import Row, canonical
from kaizen.learn.evaluate.judging import name_of
from kaizen.learn.figures import MARGIN, Figures, costs, figures_of, holds
from kaizen.learn.optimize.board import Board, Event, Search, Standing, frozen
from kaizen.learn.optimize.task import Candidate, Outcome, Task
from kaizen.learn.optimize.trial import outcomes_adapter, score_rows, study_spec, without
from kaizen.learn.ranking import Past, Ranking
from kaizen.learn.verdict import Report, likely, report_json
from kaizen.registry.params import save, stated

Goal: TypeAlias = Literal["quality", "cost"]

SURE: Final = 0.05
"""How likely a gain may be mere luck, all tries together, for a candidate to be taken."""

ALPHA: Final = 0.2
"""The same where held-out rows have to bear the gain out: sixty rows turn down true gains of fifteen points."""

_FEW_ROWS: Final = 100
# A gain on few rows is worth less than the same on many.
_DOUBTED: Final = 20
_FINALISTS: Final = 2
_FINAL_SHARE: Final = 0.3
_CHUNK: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is to do.

    Args:
        task: what is searched for.
        search: by which optimizer.
        shares: of the budget in calls.
        tokens, usd: the other budgets, None for none.
        test: held-out rows, None for none.
        run_id: the run.
        strong: whether a model can follow long instructions and reflect, by its ref.
        past: reads the candidates of past runs, to learn from which change is worth trying.
        openings: counts the runs that were tested on the same held-out rows before.
    """

    task: Task
    search: Search
    shares: Shares
    tokens: int | None = None
    usd: float | None = None
    test: Sealed | None = None
    run_id: str = ""
    strong: Callable[[str], bool] | None = None
    past: Callable[[], Awaitable[Sequence[Past]]] | None = None
    openings: Callable[[], Awaitable[int]] | None = None

    @property
    def version(self) -> str:
        """Digest of what is known beforehand of what decides what the run does: it is resumed with the same plan.

        With which params and on which model the programs run without the search is only known once they have run: the
        board holds a resumed run to those.
        """
        task = self.task
        said = {
            "program": [task.name, task.program.spec.contract, task.program.spec.doc],
            "metric": name_of(task.metric),
            "train": [row.key for row in task.train],
            "val": [row.key for row in task.val],
            "test": None if self.test is None else self.test.version,
            "search": self.search.name,
            "shares": [self.shares.total, self.shares.reserve, self.shares.test, self.tokens, self.usd],
            "seed": task.seed,
            "teacher": task.teacher,
            "models": list(task.models),
            "start": {name: stated(params) for name, params in task.start.items()},
            "cached": task.cached,
        }
        return digest(canonical(said))


class Study:
    """The Program that is an optimizer's run.

    Args:
        plan: what to do.
        told: hears of each step of the search.
        narrow: holds the durable count of requests to so many, from then on.
        keep: keeps the candidates, however the run ends: before that is on record, so that none is lost in between.

    Attributes:
        board: the candidates; None before it runs, and in a run that was over already.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        told: Callable[[Event], None] | None = None,
        narrow: Callable[[int], None] | None = None,
        keep: Callable[[Board], Awaitable[None]] | None = None,
    ) -> None:
        self.spec, self._keep = study_spec, keep
        self.plan, self._told, self._narrow = plan, told, narrow or _free
        self.board: Board | None = None
        self._stopped = ""
        self._tested_before = 0
        self._more: list[Row] = []

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Do it; the answer holds the report."""
        try:
            report = await self._report(ctx)
        finally:
            if self.board is not None and self._keep is not None:
                await self._keep(self.board)
        return Answer.of({"report": report_json(report)}, inputs=inputs)

    async def _report(self, ctx: Context) -> Report:
        plan, task, shares = self.plan, self.plan.task, self.plan.shares
        if plan.test is not None:
            plan.test.refuse((*task.train, *task.val))
        keep = 1.0 if not shares.total else shares.search / shares.total
        purse = Purse(
            calls=shares.search,
            tokens=None if plan.tokens is None else plan.tokens * keep,
            usd=None if plan.usd is None else plan.usd * keep,
        )
        board = self.board = Board(task, purse, self._told)
        board.stage = plan.search.name
        self._narrow(shares.total - shares.test)
        places = [ctx.fork() for _ in range(5)]
        winner: Candidate | None = None
        reason, chance = "", None
        try:
            await self._search(places[0], places[1], places[4], board)
            winner, reason, chance = await self._choose(places[2], board)
        except BudgetExceeded as error:
            self._stopped = self._stopped or error.message
            winner, reason, chance = self._verdict(board, board.best)
        chosen_on = self._chosen_on(board, winner)
        self._narrow(shares.total)
        test = await self._test(places[3], board, winner)
        if winner is not None and test is not None and (refused := self._refused(test, board, chance)):
            winner, reason = None, refused
        if winner is not None and test is None and chance is not None and chance > SURE:
            winner, reason = None, f"{reason}: not sure enough without a test on held-out rows"
        if self._tested_before:
            times = "once" if self._tested_before == 1 else f"{self._tested_before} times"
            reason = f"{reason}; these held-out rows were tested on {times} before"
        return Report(
            program=task.name,
            optimizer=plan.search.name,
            metric=name_of(task.metric),
            seed=task.seed,
            improved=winner is not None,
            reason=reason,
            how="" if winner is None else winner.how,
            params={} if winner is None else {name: _kept(board, name, one) for name, one in winner.params.items()},
            chance=chance,
            chosen_on=chosen_on,
            test=test,
            test_rows=0 if plan.test is None else len(plan.test),
            candidates=len(board.candidates) - 1,
            used=board.used,
            stopped=self._stopped,
            front=[_shown(one) for one in board.front()],
            tested_before=self._tested_before,
        )

    # -- searching ----------------------------------------------------------------------------------

    async def _learned(self, ctx: Context) -> Ranking:
        """What past runs have shown, as it was when this one began: a resumed run has to decide by the same."""
        past = self.plan.past
        if past is None:
            return Ranking()

        async def work(_: Context) -> Mapping[str, Any]:
            learned = Ranking.of(await past())
            return {"weights": learned.weights, "count": learned.count}

        result = await frozen(ctx, "ranking", work)
        return Ranking(tuple(result["weights"]), result["count"])

    async def _search(self, opening: Context, searching: Context, learning: Context, board: Board) -> None:
        """The base, then the optimizer, whose end the budget may be."""
        plan = self.plan
        try:
            await board.open(opening)
            refs = {part.params.model for part in board.parts.values()} - {None}
            strong = all(plan.strong(ref or "") for ref in refs) if plan.strong is not None else None
            task = replace(plan.task, strong=strong, ranking=await self._learned(learning))
            self._more = self._more_rows(board)
            # calls to tell the finalists apart with, on more rows than they were found by
            with board.share(board.left - len(self._more) * (_FINALISTS + 1) * board.each):
                if plan.test is None:
                    await plan.search.search(searching, task, board)
                else:
                    with plan.test.shut():
                        await plan.search.search(searching, task, board)
        except BudgetExceeded as error:
            self._stopped = error.message

    def _more_rows(self, board: Board) -> list[Row]:
        """Rows to learn from that the finalists are compared on as well: demos made of them are left out there."""
        task = self.plan.task
        if len(task.val) >= _FEW_ROWS or not task.train:
            return []
        left = min(board.left, 1e9)
        count = min(len(task.train), int(_FINAL_SHARE * left / ((_FINALISTS + 1) * board.each)))
        chosen = set(random.Random(task.seed).sample(range(len(task.train)), count))  # noqa: S311 - a choice of rows
        return [row for at, row in enumerate(task.train) if at in chosen]

    # -- choosing -----------------------------------------------------------------------------------

    async def _choose(self, ctx: Context, board: Board) -> tuple[Candidate | None, str, float | None]:
        """The best of the finalists on all rows they share, if it is likely to be better than the base."""
        finalists = self._finalists(board)
        if not finalists:
            return None, "no candidate did better than the program as it is", None
        # a row that a finalist shows would have its prompt, without that row, read anew
        more = [row for row in self._more if not any(_shows(one, row) for one in finalists)]
        try:
            for one in (board.base, *finalists):
                await board.score(ctx, one, more)
        except BudgetExceeded as error:
            self._stopped = self._stopped or error.message
        rows = self._shared_rows(board, [board.base, *finalists])
        standings = [one for each in finalists if (one := board.standing(each, rows)) is not None]
        best = max(standings, key=lambda one: (round(one.score, 9), -one.cost, -one.candidate.size))
        return self._verdict(board, best.candidate)

    def _finalists(self, board: Board) -> list[Candidate]:
        if board.chosen is not None:
            return [board.chosen]
        gains = {one.candidate.id: self._gain(board, one.candidate) for one in board.finished()}
        better = [one for one in board.finished() if gains[one.candidate.id] > 1e-9]
        better.sort(key=lambda one: (-round(gains[one.candidate.id], 9), one.cost, one.candidate.size))
        return [one.candidate for one in better[:_FINALISTS]]

    def _gain(self, board: Board, candidate: Candidate) -> float:
        """What it has gained over the base on the rows they share, as if some more had shown nothing either way."""
        rows = self._shared_rows(board, [board.base, candidate])
        before, after = board.known(board.base, rows), board.known(candidate, rows)
        return sum(after[row.key].score - before[row.key].score for row in rows) / (len(rows) + _DOUBTED)

    def _shared_rows(self, board: Board, candidates: Sequence[Candidate]) -> list[Row]:
        rows = {row.key: row for row in (*self.plan.task.val, *self.plan.task.train)}
        known = [board.known(one, list(rows.values())) for one in candidates]
        return [row for key, row in rows.items() if all(key in some for some in known)]

    def _verdict(self, board: Board, best: Candidate) -> tuple[Candidate | None, str, float | None]:
        if best.id == board.base.id:
            return None, "no candidate did better than the program as it is", None
        figures = self._figures(board.base, best)
        if board.chosen is not None and best.id == board.chosen.id:
            return self._cheaper(best, figures)
        everything = (*self.plan.task.val, *self.plan.task.train)
        scores = {
            one.id: {key: outcome.score for key, outcome in board.known(one, everything).items()}
            for one in board.candidates
        }
        base = scores.pop(board.base.id)
        chance = likely(best.id, scores, base, self.plan.task.seed)
        if chance > (SURE if self.plan.test is None else ALPHA):
            return (
                None,
                f"the best of {len(scores)} candidates gained {figures.gain:+.3f} on {figures.rows} rows, which may be "
                f"luck (p = {chance:.3f} for the best of so many)",
                chance,
            )
        return best, f"gained {figures.gain:+.3f} on {figures.rows} rows (p = {chance:.3f}, all tries counted)", chance

    def _cheaper(self, best: Candidate, figures: Figures) -> tuple[Candidate | None, str, float | None]:
        """A candidate that was chosen for its cost: it has to hold the quality."""
        before, after = costs(figures)
        if not holds(figures):
            return None, f"cheaper, but the score may fall by up to {-figures.low:.3f}", None
        if after >= before:
            return None, "no candidate is cheaper at the same quality", None
        saved = 1 - after / before if before else 0.0
        return best, f"costs {saved:.0%} less, the score changes by {figures.gain:+.3f}", None

    def _refused(self, test: Figures, board: Board, chance: float | None) -> str:
        """Why the test speaks against the winner; nothing where it does not.

        Rows that were tested on before have said something to whoever begins another run: they have to be surer then.
        """
        again = self._tested_before > 0
        if board.chosen is not None:
            before, after = costs(test)
            if (test.low if again else test.gain) < -MARGIN or after >= before:
                return f"on held-out rows the score changed by {test.gain:+.3f}: the quality does not hold"
            return ""
        if test.gain <= 0:
            return f"what looked better was not on held-out rows ({test.gain:+.3f})"
        if chance is not None and (again or chance > SURE) and test.low <= 0:
            return (
                f"what looked better (p = {chance:.3f}) gained {test.gain:+.3f} on held-out rows "
                f"({test.low:+.3f} .. {test.high:+.3f}), which may be luck too"
            )
        return ""

    def _chosen_on(self, board: Board, winner: Candidate | None) -> Figures | None:
        """The winner's figures on the rows it was chosen by; without one, the base's, twice."""
        if winner is None and all(one.candidate.id != board.base.id for one in board.finished()):
            return None
        return self._figures(board.base, winner or board.base)

    def _figures(self, before: Candidate, after: Candidate) -> Figures:
        board = self.board
        assert board is not None  # noqa: S101 - made before anything is compared
        return board.compared(before, after, (*self.plan.task.val, *self.plan.task.train))

    # -- testing ------------------------------------------------------------------------------------

    async def _test(self, ctx: Context, board: Board, winner: Candidate | None) -> Figures | None:
        """Both on held-out rows, as many as the budget is enough for; touched here and nowhere else.

        Without a winner there is nothing to test, and they stay shut for one that comes later.
        """
        plan = self.plan
        if plan.test is None or winner is None:
            return None
        both = [board.base, winner]
        left = plan.shares.total - plan.shares.reserve - board.used
        count = int(left / sum(self._each(board, one) for one in both))
        if count < 1:
            return None
        self._tested_before = await self._openings(ctx)
        rows = await plan.test.open(ctx, f"optimizer run {plan.run_id}")
        drawn = random.Random(plan.task.seed).sample(range(len(rows)), len(rows))  # noqa: S311 - an order of rows
        chosen = [rows[at] for at in sorted(drawn[:count])]
        done: dict[str, list[Outcome]] = {one.id: [] for one in both}
        places = [[ctx.fork() for _ in both] for _ in range(0, len(chosen), _CHUNK)]
        try:
            for at, branches in enumerate(places):
                some = chosen[at * _CHUNK : (at + 1) * _CHUNK]
                for one, branch in zip(both, branches, strict=True):
                    done[one.id] += await self._scored(branch, one, some)
        except BudgetExceeded as error:
            self._stopped = self._stopped or error.message
        before, after = done[board.base.id], done[winner.id]
        whole = min(len(before), len(after))
        return figures_of(before[:whole], after[:whole]) if whole else None

    async def _openings(self, ctx: Context) -> int:
        """How often the rows were tested on before, as it was when this run came to it."""
        openings = self.plan.openings
        if openings is None:
            return 0

        async def work(_: Context) -> Mapping[str, Any]:
            return {"count": await openings()}

        return int((await frozen(ctx, "openings", work))["count"])

    async def _scored(self, ctx: Context, candidate: Candidate, rows: Sequence[Row]) -> list[Outcome]:
        async def work(inner: Context) -> Mapping[str, Any]:
            return {"outcomes": (await score_rows(inner, self.plan.task, candidate, rows))[0]}

        what = digest(canonical(["test", candidate.id, [row.key for row in rows]]))
        return outcomes_adapter.validate_python((await frozen(ctx, what, work))["outcomes"])

    def _each(self, board: Board, candidate: Candidate) -> float:
        standing = board.standing(candidate)
        return max(1.0, board.each if standing is None else standing.calls)


def _shows(candidate: Candidate, row: Row) -> bool:
    """Whether a row is among the examples that it always shows, of more that it has."""
    return any(one.shown is not None and without(one, row).pool != one.pool for one in candidate.params.values())


def _shown(standing: Standing) -> Mapping[str, Any]:
    return {
        "score": round(standing.score, 6),
        "usd": standing.usd,
        "tokens": round(standing.tokens, 1),
        "how": standing.candidate.how,
    }


def _kept(board: Board, name: str, params: Params) -> str:
    """Params as they are kept, with the contract that they were learned for."""
    part = board.parts.get(name)
    return save(params if part is None else replace(params, contract=part.spec.contract)).decode()


def _free(_: int) -> None:
    """No durable count to narrow."""
