"""An experiment while it runs: takes in calls and scores, and says when it is over. No clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kaizen.learn.experiment.definition import Definition, Guard, Quantity, Standing, State, Verdict
from kaizen.learn.experiment.sequential import Balance, Comparison, Moments
from kaizen.learn.experiment.subjects import Closed, Subjects

_UNBALANCED: Final = math.log(1000)
"""Evidence at which arms do not get the subjects they should; at 1 in 1,000, since it says that something is broken."""
_SPAN: Final = math.log(100)
"""Times and costs count as logarithms, from a tenth to ten times the usual, so that one outlier decides nothing."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the program under test.

    Args:
        subject: whom it was for.
        arm: place of the arm it ran with.
        at: when it began, Unix seconds.
        failed: whether it ended with an error.
        latency_ms: how long it took.
        cost_usd: what it cost; None where that is not known.
    """

    subject: str
    arm: int
    at: float
    failed: bool
    latency_ms: float
    cost_usd: float | None


class _Watch:
    """One guard: each candidate against the control in one quantity, by subjects."""

    def __init__(self, guard: Guard, definition: Definition) -> None:
        rule, shares = definition.rule, _shares(definition)
        self.guard = guard
        self.subjects = Subjects(rule.scores, rule.window_s)
        ratio = guard.quantity in ("latency", "cost")
        self.pairs = [Comparison(share, math.log(guard.margin) / _SPAN if ratio else guard.margin) for share in shares]
        self._usual = Moments()

    def scaled(self, value: float) -> float:
        """A time or a cost in [0, 1], by what was usual before it."""
        log = math.log(max(value, 1e-9))
        usual = self._usual.mean if self._usual.n else log
        self._usual.add(log)
        return min(1.0, max(0.0, (log - usual) / _SPAN + 0.5))

    def beyond(self, candidate: int, needed: float) -> bool:
        """Whether the evidence is enough that a candidate is beyond the bound."""
        pair = self.pairs[candidate - 1]
        return (pair.worse if self.guard.quantity == "score" else pair.better).value >= needed

    def said(self, candidate: int) -> str:
        """The guard's word on a candidate that is beyond it."""
        pair, margin = self.pairs[candidate - 1], self.guard.margin
        control, other = pair.arms
        of = f"of {other.n} and {control.n} subjects"
        match self.guard.quantity:
            case "errors":
                return f"its calls failed {other.mean:.1%} of the time against {control.mean:.1%}, {of}"
            case "score":
                return f"its score is {other.mean:.3f} against {control.mean:.3f}, more than {margin:g} lower, {of}"
            case quantity:
                ratio = math.exp(pair.difference * _SPAN)
                return f"its {quantity} is {ratio:.2f} times the control's, above {margin:g}, {of}"


class Trial:
    """An experiment's test.

    The verdict comes with the first subject after which a rule holds, so it does not depend on when anybody looked, and
    what is read again after a restart ends alike. Where there are several candidates, each is tested at its part of
    alpha (Bonferroni).

    Attributes:
        verdict: how it ended; None while it runs.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.verdict: Verdict | None = None
        rule, shares = definition.rule, _shares(definition)
        self._subjects = Subjects(rule.scores, rule.window_s)
        self._pairs = [Comparison(share) for share in shares]
        self._balances = [Balance(share) for share in shares]
        self._watches = [_Watch(guard, definition) for guard in rule.guards]
        self._watching = {
            quantity: [watch for watch in self._watches if watch.guard.quantity == quantity]
            for quantity in ("errors", "latency", "cost", "score")
        }
        self._arm_of: dict[str, int] = {}
        self._counted = 0
        self._calls = [0] * len(definition.arms)
        self._errors = [0] * len(definition.arms)

    # -- what comes in ----------------------------------------------------------------------------

    def call(self, call: Call) -> None:
        """Take in a call."""
        if self.verdict is not None or not self._known(call.subject, call.arm):
            return
        self._calls[call.arm] += 1
        self._errors[call.arm] += call.failed
        self._watch("errors", call.subject, float(call.failed), call.at)
        if not call.failed:
            self._watch("latency", call.subject, call.latency_ms, call.at)
            if call.cost_usd is not None:
                self._watch("cost", call.subject, call.cost_usd, call.at)
        self._length(call.at)

    def score(self, subject: str, arm: int, value: float, at: float) -> None:
        """Take in a score about a call of a subject; ``at`` is when the score came."""
        if self.verdict is not None or not self._known(subject, arm):
            return
        value = min(1.0, max(0.0, value))
        self._watch("score", subject, value, at)
        for closed in self._subjects.add(subject, value, at):
            self._count(closed)
        self._length(at)

    def due(self, now: float) -> None:
        """Count the subjects whose window has passed by now, and see whether time is up."""
        for watch in self._watches:
            for closed in watch.subjects.due(now):
                self._weigh(watch, closed)
        for closed in self._subjects.due(now):
            self._count(closed)
        self._length(now)

    def stop(self, reason: str, at: float) -> None:
        """End it by hand; the control keeps the label."""
        self._end("stopped", 0, reason, at)

    # -- how it stands ----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where it is."""
        return "running" if self.verdict is None else self.verdict.state

    def standings(self) -> Sequence[Standing]:
        """Every arm as it stands, the control first."""
        made: list[Standing] = []
        for place, arm in enumerate(self.definition.arms):
            pair = self._pairs[max(place - 1, 0)]
            moments = pair.arms[place > 0]
            score = moments.mean if moments.n else None
            counted = {"calls": self._calls[place], "errors": self._errors[place]}
            if place == 0:
                made.append(
                    Standing(version=arm.version, weight=arm.weight, subjects=moments.n, score=score, **counted)
                )
                continue
            low, high = pair.interval()
            made.append(
                Standing(
                    version=arm.version,
                    weight=arm.weight,
                    subjects=moments.n,
                    score=score,
                    difference=pair.difference if min(pair.arms[0].n, moments.n) else None,
                    low=low,
                    high=high,
                    better=pair.better.value,
                    worse=pair.worse.value,
                    **counted,
                )
            )
        return made

    # -- inside -----------------------------------------------------------------------------------

    def _known(self, subject: str, arm: int) -> bool:
        """Whether this is the subject's arm. One seen in two arms stays in the first: an arm is kept, not chosen."""
        return self._arm_of.setdefault(subject, arm) == arm

    def _watch(self, quantity: Quantity, subject: str, value: float, at: float) -> None:
        for watch in self._watching[quantity]:
            scaled = watch.scaled(value) if quantity in ("latency", "cost") else value
            for closed in watch.subjects.add(subject, scaled, at):
                self._weigh(watch, closed)

    def _weigh(self, watch: _Watch, closed: Closed) -> None:
        """Take a subject into a guard's evidence, and stop if that is enough."""
        arm, needed = self._arm_of[closed.subject], 1 / self.definition.rule.guard_alpha
        for candidate, pair in enumerate(watch.pairs, 1):
            if arm in (0, candidate):
                pair.add(arm == candidate, closed.value)
                if watch.beyond(candidate, needed):
                    self._end("stopped", 0, f"{self._name(candidate)}: {watch.said(candidate)}", closed.at)

    def _count(self, closed: Closed) -> None:
        """Take a subject into the comparison, and end if a rule holds now."""
        if self.verdict is not None:
            return
        self._counted += 1
        arm = self._arm_of[closed.subject]
        for candidate, (pair, balance) in enumerate(zip(self._pairs, self._balances, strict=True), 1):
            if arm in (0, candidate):
                pair.add(arm == candidate, closed.value)
                balance.add(arm == candidate)
                if balance.log >= _UNBALANCED:
                    counts = " and ".join(str(moments.n) for moments in pair.arms)
                    said = f"{counts} subjects do not fit the weights: scores of one arm are lost on their way"
                    self._end("stopped", 0, f"{self._name(candidate)}: {said}", closed.at)
        self._judge(closed.at)

    def _judge(self, at: float) -> None:
        rule = self.definition.rule
        needed = len(self._pairs) / rule.alpha
        ready = [min(arm.n for arm in pair.arms) >= rule.least for pair in self._pairs]
        won = [
            place
            for place, pair in enumerate(self._pairs)
            if ready[place] and pair.better.value >= needed and pair.difference >= rule.effect
        ]
        if won:
            best = max(won, key=lambda place: self._pairs[place].difference)
            self._end("won", best + 1, self._numbers(best), at)
            return
        lost = [ready[place] and pair.worse.value >= needed for place, pair in enumerate(self._pairs)]
        futile = [
            ready[place] and rule.effect > 0 and pair.interval(rule.alpha)[1] < rule.effect
            for place, pair in enumerate(self._pairs)
        ]
        if all(one or other for one, other in zip(lost, futile, strict=True)):
            said = "; ".join(self._numbers(place) for place in range(len(self._pairs)))
            self._end("lost" if all(lost) else "inconclusive", 0, said, at)

    def _length(self, now: float) -> None:
        definition = self.definition
        if now >= definition.ends or self._counted >= definition.rule.subjects:
            said = "; ".join(self._numbers(place) for place in range(len(self._pairs)))
            self._end("inconclusive", 0, f"its time is up: {said}", min(now, definition.ends))

    def _numbers(self, place: int) -> str:
        pair = self._pairs[place]
        control, candidate = pair.arms
        low, high = pair.interval()
        return (
            f"{self._name(place + 1)}: {self.definition.metric} {candidate.mean:.3f} of {candidate.n} subjects against "
            f"{control.mean:.3f} of {control.n}, difference {pair.difference:+.3f} ({low:+.3f} to {high:+.3f} at 95 %, "
            f"always valid), evidence {pair.better.value:.3g} for better and {pair.worse.value:.3g} for worse"
        )

    def _name(self, arm: int) -> str:
        return f"version {self.definition.arms[arm].version[:12]}"

    def _end(self, state: State, arm: int, reason: str, at: float) -> None:
        if self.verdict is None:
            self.verdict = Verdict(state, arm, reason, at)


def _shares(definition: Definition) -> list[float]:
    """For each candidate, the probability that a subject of it or the control is the candidate's."""
    control = definition.arms[0].weight
    return [arm.weight / (arm.weight + control) for arm in definition.arms[1:]]
