"""A bandit over live variants of a program: more of what is scored well, by kind of task, within guard rails.

Thompson sampling (Thompson, 1933; Agrawal and Goyal, arXiv 1209.3352) with what makes its records usable afterwards: a
variant is drawn with a probability that is known (its propensity), so that what every variant would score can be
estimated from what was served (inverse propensity weighting; doubly robust: Dudik, Langford and Li, arXiv 1103.4601).
An experiment with fixed weights says whether a difference is real; a bandit earns while it learns.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final

import pydantic
from pydantic_core import from_json

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program
from kaizen.core.errors import ConfigError
from kaizen.core.params import Params
from kaizen.core.record import RecordQuery
from kaizen.core.scope import Scope
from kaizen.core.spec import Field, Spec
from kaizen.learn.feed import Feed
from kaizen.learn.stats import Interval
from kaizen.ledger.intervals import Z95
from kaizen.ledger.ledger import Ledger

_DRAWS: Final = 200
_POOLED: Final = 10.0
"""Scores that what an arm does in other tasks counts for in a new one."""
_SURE: Final = 0.95
_TASKS: Final = 1000
"""Kinds of task that are told apart at once: what names them may be a caller's word."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One draw.

    Args:
        task: kind of task.
        arm: which was drawn.
        propensity: how likely that was.
    """

    task: str
    arm: int
    propensity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rails:
    """What a bandit may do.

    Args:
        least: share of the calls that every arm gets, so that what is known of it does not grow old.
        floor: an arm whose mean score is below this is served no more; None for no floor.
        seen: scores of an arm before it can be told to be under its floor.
    """

    least: float = 0.05
    floor: float | None = None
    seen: int = 30


RAILS: Final = Rails()


@dataclass(slots=True)
class _Scores:
    n: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        self.total += value


@dataclass(slots=True)
class _Estimate:
    """Mean and spread of values that are not kept (Welford, Technometrics 4, 1962)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        before, self.mean = value - self.mean, self.mean + (value - self.mean) / self.n
        self.squares += before * (value - self.mean)


class Bandit:
    """Thompson sampling over arms, by kind of task; scores from 0 to 1.

    What an arm does in all tasks is the prior for each: a new kind of task begins with what is known. Arm 0 is served
    where no other may be. A thousand kinds of task are told apart: of more, the one that was asked for longest ago is
    forgotten, and new again when it comes; what was scored in it still counts in the prior and in ``estimate``.

    Args:
        arms: how many.
        rails: what it may do.
        seed: of the draws.
    """

    def __init__(self, arms: int, *, rails: Rails = RAILS, seed: int = 0) -> None:
        if arms < 2 or not 0 <= rails.least * arms < 1:
            raise ConfigError("a bandit needs two arms or more, whose least shares sum to less than 1")
        self.rails = rails
        self._arms = range(arms)
        self._overall = [_Scores() for _ in self._arms]
        self._by_task: dict[str, list[_Scores]] = {}
        self._rng = random.Random(seed)  # noqa: S311 - exploration, no secret
        self._estimates = [_Estimate() for _ in self._arms]
        self._shares: dict[str, tuple[int, tuple[float, ...]]] = {}

    def shares(self, task: str) -> tuple[float, ...]:
        """The probability that each arm is drawn with: how likely it is the best, within the rails.

        Found anew when a few scores more have come, one in fifty: what is drawn with always is what is told.
        """
        served = self._estimates[0].n
        self._in(task)
        found = self._shares.get(task)
        if found is None or served - found[0] > found[0] // 50:
            found = self._shares[task] = served, self._found(task)
        return found[1]

    def choose(self, task: str) -> Decision:
        """Draw an arm."""
        shares = self.shares(task)
        arm = self._rng.choices(self._arms, shares)[0]
        return Decision(task, arm, shares[arm])

    def reward(self, decision: Decision, value: float) -> None:
        """Take in the score of what was served.

        Raises:
            ConfigError: the score is not from 0 to 1.
        """
        if not 0 <= value <= 1:
            raise ConfigError(f"a bandit learns from scores from 0 to 1, not {value!r}")
        for arm, estimate in enumerate(self._estimates):
            guess = self._mean(decision.task, arm)
            estimate.add(guess + ((value - guess) / decision.propensity if decision.arm == arm else 0.0))
        self._overall[decision.arm].add(value)
        self._in(decision.task)[decision.arm].add(value)

    def under_floor(self, arm: int) -> bool:
        """Whether an arm's mean score is under the floor, as good as surely."""
        floor, known = self.rails.floor, self._overall[arm]
        if floor is None or known.n < self.rails.seen:
            return False
        a, b = 1 + known.total, 1 + known.n - known.total
        mean, spread = a / (a + b), math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
        return mean + _quantile(_SURE) * spread < floor

    def estimate(self, arm: int) -> tuple[float, Interval]:
        """What an arm would score if it served every call, and the 95 % interval: doubly robust.

        What was expected of the arm before each score came, corrected by what it was wrong by where the arm was
        served, weighted by how unlikely that was. Unbiased whatever was expected, since the propensities are known.
        """
        known = self._estimates[arm]
        if not known.n:
            return 0.5, Interval(0.0, 1.0)
        spread = math.sqrt(known.squares / max(known.n - 1, 1) / known.n)
        return known.mean, Interval(known.mean - Z95 * spread, known.mean + Z95 * spread)

    def _found(self, task: str) -> tuple[float, ...]:
        open_arms = [arm for arm in self._arms if not self.under_floor(arm)] or [0]
        wins = [0] * len(self._arms)
        for _ in range(_DRAWS):
            drawn = {arm: self._rng.betavariate(*self._posterior(task, arm)) for arm in open_arms}
            wins[max(drawn, key=lambda arm: drawn[arm])] += 1
        free = 1 - self.rails.least * len(open_arms)
        return tuple(self.rails.least + free * wins[arm] / _DRAWS if arm in open_arms else 0.0 for arm in self._arms)

    def _in(self, task: str) -> list[_Scores]:
        known = self._by_task.pop(task, None)
        if known is None:
            known = [_Scores() for _ in self._arms]
            if len(self._by_task) >= _TASKS:
                oldest = next(iter(self._by_task))
                del self._by_task[oldest]
                self._shares.pop(oldest, None)
        self._by_task[task] = known  # the last asked for is the last to go
        return known

    def _posterior(self, task: str, arm: int) -> tuple[float, float]:
        here, overall = self._in(task)[arm], self._overall[arm]
        others, total = overall.n - here.n, overall.total - here.total
        weight = min(_POOLED, others) / others if others else 0.0
        return 1 + here.total + weight * total, 1 + here.n - here.total + weight * (others - total)

    def _mean(self, task: str, arm: int) -> float:
        a, b = self._posterior(task, arm)
        return a / (a + b)


def _quantile(share: float) -> float:
    return NormalDist().inv_cdf(share)


# -- live -----------------------------------------------------------------------------------------


class Draw:
    """The program whose call is a draw: on record, and drawn once even if the run is resumed.

    Args:
        bandit: what draws.
        name: of the program that it draws for.
    """

    def __init__(self, bandit: Bandit, name: str) -> None:
        info: Any = pydantic.Field()
        fields = [
            Field("task", "input", str, info),
            Field("arm", "output", int, info),
            Field("propensity", "output", float, info),
        ]
        self._bandit = bandit
        self.spec = Spec(f"kaizen.bandit.{name}", "Draw the variant that serves a call.", fields)

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """One draw."""
        made = self._bandit.choose(inputs["task"])
        return Answer.of({"arm": made.arm, "propensity": made.propensity}, inputs=inputs)


@dataclass(slots=True)
class Adaptive:
    """A program that is served by one of several variants, drawn anew for each call. Satisfies ``Program``.

    Args:
        program: what is served.
        variants: params of each arm; the first is the one to fall back to.
        bandit: what draws.
        task_of: kind of task by the inputs; one kind by default.
    """

    program: Program
    variants: Sequence[Params]
    bandit: Bandit
    task_of: Callable[[Mapping[str, Any]], str] | None = None
    spec: Spec = field(init=False)
    _draw: Draw = field(init=False)
    _feed: Feed | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.spec = self.program.spec.variant("bandit")
        self._draw = Draw(self.bandit, self.program.spec.name)

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Draw, then serve."""
        task = "" if self.task_of is None else self.task_of(inputs)
        drawn = await ctx.call(self._draw, task=task)
        arm: int = drawn.outputs["arm"]
        branch = ctx.fork(overrides={self.program.spec.name: self.variants[arm]})
        answer = await branch.call(self.program, **inputs)
        return self.spec.answer_type.of(answer.outputs, inputs=inputs)

    async def learn(self, ledger: Ledger, scope: Scope, scores: str, since: float = 0.0) -> int:
        """Take in the scores that came since the last call of this; how many.

        Args:
            ledger: where they lie.
            scope: whose.
            scores: their name, such as ``feedback``.
            since: Unix seconds, for the first call.
        """
        if self._feed is None:
            self._feed = Feed(ledger, scope, self.spec.name, scores, since, calls=False)
        count = 0
        for news in await self._feed.news():
            decision = await self._decision(ledger, scope, news.call.run_id, news.call.id)
            if decision is not None and news.score is not None and news.score.value is not None:
                self.bandit.reward(decision, min(1.0, max(0.0, news.score.value)))
                count += 1
        return count

    async def _decision(self, ledger: Ledger, scope: Scope, run_id: str, call: str) -> Decision | None:
        query = RecordQuery(kind="program", ref=self._draw.spec.name, run_id=run_id)
        async for record in ledger.records(scope, query):
            if record.parent_id == call:
                said = [await ledger.payload(scope, one) for one in (record.input_digest, record.output_digest)]
                if None not in said:
                    asked, drawn = (_values(one) for one in said)
                    return Decision(asked["task"], drawn["arm"], drawn["propensity"])
        return None


def _values(data: bytes | None) -> Mapping[str, Any]:
    return from_json(data or b"{}")
