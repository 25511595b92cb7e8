"""What ``kaizen eval`` is to do, and the program that does it as one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import pydantic

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program, Releases
from kaizen.core.errors import BudgetExceeded
from kaizen.core.ids import digest, new_id
from kaizen.core.params import Params
from kaizen.core.spec import Field, Spec
from kaizen.learn.data.rows import Row, canonical
from kaizen.learn.evaluate.evaluate import evaluate
from kaizen.learn.evaluate.judging import name_of
from kaizen.learn.evaluate.result import Evaluation, RowResult

Told = Callable[[str, RowResult], None]


class Closable(Protocol):
    """What ends with the run."""

    async def close(self) -> object:
        """Let go."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is evaluated.

    Args:
        program: what to run.
        rows: on what.
        metric: what scores.
        versions: which versions of the program's params: empty text for what callers get, ``base``, ``latest``, a
            label, a number or a content address. Two are compared.
        concurrency: rows worked on at once.
        calls: the most requests that may reach a model; None for no limit.
        run_id: the run it is.
        resume: whether it goes on with that run, rather than begin it.
        overrides: params by program name that come before all others.
        source: where the rows come from, for the reports.
    """

    program: Program
    rows: Sequence[Row]
    metric: Program
    versions: tuple[str, ...] = ("",)
    concurrency: int = 8
    calls: int | None = None
    run_id: str = field(default_factory=new_id)
    resume: bool = False
    overrides: Mapping[str, Params] = field(default_factory=dict[str, Params])
    source: str = ""

    @property
    def data(self) -> str:
        """Content address of the rows in their order."""
        return digest("".join(row.key for row in self.rows).encode())

    @property
    def digest(self) -> str:
        """What a resumed run has to have in common with the one it goes on with."""
        said = {name: params.version for name, params in self.overrides.items()}
        spec = self.program.spec
        return digest(canonical([spec.name, spec.contract, self.data, name_of(self.metric), list(self.versions), said]))


def _field(name: str, annotation: Any, role: Any) -> Field:
    info: Any = pydantic.Field()
    return Field(name, role, annotation, info)


_SPEC: Final = Spec(
    "kaizen.eval",
    "Run a program on rows and score its answers.",
    [
        _field("program", str, "input"),
        _field("rows", str, "input"),
        _field("metric", str, "input"),
        _field("versions", list[str], "input"),
        _field("scores", list[float], "output"),
        _field("calls", int, "output"),
    ],
)


class Evaluating:
    """A plan as a Program, so that it is a run like any other; the evaluations themselves are in ``found``.

    Args:
        plan: what to do.
        views: what each of its versions means, fixed when the run begins.
        told: hears of each row as it is done, and of which version it is.
    """

    def __init__(self, plan: Plan, views: Sequence[Releases], told: Told | None = None) -> None:
        self.spec = _SPEC
        self.found: list[Evaluation] = []
        self._plan, self._views, self._told = plan, views, told

    @property
    def inputs(self) -> dict[str, Any]:
        """What to call it with."""
        plan = self._plan
        return {
            "program": plan.program.spec.name,
            "rows": plan.data,
            "metric": name_of(plan.metric),
            "versions": list(plan.versions),
        }

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Evaluate each version, one after another, on the same rows.

        Raises:
            BudgetExceeded: ``detail["version"]`` is the one under way.
        """
        plan = self._plan
        for version, view in zip(plan.versions, self._views, strict=True):
            branch = ctx.fork(overrides=plan.overrides)
            branch.run = replace(branch.run, releases=view)
            try:
                self.found.append(
                    await evaluate(
                        branch,
                        plan.program,
                        plan.rows,
                        plan.metric,
                        concurrency=plan.concurrency,
                        progress=self._heard(version),
                    )
                )
            except BudgetExceeded as error:
                error.detail = {**error.detail, "version": version}
                raise
        outputs = {"scores": [one.score for one in self.found], "calls": sum(one.calls for one in self.found)}
        return Answer.of(outputs, inputs=inputs)

    def _heard(self, version: str) -> Callable[[RowResult], None] | None:
        told = self._told
        return None if told is None else lambda result: told(version, result)
