"""A loop's steps: each a run of its own, on record like any other. What a loop remembers is read from there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import pydantic
from pydantic_core import from_json

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.protocols import Suspended
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.core.spec import Field, Spec
from kaizen.learn.feed import id_at
from kaizen.ledger.ledger import Ledger
from kaizen.programs.calls import Suspension

Action: TypeAlias = Literal[
    "propose",  # an optimizer's run begins
    "no gain",  # it found nothing better
    "failed",  # it could not be done
    "ask",  # a change is large: a person is asked
    "approved",
    "declined",
    "experiment",  # begins
    "won",
    "lost",
    "inconclusive",
    "stopped",
    "rollback",  # a release that turned bad was taken back
    "limit",  # something was called for, and today's limit is reached
]

APPROVAL: Final = "approval"
"""Name of the score records in which a person answers: 1 is yes."""
_NAME: Final = "kaizen.loop."

ENDS: Final = ("no gain", "failed", "ask", "experiment")
"""Steps that say what became of a proposal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a loop.

    Args:
        action: what was done.
        said: why, with numbers.
        trigger: what called for it.
        version: content address of the params version it is about.
        run_id: the optimizer's run it belongs to.
        usd: dollars: what a proposal may cost at most, then what it did; None where a price is not known.
        upto: Unix seconds of the news that it answers: what came before is not answered again.
        id: of its record.
        at: Unix seconds.
        own_run: id of the run that the step itself is.
    """

    action: Action
    said: str
    trigger: str = ""
    version: str = ""
    run_id: str = ""
    usd: float | None = 0.0
    upto: float = 0.0
    id: str = ""
    at: float = 0.0
    own_run: str = ""


class Turn:
    """The program whose calls are a loop's steps. It does nothing but wait for a person where the step is to ask one.

    Args:
        program: the name of the program that the loop is over.
    """

    def __init__(self, program: str) -> None:
        info: Any = pydantic.Field()
        fields = [Field("step", "input", dict[str, Any], info), Field("action", "output", str, info)]
        self.spec = Spec(f"{_NAME}{program}", "One step of the loop that watches a program.", fields)

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        """Done, unless it is a question."""
        step = inputs["step"]
        if step["action"] == "ask":
            raise Suspension(ctx.step, step["said"])
        return Answer.of({"action": step["action"]}, inputs=inputs)


Start: TypeAlias = Callable[[Scope, Turn, Mapping[str, Any]], Awaitable[Answer | Suspended]]


async def keep(start: Start, scope: Scope, program: str, step: Step) -> None:
    """Put a step on record.

    Args:
        start: begins a run, as the App does.
        scope: whose.
        program: the name of the program that the loop is over.
        step: what was done.
    """
    made = {name: value for name, value in asdict(step).items() if name not in ("id", "at", "own_run")}
    await start(scope, Turn(program), {"step": made})


async def steps_of(ledger: Ledger, scope: Scope, program: str, since: float = 0.0) -> Sequence[Step]:
    """The steps of a program's loop, oldest first.

    Args:
        ledger: where they lie.
        scope: whose.
        program: the program's name.
        since: Unix seconds; earlier ones are left out.
    """
    query = RecordQuery(kind="program", ref=f"{_NAME}{program}", root_only=True, after=id_at(since))
    found = [(one, await ledger.payload(scope, one.input_digest)) async for one in ledger.records(scope, query)]
    return [_read(record, data) for record, data in found if data is not None]


def waiting_of(steps: Sequence[Step]) -> Step | None:
    """The question that nobody's answer was followed to yet."""
    asked = [step for step in steps if step.action == "ask"]
    done = {step.run_id for step in steps if step.action in ("approved", "declined")}
    return asked[-1] if asked and asked[-1].run_id not in done else None


def untried(steps: Sequence[Step]) -> Step | None:
    """The change that was approved last, where nobody has begun its experiment yet."""
    asked = [step for step in steps if step.action == "ask"]
    approved = {step.run_id for step in steps if step.action == "approved"}
    done = {step.run_id for step in steps if step.action in ("experiment", "failed")}
    return asked[-1] if asked and asked[-1].run_id in approved - done else None


def unfinished(steps: Sequence[Step]) -> Step | None:
    """A proposal that was begun, and nobody knows what became of it."""
    begun = [step for step in steps if step.action == "propose"]
    done = {step.run_id for step in steps if step.action in ENDS}
    return begun[-1] if begun and begun[-1].run_id not in done else None


def _read(record: Record, data: bytes) -> Step:
    step = Step(**from_json(data)["step"])
    return replace(step, id=record.id, at=record.started_at, own_run=record.run_id)
