"""A program on rows, as steps of a run: several at once, each answer scored and the score on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

from kaizen.core.context import Context, Program
from kaizen.core.errors import (
    AuthFailed,
    BudgetExceeded,
    ConfigError,
    Conflict,
    DefinitionError,
    KaizenError,
    StoreError,
    Timeout,
    record_of,
)
from kaizen.core.params import Params
from kaizen.core.record import Record, Score
from kaizen.learn.data.rows import Row, plain
from kaizen.learn.evaluate.judging import Judged, judge, name_of, unmeasured
from kaizen.learn.evaluate.result import Evaluation, RowResult, summed
from kaizen.learn.metrics.measure import Scored
from kaizen.learn.metrics.objective import Objective
from kaizen.learn.metrics.taken import cost_of
from kaizen.programs.together import together

# What goes wrong so with one row goes wrong with all, or says nothing about the program: the evaluation stops.
_HOPELESS: Final = (AuthFailed, ConfigError, Conflict, DefinitionError, StoreError)
_SCORES_AT_ONCE: Final = 64


def evaluate(
    ctx: Context,
    program: Program,
    rows: Sequence[Row],
    metric: Program,
    *,
    params: Mapping[str, Params] | None = None,
    concurrency: int = 8,
    progress: Callable[[RowResult], None] | None = None,
) -> Coroutine[Any, Any, Evaluation]:
    """Run a program on rows and score its answers.

    Each row is a branch of ``ctx``, in the order of the rows, so that a resumed run asks no model for what it has on
    record. Its place among the steps is taken now, not when it is awaited. Every score is kept as a score record about
    its answer.

    Args:
        ctx: where it happens; its budget bounds it.
        program: what to run.
        rows: on what.
        metric: what scores; a ``Measure`` is called without a record, any other Program as a step beside its row's.
        params: by program name (or ``EVERY``): what to run with instead.
        concurrency: rows worked on at once.
        progress: told each row's result as it comes.

    Raises:
        BudgetExceeded, Timeout: the budget is spent, or the run's deadline is over; rows that were in the air have
            ended, and ``detail`` says how many of how many are done. The run can be resumed.
        AuthFailed, ConfigError, Conflict, DefinitionError, StoreError: what would go wrong with every row.
    """
    branch = ctx.fork(overrides=params) if params else ctx.fork()
    return _Work(branch, program, rows, metric, progress).run(max(1, concurrency))


class _Work:
    """One evaluation on its way."""

    def __init__(
        self,
        ctx: Context,
        program: Program,
        rows: Sequence[Row],
        metric: Program,
        progress: Callable[[RowResult], None] | None,
    ) -> None:
        self._ctx, self._program, self._rows, self._metric, self._progress = ctx, program, rows, metric, progress
        self._results: list[RowResult | None] = [None] * len(rows)
        self._waiting: list[Score] = []
        self._stopped: KaizenError | None = None
        self._kept: frozenset[tuple[str, str]] = frozenset()
        self._name = name_of(metric)

    async def run(self, concurrency: int) -> Evaluation:
        """All rows."""
        began = time.perf_counter()
        ctx = self._ctx
        if ctx.run.replay is not None:
            self._kept = await ctx.scored()
        places = iter(range(len(self._rows)))
        try:
            await together(self._worker(places) for _ in range(min(concurrency, len(self._rows))))
        finally:
            await self._keep(0)
        done = [one for one in self._results if one is not None]
        if self._stopped is not None:
            raise self._stop(self._stopped, done)
        bounds = self._metric.bounds if isinstance(self._metric, Objective) else ()
        return summed(
            done,
            bounds=bounds,
            program=self._program.spec.name,
            metric=self._name,
            run_id=ctx.run.run_id,
            seconds=time.perf_counter() - began,
        )

    def _stop(self, error: KaizenError, done: Sequence[RowResult]) -> KaizenError:
        calls = sum(one.calls + one.metric_calls for one in done)
        said = f"{error.message}: {len(done)} of {len(self._rows)} rows are done, with {calls} calls"
        detail = {
            **error.detail,
            "done": len(done),
            "rows": len(self._rows),
            "calls": calls,
            "run_id": self._ctx.run.run_id,
        }
        return Timeout(said) if isinstance(error, Timeout) else type(error)(said, detail=detail)

    async def _worker(self, places: Iterator[int]) -> None:
        for place in places:
            if self._stopped is not None:
                return
            # the branch is taken before anything is awaited: rows are numbered in their order, whoever works on them
            result = await self._row(self._ctx.fork(), self._rows[place])
            if result is None:
                return
            self._results[place] = result
            if self._progress is not None:
                self._progress(result)
            await self._keep(_SCORES_AT_ONCE)

    async def _row(self, ctx: Context, row: Row) -> RowResult | None:
        """One row; None where the evaluation has to stop before it is done."""
        try:
            answer = await ctx.call(self._program, **row.inputs)
        except _HOPELESS:
            raise
        except BudgetExceeded as error:
            self._stopped = error
            return None
        except Exception as error:  # noqa: BLE001 - a program's own errors fail their row, not the evaluation
            deadline = ctx.run.deadline
            if isinstance(error, Timeout) and deadline is not None and time.monotonic() >= deadline:
                self._stopped = error
                return None
            return self._failed(row, error)
        prediction = {name: plain(value) for name, value in answer.outputs.items()}
        judged = await self._judge(ctx, row, answer.record, prediction)
        return None if judged is None else self._result(row, answer.record, prediction, judged)

    def _failed(self, row: Row, error: Exception) -> RowResult:
        record = record_of(error)
        why = str(error) if isinstance(error, KaizenError) else f"{type(error).__name__}: {error}"
        scored = None if unmeasured(self._metric, row) else Scored(0.0, f"not answered: {why}")
        code = error.code if isinstance(error, KaizenError) else "exception"
        return self._result(row, record, None, Judged(scored), error=code)

    async def _judge(self, ctx: Context, row: Row, record: Record, prediction: Mapping[str, Any]) -> Judged | None:
        try:
            return await judge(ctx, self._metric, row, record, prediction)
        except BudgetExceeded as error:
            self._stopped = error
            return None

    def _result(
        self,
        row: Row,
        record: Record | None,
        prediction: Mapping[str, Any] | None,
        judged: Judged,
        *,
        error: str | None = None,
    ) -> RowResult:
        said = judged.said
        if record is not None and said is not None and (record.id, self._name) not in self._kept:
            self._waiting.append(Score(self._name, record, said.value, said.comment))
        return RowResult(
            row=row,
            prediction=prediction,
            score=None if said is None else said.value,
            comment="nothing here to measure" if said is None else said.comment,
            record=None if record is None else record.id,
            error=error,
            calls=0 if record is None else record.attempts,
            cost_usd=0.0 if record is None else cost_of(record),
            latency_ms=0.0 if record is None else record.latency_ms,
            tokens=0 if record is None else record.tokens_in + record.tokens_out,
            parts={} if said is None else said.parts,
            coverage=1.0 if said is None else said.coverage,
            params=None if record is None else record.params,
            metric_calls=judged.calls,
            metric_cost_usd=judged.cost_usd,
        )

    async def _keep(self, least: int) -> None:
        """Put the scores that wait on record, together."""
        if self._waiting and len(self._waiting) >= least:
            scores, self._waiting = self._waiting, []
            await self._ctx.scores(scores)
