"""What an experiment is, fixed before it starts, and how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

from pydantic import TypeAdapter
from pydantic_core import to_json

from kaizen.core.artifact import Arm, Artifact
from kaizen.core.errors import ConfigError

KIND: Final = "experiment"

Quantity: TypeAlias = Literal["errors", "latency", "cost", "score"]
State: TypeAlias = Literal["running", "won", "lost", "inconclusive", "stopped"]

_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Guard:
    """A bound that stops an experiment early when a candidate is beyond it.

    Args:
        quantity: what is watched.
        margin: how much worse than the control a candidate may be: for ``errors`` and ``score`` a difference of means
            (0.05 is five points), for ``latency`` and ``cost`` a ratio of geometric means (1.5 is half as much again).
    """

    quantity: Quantity
    margin: float

    @property
    def absurd(self) -> bool:
        """Whether no candidate, or every one, would pass it; ratios beyond 10 are past what is kept of them."""
        if self.quantity in ("latency", "cost"):
            return not 1 <= self.margin < 10
        return not 0 <= self.margin < 1


GUARDS: Final = (Guard("errors", 0.02), Guard("latency", 1.5), Guard("cost", 1.5), Guard("score", 0.1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When an experiment ends, and how.

    Args:
        least: subjects an arm needs before it may win or lose.
        alpha: how often a candidate that is no better may win.
        effect: differences smaller than this are not worth a release.
        guards: what stops it early.
        guard_alpha: how often one guard may stop a candidate that is within its bound.
        days: after so many it is inconclusive.
        subjects: so is it after so many subjects in all.
        scores: values of a subject that count, the first ones.
        window_s: seconds after a subject's first value at which it counts with what it has.
    """

    least: int = 100
    alpha: float = 0.05
    effect: float = 0.0
    guards: tuple[Guard, ...] = GUARDS
    guard_alpha: float = 0.01
    days: float = 28.0
    subjects: int = 100_000
    scores: int = 5
    window_s: float = 3600.0

    def __post_init__(self) -> None:
        wrong = [
            said
            for holds, said in (
                (self.least < 100, "needs 100 subjects an arm at least: fewer say nothing about a rare mistake"),
                (not 0 < self.alpha <= 0.2, "needs an alpha above 0 and up to 0.2"),
                (not 0 <= self.effect < 1, "needs an effect from 0 to 1"),
                (self.scores < 1 or self.window_s < 0, "needs a score a subject, and a window of no less than 0 s"),
                (any(guard.absurd for guard in self.guards), "has a guard whose margin makes no sense"),
            )
            if holds
        ]
        if wrong:
            raise ConfigError(f"the rule of an experiment {'; it '.join(wrong)}")


RULE: Final = Rule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """An experiment, as it is kept before it starts.

    Args:
        program: the program's name.
        arms: versions and their shares of the subjects; the first is the control.
        metric: name of the scores that decide.
        label: the label whose traffic is split, and which the winner gets.
        rule: when it ends.
        begun: Unix seconds.
    """

    program: str
    arms: tuple[Arm, ...]
    metric: str
    begun: float
    label: str = "prod"
    rule: Rule = RULE

    def __post_init__(self) -> None:
        wrong = [
            said
            for holds, said in (
                (len(self.arms) < 2, "needs two arms or more, the control first"),
                (len({arm.version for arm in self.arms}) < len(self.arms), "has one version in two arms"),
                (any(not 0 < arm.weight < 1 for arm in self.arms), "needs weights between 0 and 1"),
                (abs(sum(arm.weight for arm in self.arms) - 1) > 1e-6, "needs weights that sum to 1"),
            )
            if holds
        ]
        if wrong:
            raise ConfigError(f"the experiment on {self.program} {'; it '.join(wrong)}")

    @property
    def ends(self) -> float:
        """Unix seconds at which it is inconclusive."""
        return self.begun + self.rule.days * _DAY

    def artifact(self) -> Artifact:
        """As the registry keeps it; its arms are its parents."""
        parents = tuple(f"params/{self.program}@{arm.version}" for arm in self.arms)
        return Artifact(KIND, self.program, to_json(asdict(self)), parents)


def definition_of(artifact: Artifact) -> Definition:
    """The experiment that an artifact holds."""
    return _adapter().validate_json(artifact.body)


@cache
def _adapter() -> TypeAdapter[Definition]:
    return TypeAdapter(Definition)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an experiment ended.

    Args:
        state: never ``running``.
        arm: place of the arm that has the label from here on: the winner, else the control.
        reason: with the numbers that spoke for it.
        at: Unix seconds.
    """

    state: State
    arm: int
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An arm as it stands.

    Args:
        version, weight: see ``Arm``.
        subjects: that count.
        score: mean over them; None without any.
        difference, low, high: against the control, with its always-valid 95 % interval; None for the control.
        better, worse: evidence for either, to be read against 1 / alpha; None for the control.
        calls, errors: seen so far, counted or not.
    """

    version: str
    weight: float
    subjects: int
    score: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    better: float | None = None
    worse: float | None = None
    calls: int = 0
    errors: int = 0
