"""Instructions edited by a model that reads what went wrong, from a set of candidates each best at something.

The idea is GEPA's (Agrawal et al., GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning, arXiv
2507.19457): parents are drawn from the Pareto set by instance, an edit is tried on the few rows it was made from before
it is scored on all, and candidates that improved different programs are merged.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kaizen.core.context import Context
from kaizen.core.params import Params
from kaizen.learn.data.rows import Row
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.instructions import described, shown, usable, writer
from kaizen.learn.optimize.task import Candidate, Outcome, Part, Task
from kaizen.programs.declare import input as input_field
from kaizen.programs.declare import output as output_field
from kaizen.programs.signature import Signature

_ROUNDS: Final = 40
_BATCH: Final = 6
_MERGE_EVERY: Final = 3
_IDLE: Final = 8


class ReviseInstruction(Signature):
    """Revise the instruction of a program that a language model carries out, from what went wrong with it.

    Read each case: what came in, what the program answered, what is wrong with it. Find out what the instruction should
    have said, and write it anew: keep what works, add the rules and facts that it lacked. It has to stand by itself and
    hold for new inputs as well. Write only the instruction.
    """

    program: str = input_field("the program: its inputs and outputs")
    instruction: str = input_field("the instruction it has now")
    cases: str = input_field("what it did with this instruction, and what is wrong with it")
    revised: str = output_field("the new instruction")


class Reflective:
    """See the module.

    Args:
        batch: rows that an edit is made from and first tried on.
        informed: whether whoever revises sees the cases. Without, it is the ablation.
        by_instance: whether parents are drawn from the Pareto set by instance; else the best is always the parent.
    """

    name = "reflective"

    def __init__(self, *, batch: int = _BATCH, informed: bool = True, by_instance: bool = True) -> None:
        self._batch, self._informed, self._by_instance = batch, informed, by_instance

    def estimate(self, task: Task, each: float) -> int:
        """A dozen edits, half of which get as far as being scored on all rows."""
        return int(12 * (1 + each * (2 * self._batch + len(task.val) / 2)))

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Revise and keep what helps, until nothing is left or nothing has helped for a while."""
        rng = random.Random(f"reflective {task.seed}")  # noqa: S311 - choices, no secret
        batches = _batches(task.train, self._batch, rng)
        await board.score(ctx, board.start)
        pool = [board.start]
        names = list(board.parts)
        idle = accepted = 0
        for number in range(_ROUNDS):
            rows = next(batches)
            if idle >= _IDLE or not board.affords(2 * len(rows) + 1):
                return
            parent = self._parent(board, pool, rng)
            child = await self._revised(ctx, board, parent, names[number % len(names)], rows, number)
            if child is None or not await self._better(ctx, board, parent, child, rows):
                idle += 1
                continue
            idle, accepted = 0, accepted + 1
            if not board.affords(len(task.val)):
                return
            await board.score(ctx, child)
            pool.append(child)
            if accepted % _MERGE_EVERY == 0 and (merged := _merged(board, pool)) is not None:
                if not board.affords(len(task.val)):
                    return
                await board.score(ctx, merged)
                pool.append(merged)

    def _parent(self, board: Board, pool: Sequence[Candidate], rng: random.Random) -> Candidate:
        """One of those that no other beats on every row, the likelier the more rows it is best on."""
        if not self._by_instance:
            return max(pool, key=lambda one: _mean(board.known(one)))
        known = {one.id: board.known(one) for one in pool}
        best: dict[str, float] = {}
        for some in known.values():
            for key, outcome in some.items():
                best[key] = max(best.get(key, outcome.score), outcome.score)
        weights = [
            sum(outcome.score >= best[key] - 1e-9 and best[key] > 0 for key, outcome in known[one.id].items())
            for one in pool
        ]
        return rng.choices(pool, weights if any(weights) else None)[0]

    async def _revised(
        self, ctx: Context, board: Board, parent: Candidate, name: str, rows: Sequence[Row], number: int
    ) -> Candidate | None:
        part = board.parts[name]
        outcomes = await board.score(ctx, parent, rows)
        if all(one.score >= 1.0 for one in outcomes):
            return None
        now = (parent.params.get(name) or part.params).instructions or part.instructions
        cases = [
            _case(part, row, outcome)
            for row, outcome in sorted(zip(rows, outcomes, strict=True), key=lambda pair: pair[1].score)
        ]
        inputs: dict[str, Any] = {
            "program": described(part),
            "instruction": now,
            "cases": "\n\n".join(cases) if self._informed else "not known",
        }
        asked = await board.ask(
            ctx, ReviseInstruction, writer(board.task, part, board.task.seed * 1000 + number), inputs
        )
        text = None if asked is None else usable(asked["revised"], part)
        if text is None or text == now:
            return None
        return parent.over(name, Params(instructions=text), f"{name.rsplit('.', 1)[-1]}'s instruction revised")

    async def _better(
        self, ctx: Context, board: Board, parent: Candidate, child: Candidate, rows: Sequence[Row]
    ) -> bool:
        """Whether it did better on the rows it was made from."""
        before = sum(one.score for one in await board.score(ctx, parent, rows))
        return sum(one.score for one in await board.score(ctx, child, rows)) > before + 1e-9


def _batches(rows: Sequence[Row], size: int, rng: random.Random) -> Iterator[list[Row]]:
    """Rows in small lots, all of them before any comes again."""
    while True:
        drawn = rng.sample(list(rows), len(rows))
        for at in range(0, len(drawn), size):
            yield drawn[at : at + size]


def _mean(known: Mapping[str, Outcome]) -> float:
    return sum(one.score for one in known.values()) / len(known) if known else 0.0


def _case(part: Part, row: Row, outcome: Outcome) -> str:
    """What a program did for a row: its own call where that is known, the whole program's answer, and the verdict."""
    steps = [one for one in outcome.steps if one.name == part.name]
    lines = [f"inputs: {shown(steps[0].inputs if steps else row.inputs)}"]
    if steps:
        lines.append(f"it wrote: {shown(steps[0].outputs)}")
    answered = "nothing usable" if outcome.prediction is None else shown(outcome.prediction)
    lines.append(f"the answer was: {answered}")
    lines.append(f"right outputs: {shown(row.outputs)}")
    lines.append(
        "this is right" if outcome.score >= 1.0 else f"what is wrong: {outcome.comment or 'the outputs differ'}"
    )
    return "\n".join(lines)


def _merged(board: Board, pool: Sequence[Candidate]) -> Candidate | None:
    """The two best that changed different programs, together; None where there are none."""
    ranked = sorted(pool, key=lambda one: -_mean(board.known(one)))
    start = board.start
    for at, first in enumerate(ranked):
        for second in ranked[at + 1 :]:
            changed = {name for name, params in second.params.items() if params != start.params.get(name)}
            kept = {name for name, params in first.params.items() if params != start.params.get(name)}
            if not (changed - kept and kept - changed):
                continue
            params = {**first.params, **{name: second.params[name] for name in sorted(changed - kept)}}
            made = Candidate(params, "two that improved different programs, merged", (first.id, second.id))
            if all(made.id != one.id for one in board.candidates):
                return made
    return None
