"""What an optimizer is given, and what it puts forward."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from kaizen.core.context import Program
from kaizen.core.ids import digest
from kaizen.core.params import NOTHING, Params
from kaizen.core.spec import Spec
from kaizen.learn.data.rows import Row, canonical
from kaizen.learn.ranking import Ranking
from kaizen.registry.params import stated

_KINDS: Final[Mapping[str, str]] = {
    "instructions": "instructions",
    "demos": "demos",
    "nearest": "demos",
    "model": "model",
}
# A search needs some passes over the rows to choose by, the base's among them; fewer rows than that say nothing.
_PASSES: Final = 6
_LEAST_VAL: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be made better, and by what it is judged.

    The rows to test on are no part of it: an optimizer never sees them.

    Args:
        program: what is run.
        train: rows to learn from: demos and reflections are made of these.
        val: rows to choose by.
        metric: judges answers, see ``kaizen.learn.metrics``.
        seed: of every draw.
        teacher: ref of the model that writes proposals; None is the program's own.
        models: refs of models that may take the place of the program's own, for the search that chooses them.
        concurrency: rows in the air at once.
        strong: whether the program's model can follow long instructions and reflect; None where that is not known.
        start: params by program name to start from, instead of those in the code.
        ranking: what past runs have shown about which change is worth trying.
        cached: whether an exact cache answers what was asked before; without one, a model is asked every time.
    """

    program: Program
    train: tuple[Row, ...]
    val: tuple[Row, ...]
    metric: Program
    seed: int = 0
    teacher: str | None = None
    models: tuple[str, ...] = ()
    concurrency: int = 8
    strong: bool | None = None
    start: Mapping[str, Params] = field(default_factory=dict[str, Params])
    ranking: Ranking = field(default_factory=Ranking)
    cached: bool = True

    @property
    def name(self) -> str:
        """The program's."""
        return self.program.spec.name

    def within(self, calls: int | None) -> Task:
        """The same for a search of so many calls: few calls on many rows to choose by compare too little.

        The rows beyond a sixth of the calls go to those to learn from; at least a dozen stay.
        """
        most = len(self.val) if calls is None else max(_LEAST_VAL, calls // _PASSES)
        if most >= len(self.val):
            return self
        kept = set(random.Random(f"val {self.seed}").sample(range(len(self.val)), most))  # noqa: S311 - a choice of rows
        val = tuple(row for at, row in enumerate(self.val) if at in kept)
        spare = tuple(row for at, row in enumerate(self.val) if at not in kept)
        return replace(self, train=(*self.train, *spare), val=val)


@dataclass(frozen=True, slots=True)
class Part:
    """A program with params that was met while the task's program ran: itself, or one that it calls.

    Args:
        name: the program's name.
        spec: its contract.
        params: those it ran with, defaults included.
    """

    name: str
    spec: Spec
    params: Params

    @property
    def instructions(self) -> str:
        """What it is told to do."""
        return self.params.instructions or self.spec.doc

    @property
    def way(self) -> str:
        """Of a program round a signature, such as an agent, which: it can be shown demos, but not asked otherwise."""
        return self.name.partition(":")[2]


@dataclass(frozen=True)
class Candidate:
    """Params put forward for the task's program and the programs below it.

    Args:
        params: by program name, only what differs from the code; nothing is the base.
        how: how they came about, in a line.
        parents: ids of the candidates they were made from.
    """

    params: Mapping[str, Params]
    how: str = ""
    parents: tuple[str, ...] = ()

    @cached_property
    def id(self) -> str:
        """Content address of the params, whatever made them."""
        said = {name: stated(replace(params, contract=None)) for name, params in self.params.items()}
        return digest(canonical({name: one for name, one in said.items() if one}))

    def over(self, name: str, params: Params, how: str, *others: Candidate) -> Candidate:
        """This one with other params for one program.

        Args:
            name: the program's.
            params: what changes; the rest stays.
            how: as above.
            others: candidates that it was made from besides this one.
        """
        changed = {**self.params, name: params.over(self.params.get(name, NOTHING))}
        return Candidate(changed, how, (self.id, *(other.id for other in others)))

    @property
    def changes(self) -> frozenset[str]:
        """Which kinds of change it makes, of ``instructions``, ``demos``, ``decoding`` and ``model``."""
        said = {key for params in self.params.values() for key in stated(params)}
        kinds = {_KINDS.get(key, "decoding") for key in said if key != "contract"}
        return frozenset(kinds)

    @property
    def size(self) -> int:
        """Characters that its instructions and demos put into a prompt: of two as good, the shorter is better."""
        return sum(
            len(params.instructions or "") + sum(len(canonical([demo.inputs, demo.outputs])) for demo in params.demos)
            for params in self.params.values()
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One program's call while a row was answered, for demos made of it.

    Args:
        name: the program's.
        inputs, outputs: JSON-able, by field name.
    """

    name: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A candidate on one row.

    Args:
        score: the metric's; 0 where there was no answer.
        comment: the metric's words, or what went wrong.
        prediction: outputs by field name; None where there was no answer.
        error: code of the error it ended with.
        calls: model calls it took, cached ones included.
        tokens: read and written.
        cost_usd: what they cost, or would have where a cache answered; None where a price is not known.
        steps: the calls of programs below, the row's own last.
    """

    score: float
    comment: str = ""
    prediction: Mapping[str, Any] | None = None
    error: str | None = None
    calls: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0
    steps: tuple[Step, ...] = ()
