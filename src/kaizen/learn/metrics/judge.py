"""A model as judge of answers, and how well it agrees with people: unmeasured, its word decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic_core import from_json

from kaizen.core.answer import Answer
from kaizen.core.artifact import Artifact
from kaizen.core.context import Context, Program
from kaizen.core.errors import ConfigError, Denied, InvalidInput
from kaizen.core.spec import Spec
from kaizen.learn.data.rows import canonical
from kaizen.learn.metrics.measure import metric_spec
from kaizen.ledger.intervals import wilson
from kaizen.programs import declare
from kaizen.programs.signature import Signature

KIND: Final = "agreement"
LEAST_LABELS: Final = 30
"""Answers that people have to have scored before a judge's agreement counts as measured."""
LEAST_KAPPA: Final = 0.4
"""Agreement beyond chance that a judge needs to decide anything: "moderate" (Landis and Koch, Biometrics 33, 1977)."""

_VALUES: Final = {"wrong": 0.0, "partly right": 0.5, "right": 1.0}


class Verdict(Signature):
    """Judge whether an answer does what the task asks.

    Compare it with the reference, if there is one: another wording of the same is right, a contradiction or a
    missing part is not. Judge the answer only, not how it was reached.
    """

    task: str = declare.input("what was asked for")
    given: str = declare.input("the inputs, as JSON")
    reference: str = declare.input("a right answer, as JSON; empty where there is none")
    answer: str = declare.input("the answer to judge, as JSON")
    why: str = declare.output("one sentence: what is right or wrong about it")
    verdict: Literal["wrong", "partly right", "right"] = declare.output("the verdict")


class Judge:
    """A metric that asks a model, which is named: the model under test can't be the judge of itself.

    Args:
        spec: the contract of the program whose answers are judged.
        model: ref of the model that judges.

    Attributes:
        model: the same.
        program: name of the program whose answers are judged.
    """

    def __init__(self, spec: Spec, model: str) -> None:
        if "/" not in model:
            raise ConfigError("a judge names its model, other than the one under test: --metric judge:provider/model")
        self.model = model
        self.program = spec.name
        self._task = spec.doc
        self._verdict = Verdict.using(model=model, temperature=0.0)
        self.spec = metric_spec(f"judge:{model}", Verdict.spec.doc)

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Its verdict on one answer: 0, 0.5 or 1, and why."""
        expected: Mapping[str, Any] = inputs["expected"]
        said = await ctx.call(
            self._verdict,
            task=self._task,
            given=canonical(inputs["inputs"]).decode(),
            reference=canonical(expected).decode() if expected else "",
            answer=canonical(inputs.get("prediction")).decode(),
        )
        return Answer.of({"score": _VALUES[said.verdict], "comment": said.why}, inputs=inputs)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a judge's words compare with people's, on one program's answers.

    Args:
        program: whose answers were judged: who judges those well may judge another's badly.
        judge: the metric's name.
        n: answers that both scored.
        rate: share on which they agree that an answer is good (from 0.5 on) or is not.
        low, high: its 95 % interval.
        kappa: agreement beyond what chance gives (Cohen, 1960): 0 is chance, 1 is full.
    """

    program: str
    judge: str
    n: int
    rate: float
    low: float
    high: float
    kappa: float

    @property
    def suffices(self) -> bool:
        """Whether the judge may decide something."""
        return self.n >= LEAST_LABELS and self.kappa >= LEAST_KAPPA

    def artifact(self) -> Artifact:
        """What the registry keeps of it."""
        return Artifact(
            KIND, agreed_on(self.program, self.judge), canonical({name: getattr(self, name) for name in self.__slots__})
        )

    @classmethod
    def load(cls, artifact: Artifact) -> Agreement:
        """What ``artifact`` made an artifact of.

        Raises:
            InvalidInput: if it is none of an agreement.
        """
        try:
            return cls(**from_json(artifact.body))
        except (ValueError, TypeError):
            raise InvalidInput(f"{artifact.ref} is no agreement of a judge") from None


def agreed_on(program: str, judge: str) -> str:
    """The name that an agreement is kept by."""
    return f"{program}/{judge}"


def agreement(judge: Judge, judged: Sequence[float], people: Sequence[float]) -> Agreement:
    """How a judge's scores compare with people's, answer by answer.

    Raises:
        InvalidInput: without any.
    """
    pairs = [(a >= 0.5, b >= 0.5) for a, b in zip(judged, people, strict=True)]
    n = len(pairs)
    if not n:
        raise InvalidInput("there are no answers that people have scored")
    agreed = sum(a == b for a, b in pairs)
    good, liked = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    chance = good * liked + (1 - good) * (1 - liked)
    # where both say the same of every answer, nothing shows that the judge tells good from bad
    kappa = 0.0 if chance == 1.0 else (agreed / n - chance) / (1 - chance)
    return Agreement(judge.program, judge.spec.name, n, agreed / n, *wilson(agreed, n), kappa)


def judges_in(metric: Program) -> tuple[Judge, ...]:
    """The judges that a metric asks."""
    terms: Sequence[Program] = getattr(metric, "programs", ())
    own = (metric,) if isinstance(metric, Judge) else ()
    return own + tuple(judge for term in terms for judge in judges_in(term))


def check_gate(metric: Program, known: Mapping[str, Agreement]) -> None:
    """Make sure that a metric may decide something: promote, release, let pass.

    Args:
        metric: what is to decide.
        known: what was measured of judges, by the names that it is kept by.

    Raises:
        Denied: it asks a judge whose agreement with people was not measured, or is too low.
    """
    for judge in judges_in(metric):
        name = judge.spec.name
        found = known.get(agreed_on(judge.program, name))
        if found is None or found.n < LEAST_LABELS:
            seen = "was never measured" if found is None else f"was measured on {found.n} answers only"
            raise Denied(
                f"{name} may not decide anything: its agreement with people on answers of {judge.program} {seen}; "
                f"measure it on {LEAST_LABELS} or more (kaizen eval --judge-check)"
            )
        if not found.suffices:
            raise Denied(
                f"{name} may not decide anything: its agreement with people on answers of {judge.program} is "
                f"{found.kappa:.2f} beyond chance (kappa), at least {LEAST_KAPPA} is needed"
            )
