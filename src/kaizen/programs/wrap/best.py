"""Programs round a program: the best of several answers, and one made better by what was wrong with it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar, cast, overload

from kaizen.core.answer import Answer
from kaizen.core.context import EVERY, Context, Program
from kaizen.core.errors import DefinitionError, OutputInvalid
from kaizen.core.params import Params
from kaizen.core.request import Spare
from kaizen.core.spec import shorten
from kaizen.programs.runnable import Runnable
from kaizen.programs.together import together

A = TypeVar("A", bound=Answer)

Verdict: TypeAlias = float | tuple[float, str]
"""A metric's word: a score, higher is better, and possibly what should be better, for the model to read."""

Metric: TypeAlias = Callable[[Mapping[str, Any], Any], Verdict | Awaitable[Verdict]]
"""``metric(inputs, answer)``, plain or async."""


class BestOf(Runnable[..., A]):
    """See ``best_of``."""

    def __init__(self, program: Program, n: int, metric: Metric, threshold: float | None, temperature: float) -> None:
        _at_least_one(program, n)
        self.spec = program.spec.variant("best_of")
        self._program, self._n, self._metric = program, n, metric
        self._threshold, self._temperature = threshold, temperature

    async def run(self, ctx: Context, inputs: dict[str, Any]) -> Answer:
        """All at once without a threshold; one after another, until one reaches it, with one."""
        settings = (Params(temperature=self._temperature, seed=Spare(seed)) for seed in range(self._n))
        branches = [ctx.fork(overrides={EVERY: params}) for params in settings]
        attempts = (_attempt(branch, self._program, self._metric, inputs) for branch in branches)
        if self._threshold is None:
            return _best(await together(attempts))
        tried: list[_Attempt] = []
        for attempt in attempts:
            tried.append(await attempt)
            if tried[-1][0] >= self._threshold:
                break
        return _best(tried)


class Refine(Runnable[..., A]):
    """See ``refine``."""

    def __init__(self, program: Program, n: int, metric: Metric, threshold: float) -> None:
        _at_least_one(program, n)
        self.spec = program.spec.variant("refine")
        self._program, self._n, self._metric, self._threshold = program, n, metric, threshold

    async def run(self, ctx: Context, inputs: dict[str, Any]) -> Answer:
        """Try, score, and try again with the answer and its verdict shown, until the threshold or ``n``."""
        tried: list[_Attempt] = []
        branch = ctx
        for seed in range(self._n):
            tried.append(await _attempt(branch, self._program, self._metric, inputs))
            score, answer, said = tried[-1]
            if score >= self._threshold:
                break
            advice = Params(advice=_advice(answer, score, said), seed=Spare(seed + 1))
            branch = ctx.fork(overrides={EVERY: advice})
        return _best(tried)


_Attempt: TypeAlias = tuple[float, Answer | OutputInvalid, str]


async def _attempt(ctx: Context, program: Program, metric: Metric, inputs: Mapping[str, Any]) -> _Attempt:
    """Score, answer, and the metric's words. An answer that misfits its contract is the worst there is."""
    try:
        answer = await ctx.call(program, **inputs)
    except OutputInvalid as misfit:
        return float("-inf"), misfit, misfit.problem
    verdict = metric(inputs, answer)
    if inspect.isawaitable(verdict):
        verdict = await verdict
    score, said = verdict if isinstance(verdict, tuple) else (verdict, "")
    await ctx.score(getattr(metric, "__name__", "metric"), answer, float(score))
    return float(score), answer, said


def _best(tried: list[_Attempt]) -> Answer:
    """The first of those with the highest score.

    Raises:
        OutputInvalid: the last attempt's, when none fits its contract.
    """
    answer = max(tried, key=lambda attempt: attempt[0])[1]
    if isinstance(answer, OutputInvalid):
        raise answer
    return answer


def _advice(answer: Answer | OutputInvalid, score: float, said: str) -> str:
    if isinstance(answer, OutputInvalid):
        return f"An earlier answer did not fit: {said}"
    shown = ", ".join(f"{name} = {shorten(value, 200)}" for name, value in answer.outputs.items())
    reason = f" {said}" if said else ""
    return f"An earlier answer was: {shown}. It scored {score:g}.{reason} Give a better one."


def _at_least_one(program: Program, n: int) -> None:
    if n < 1:
        raise DefinitionError(program.spec.name, [f"n = {n}: at least one attempt is needed"])


@overload
def best_of(
    program: type[A], /, n: int, *, metric: Metric, threshold: float | None = None, temperature: float = 0.7
) -> BestOf[A]: ...
@overload
def best_of(
    program: Program, /, n: int, *, metric: Metric, threshold: float | None = None, temperature: float = 0.7
) -> BestOf[Answer]: ...
def best_of(
    program: Any, /, n: int, *, metric: Metric, threshold: float | None = None, temperature: float = 0.7
) -> BestOf[Any]:
    """Run ``program`` up to ``n`` times with different seeds and keep the answer the metric scores highest.

    Args:
        program: a signature or any other program.
        n: attempts.
        metric: ``metric(inputs, answer)`` gives a score, higher is better; each is kept as a score record.
        threshold: with one, attempts follow each other and stop at the first that reaches it; without, they
            all run at once.
        temperature: of the attempts, for every program below.
    """
    return BestOf[Any](cast("Program", program), n, metric, threshold, temperature)


@overload
def refine(program: type[A], /, n: int, *, metric: Metric, threshold: float) -> Refine[A]: ...
@overload
def refine(program: Program, /, n: int, *, metric: Metric, threshold: float) -> Refine[Answer]: ...
def refine(program: Any, /, n: int, *, metric: Metric, threshold: float) -> Refine[Any]:
    """Run ``program``; while its answer scores below ``threshold``, show it what was wrong and run it again.

    Args:
        program: a signature or any other program.
        n: attempts at most; the best answer counts.
        metric: ``metric(inputs, answer)`` gives a score, or a score and a sentence for the model.
        threshold: the score that is good enough.
    """
    return Refine[Any](cast("Program", program), n, metric, threshold)
