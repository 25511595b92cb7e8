"""Candidates on rows: run under their params, watched, and each result kept as a step that a resumed run is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, cast

import pydantic
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Kept, Program, Runtime, Through
from kaizen.core.errors import (
    AuthFailed,
    BudgetExceeded,
    ConfigError,
    Conflict,
    DefinitionError,
    Denied,
    KaizenError,
    NotFound,
    StoreError,
)
from kaizen.core.params import Demo, Params
from kaizen.core.record import Record
from kaizen.core.request import Chunk, Embeddings, Reply, Request
from kaizen.core.spec import Field, Spec
from kaizen.inference.key import request_key
from kaizen.learn.data.rows import Row, plain_values
from kaizen.learn.evaluate.judging import judge
from kaizen.learn.metrics.measure import Scored
from kaizen.learn.optimize.task import Candidate, Outcome, Part, Step, Task
from kaizen.programs.together import together

# What goes wrong so with one row goes wrong with all: the run ends instead of taking it for a bad candidate.
_HOPELESS: Final = (AuthFailed, BudgetExceeded, ConfigError, Conflict, DefinitionError, Denied, NotFound, StoreError)
_LAYERS: Final = frozenset({"exact", "semantic"})


def _field(name: str, annotation: Any, role: Any) -> Field:
    made: Any = pydantic.Field()
    return Field(name, role, annotation, made)


_STEP: Final = Spec(
    "kaizen.optimize.step",
    "Score a candidate on rows, or ask for a proposal.",
    [_field("what", str, "input"), _field("result", dict[str, Any], "output")],
)

study_spec: Final = Spec(
    "kaizen.optimize",
    "Search for better params of a program.",
    [_field("plan", str, "input"), _field("report", dict[str, Any], "output")],
)
"""The contract of an optimizer's run."""


class Frozen:
    """A step whose result is kept whole, failures inside it included.

    A step that went wrong is done again when a run is resumed, and may go right then. A search has decided by what went
    wrong, so that it has to be wrong again: it sees only results of such steps.

    Args:
        work: does it; a JSON object. Its one input, ``what``, is a digest of what is done: a resumed run has to do the
            same.
    """

    def __init__(self, work: Callable[[Context], Awaitable[Mapping[str, Any]]]) -> None:
        self.spec, self._work = _STEP, work

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Do it."""
        return Answer.of({"result": to_jsonable_python(await self._work(ctx))}, inputs=inputs)


@dataclass(slots=True)
class Seen:
    """What was seen of the calls below one row or one proposal.

    Args:
        keys: tokens and dollars of each request that has one answer and is answered by a cache from then on; 0 where
            it was not answered.
        others: the other requests, which a model answers every time.
        others_tokens, others_usd: what those took.
        calls, tokens, usd: sums of all, as if no cache had answered; ``usd`` is None where a price is not known.
        parts: programs with params, by name.
        steps: program calls by their place in the run.
        spent: the error of a request for which there was no budget, whatever the program made of it.
    """

    keys: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    others: int = 0
    others_tokens: int = 0
    others_usd: float = 0.0
    calls: int = 0
    tokens: int = 0
    usd: float | None = 0.0
    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    steps: list[tuple[tuple[int, ...], Step]] = field(default_factory=list[tuple[tuple[int, ...], Step]])
    spent: BudgetExceeded | None = None


class Used(NamedTuple):
    """What some calls took together: tokens and dollars by the requests' keys; and what those without one took."""

    keys: dict[str, tuple[int, float]]
    others: int
    tokens: int
    usd: float


def sums(seen: Sequence[Seen]) -> Used:
    """What was seen, summed: each request with one answer once."""
    keys: dict[str, tuple[int, float]] = {}
    for one in seen:
        for key, (tokens, usd) in sorted(one.keys.items()):
            before = keys.get(key, (0, 0.0))
            keys[key] = max(tokens, before[0]), max(usd, before[1])
    return Used(
        keys,
        sum(one.others for one in seen),
        sum(one.others_tokens for one in seen),
        sum(one.others_usd for one in seen),
    )


def used_of(result: Mapping[str, Any]) -> Used:
    """What a kept result says that it took."""
    return Used(*(result[name] for name in Used._fields))


class Watched:
    """A Runtime that passes everything on, and sees the programs and model calls below one call.

    What a program is asked to do is deterministic where its decoding is: then the exact cache may answer, so that
    candidates that ask the same pay once.

    Args:
        inner: the runner.
        within: the place of the call whose programs count as parts of what is tuned; those of a metric beside it don't.
        cached: whether there is an exact cache at all.
    """

    def __init__(self, inner: Runtime, within: str, *, cached: bool = True) -> None:
        self._inner, self._within, self._cached = inner, within, cached
        self.seen = Seen()

    def _counts(self, ctx: Context) -> bool:
        return ctx.step == self._within or ctx.step.startswith(f"{self._within}.")

    async def run(self, ctx: Context, program: Program, inputs: Mapping[str, Any], /) -> Answer:
        """A program call."""
        answer = await self._inner.run(ctx, program, inputs)
        if self._counts(ctx):
            spec = program.spec
            outputs = plain_values(answer.outputs, spec.written)
            step = Step(spec.name, plain_values({**inputs, **answer.outputs}, {**spec.inputs, **spec.fed}), outputs)
            self.seen.steps.append((tuple(int(part) for part in ctx.step.split(".")), step))
        return answer

    async def complete(self, ctx: Context, request: Request, through: Through | None = None, /) -> Reply:
        """A model call."""
        request, key = self._asked(request)
        try:
            reply = await self._inner.complete(ctx, request, through)
        except BudgetExceeded as error:
            self.seen.spent = error
            raise
        self._answered(key, reply)
        return reply

    async def stream(self, ctx: Context, request: Request, /) -> AsyncIterator[Chunk]:
        """A streamed model call."""
        request, key = self._asked(request)
        try:
            async for chunk in self._inner.stream(ctx, request):
                if chunk.reply is not None:
                    self._answered(key, chunk.reply)
                yield chunk
        except BudgetExceeded as error:
            self.seen.spent = error
            raise

    def _asked(self, request: Request) -> tuple[Request, str | None]:
        """The request as it is sent on, and its key where it is asked of a model only once."""
        seen, decoding, options = self.seen, request.decoding, request.options
        seen.calls += 1
        if not self._cached or options.exact is False or (decoding.temperature != 0 and decoding.seed is None):
            seen.others += 1
            return request, None
        key = request_key(request)
        seen.keys.setdefault(key, (0, 0.0))
        return (request if options.exact else replace(request, options=replace(options, exact=True))), key

    def _answered(self, key: str | None, reply: Reply) -> None:
        seen, tokens = self.seen, reply.usage.tokens_in + reply.usage.tokens_out
        saved = [stage.saved_usd for stage in reply.stages if stage.layer in _LAYERS]
        cost = reply.cost_usd
        usd = None if cost is None or None in saved else cost + sum(one or 0.0 for one in saved)
        seen.tokens += tokens
        seen.usd = None if seen.usd is None or usd is None else seen.usd + usd
        if key is None:
            seen.others_tokens += tokens
            seen.others_usd += usd or 0.0
        else:
            seen.keys[key] = tokens, usd or 0.0

    def score(self, ctx: Context, name: str, about: Record, value: float, /) -> Coroutine[Any, Any, None]:
        """A score."""
        return self._inner.score(ctx, name, about, value)

    def params(self, ctx: Context, spec: Spec, own: Params, /) -> Params:
        """The params of a program; they are what can be tuned."""
        params = self._inner.params(ctx, spec, own)
        if self._counts(ctx):
            self.seen.parts.setdefault(spec.name, Part(spec.name, spec, params))
        return params

    async def recall(self, ctx: Context, key: str, /) -> Kept:
        """Nothing: what another candidate's step kept must not answer for this one."""
        return Kept()

    async def keep(
        self, ctx: Context, key: str, value: bytes, tags: Sequence[str], ttl: float | None, since: int | None, /
    ) -> None:
        """Nothing is kept."""

    async def embed(self, ctx: Context, texts: Sequence[str], /) -> Embeddings:
        """Points of texts."""
        return await self._inner.embed(ctx, texts)

    def __getattr__(self, name: str) -> Any:
        """What else a runner can do, it does itself."""
        return getattr(self._inner, name)


def watched(ctx: Context, within: str, *, cached: bool = True) -> tuple[Context, Watched]:
    """The same call with its programs watched; for ``within`` and ``cached`` see ``Watched``.

    Of a run that is resumed only the replies of models are given back to what is below, not the answers of programs:
    these run again, at no cost, so that what they ask is seen the same as the first time.
    """
    run = ctx.run
    watch = Watched(run.runtime, within, cached=cached)
    replay = None if run.replay is None else {step: one for step, one in run.replay.items() if one.kind == "model"}
    made = Context(
        replace(run, runtime=cast("Runtime", watch), replay=replay),
        step=ctx.step,
        record_id=ctx.record_id,
        tally=ctx.tally,
    )
    return made, watch


async def score_rows(
    ctx: Context, task: Task, candidate: Candidate, rows: Sequence[Row]
) -> tuple[list[Outcome], list[Seen]]:
    """A candidate on rows, several at once; in the order of the rows.

    Raises:
        BudgetExceeded: there is nothing left to ask with.
        KaizenError: what would fail every row.
    """
    slots = asyncio.Semaphore(max(1, task.concurrency))
    # the places are taken here, in the order of the rows, however the rows are scheduled
    branches = [ctx.fork(overrides=left_out(task, candidate, row)) for row in rows]

    async def one(branch: Context, row: Row) -> tuple[Outcome, Seen]:
        async with slots:
            return await _score(branch, task, row)

    done = await together(one(branch, row) for branch, row in zip(branches, rows, strict=True))
    return [outcome for outcome, _ in done], [seen for _, seen in done]


def left_out(task: Task, candidate: Candidate, row: Row) -> Mapping[str, Params]:
    """A candidate's params without demos made of this very row: else scoring it on rows it learned from says nothing.

    A demo of a program below is taken for made of the row where it holds the row's inputs under the same names.
    """
    return {name: without(params, row) for name, params in candidate.params.items()}


def without(params: Params, row: Row) -> Params:
    """Params without the demos made of a row."""
    given = plain_values(row.inputs, row.inputs)

    def made_of(demo: Demo) -> bool:
        shared = {name: value for name, value in demo.inputs.items() if name in given}
        return bool(shared) and all(given[name] == value for name, value in shared.items())

    made = [made_of(demo) for demo in params.demos]
    if not any(made):
        return params
    demos = tuple(demo for demo, its in zip(params.demos, made, strict=True) if not its)
    shown = None if params.shown is None else params.shown - sum(made[: params.shown])
    return replace(params, demos=demos, shown=shown)


async def _score(branch: Context, task: Task, row: Row) -> tuple[Outcome, Seen]:
    ctx, watch = watched(branch, f"{branch.step}.0", cached=task.cached)
    answer: Answer | None = None
    prediction: dict[str, Any] | None = None
    error: str | None = None
    scored: Scored | None = None
    try:
        answer = await ctx.call(task.program, **row.inputs)
        prediction = plain_values(answer.outputs, task.program.spec.outputs)
    except _HOPELESS:
        raise
    except Exception as failure:  # noqa: BLE001 - a program's own errors fail their row, not the search
        code = failure.code if isinstance(failure, KaizenError) else type(failure).__name__
        error, scored = code, Scored(0.0, f"there was no answer: {failure}")
    seen = watch.seen
    if seen.spent is not None:
        raise seen.spent  # the program went on without it, which says nothing about its params
    if error is not None:
        in_time(ctx)
    if answer is not None and prediction is not None:
        # as if no cache and no earlier try had answered: else a metric of the cost would praise what was asked before
        record = replace(answer.record, cost_usd=seen.usd, attempts=seen.calls, model_calls=seen.calls)
        scored = (await judge(ctx, task.metric, row, record, prediction)).said
    scored = scored or Scored(0.0, "nothing here to measure")
    names = seen.parts
    steps = tuple(step for _, step in sorted(seen.steps, key=lambda one: one[0]) if step.name in names)
    outcome = Outcome(
        score=scored.value,
        comment=scored.comment,
        prediction=prediction,
        error=error,
        calls=seen.calls,
        tokens=seen.tokens,
        cost_usd=seen.usd,
        steps=steps,
    )
    return outcome, seen


def in_time(ctx: Context) -> None:
    """Refuse to take a failure for what was asked's own where the run's time was over.

    Raises:
        BudgetExceeded: it was over.
    """
    deadline = ctx.run.deadline
    if deadline is not None and time.monotonic() >= deadline:
        raise BudgetExceeded("the run's time is over")


outcomes_adapter: Final = TypeAdapter(list[Outcome])
"""Outcomes from JSON."""
