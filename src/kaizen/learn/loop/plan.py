"""What a loop watches, when it acts and how much it may do: fixed in an artifact, so that it outlives the process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

from pydantic import TypeAdapter
from pydantic_core import to_json

from kaizen.core.artifact import Artifact
from kaizen.core.errors import ConfigError
from kaizen.learn.experiment.definition import RULE, Rule
from kaizen.learn.loop.tunable import TUNING, Tunable
from kaizen.ledger.scores import FEEDBACK

KIND: Final = "loop"

Asks: TypeAlias = Literal["large", "always", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """When scores call for something.

    Args:
        floor: a mean below this is not good enough; None for no floor.
        window: scores that the mean is taken over, the latest.
        least: scores it takes before the floor or the level says anything.
        harm: how much worse is to be found: 0.1 is ten points.
        alpha: how often a release may be taken back that is as good as the version before.
        probation: scores of a release after which it is no longer compared with the version before.
        quiet: scores to one false alarm of drift, in the mean.
        alike: failures that lie close together and make a cluster; 0 looks for none.
        feedback: new corrections that call for a proposal; 0 waits for none.
    """

    floor: float | None = None
    window: int = 200
    least: int = 50
    harm: float = 0.1
    alpha: float = 0.15
    probation: int = 1000
    quiet: float = 25_000.0
    alike: int = 10
    feedback: int = 50


WATCH: Final = Watch()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A loop over one program.

    Args:
        program: its name.
        target: ``FILE.py:Name``, where the program is loaded from.
        metric: what candidates are tested with on labelled rows, as ``--metric`` has it.
        scores: name of the score records that are watched and that decide experiments: ``feedback`` is people's words.
        rows: ref of the dataset that proposals are made from and tested on.
        watch: when scores call for something.
        rule: of its experiments.
        share: of the subjects that a candidate gets in an experiment.
        optimizer: what proposes; ``tuning`` moves the tunables, and nothing else.
        tunables: parameters that may be moved, and within which bounds.
        calls: model calls that one proposal may take, its test included.
        per_day: proposals a day.
        usd_per_day: dollars a day that proposals may cost.
        asks: whether a person is asked before an experiment: for ``large`` changes, ``always`` or ``never``.
        label: the label that is released to.
        seed: of every draw.
    """

    program: str
    target: str
    metric: str
    rows: str
    scores: str = FEEDBACK
    watch: Watch = WATCH
    rule: Rule = RULE
    share: float = 0.5
    optimizer: str = "compose"
    tunables: tuple[Tunable, ...] = ()
    calls: int = 200
    per_day: int = 2
    usd_per_day: float = 1.0
    asks: Asks = "large"
    label: str = "prod"
    seed: int = 0

    def __post_init__(self) -> None:
        watch = self.watch
        wrong = [
            said
            for holds, said in (
                (watch.floor is not None and not 0 <= watch.floor <= 1, "a floor from 0 to 1"),
                (not 1 <= watch.least <= watch.window, "a window of at least as many scores as count"),
                (not 0 < watch.harm < 1, "a harm between 0 and 1"),
                (not 0 < watch.alpha < 0.5, "an alpha between 0 and 0.5"),
                (not 0 < self.share < 1, "a share between 0 and 1"),
                (
                    (self.optimizer == TUNING) != bool(self.tunables),
                    "bounds of parameters for tuning, and for that alone",
                ),
                (self.per_day < 0 or self.usd_per_day < 0 or self.calls < 1, "limits of no less than nothing"),
            )
            if holds
        ]
        if wrong:
            raise ConfigError(f"the loop of {self.program} needs {', and '.join(wrong)}")

    def artifact(self) -> Artifact:
        """As the registry keeps it."""
        return Artifact(KIND, self.program, to_json(asdict(self)), (self.rows,))


def plan_of(artifact: Artifact) -> Plan:
    """The plan that an artifact holds."""
    return _adapter().validate_json(artifact.body)


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)
