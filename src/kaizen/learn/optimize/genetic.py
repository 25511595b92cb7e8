"""A population of instructions and demos that is bred for its scores.

A plain genetic algorithm (Holland, 1975) over prompts, with a model as the operator that mutates texts, as in
EvoPrompt (Guo et al., Connecting Large Language Models with Evolutionary Algorithms, arXiv 2309.08532).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from kaizen.core.context import Context
from kaizen.core.params import Demo, Params
from kaizen.learn.data.rows import Row
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.instructions import (
    ProposeInstruction,
    balanced,
    demos_met,
    described,
    example,
    usable,
    writer,
)
from kaizen.learn.optimize.task import Candidate, Part, Task

_CHILDREN: Final = 60
_FIRST: Final = 8
_TOURNAMENT: Final = 3
_SHOWN: Final = 8
_TIP: Final = "Change one thing of the current instruction: add a rule that the examples show and it lacks."


class Genetic:
    """See the module.

    Args:
        population: candidates alive at once.
        demos: in a candidate, at most.
        fit: whether parents and survivors are chosen by their scores. Without, they are drawn: the ablation.
    """

    name = "genetic"

    def __init__(self, *, population: int = 6, demos: int = 4, fit: bool = True) -> None:
        self._population, self._demos, self._fit = population, demos, fit

    def estimate(self, task: Task, each: float) -> int:
        """Two dozen children, half of whom ask for a text, half of whom get as far as being scored on all rows."""
        return int(4 * self._population * (0.5 + each * (min(_FIRST, len(task.val)) + len(task.val)) / 2))

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Breed, one child after another, until nothing is left."""
        rng = random.Random(f"genetic {task.seed}")  # noqa: S311 - choices, no secret
        await board.score(ctx, board.start)
        known = board.known(board.start, (*task.train, *task.val))
        found = {name: demos_met(board, part, task.train, known) for name, part in board.parts.items()}
        alive = [board.start]
        for number in range(_CHILDREN):
            if not board.affords(len(task.val) + 1):
                return
            child = await self._child(ctx, board, alive, found, (rng, number))
            if any(child.id == one.id for one in board.candidates):
                continue
            if await self._lives(ctx, board, child, alive):
                alive.append(child)
            if len(alive) > self._population:
                # the best lives on in any case; else the least fit dies, or, without fitness, one that is drawn
                weakest = min(alive, key=lambda one: _fitness(board, one))
                best = max(alive, key=lambda one: _fitness(board, one))
                others = [one for one in alive if one is not best]
                alive.remove(weakest if self._fit else rng.choice(others))

    async def _lives(self, ctx: Context, board: Board, child: Candidate, alive: Sequence[Candidate]) -> bool:
        """Score a child, on all rows where it does as well on the first as half of those alive."""
        if self._fit and len(alive) > 1:
            first = board.task.val[:_FIRST]
            await board.score(ctx, child, first)
            if _fitness(board, child, first) < median(_fitness(board, one, first) for one in alive):
                return False
        await board.score(ctx, child)
        return True

    async def _child(
        self,
        ctx: Context,
        board: Board,
        alive: Sequence[Candidate],
        found: Mapping[str, Sequence[Demo]],
        draw: tuple[random.Random, int],
    ) -> Candidate:
        """Two parents crossed, then one gene changed."""
        rng, number = draw
        first, second = (self._picked(board, alive, rng) for _ in range(2))
        params = dict(first.params)
        for name in board.parts:
            params[name] = self._crossed(first.params.get(name), second.params.get(name), rng)
        name = rng.choice(list(board.parts))
        part, now = board.parts[name], params[name]
        if not found[name] or rng.random() < 0.5:
            text = await self._mutated(ctx, board, part, now, (rng, number))
            changed = Params(instructions=text or now.instructions, demos=now.demos)
            what = "instruction rewritten"
        else:
            changed = Params(instructions=now.instructions, demos=self._swapped(now.demos, found[name], rng))
            what = "demos changed"
        kept = first.params.get(name)
        params[name] = changed if kept is None else changed.over(kept)
        said = {one: each for one, each in params.items() if each != Params()}
        return Candidate(said, f"{what}, of two crossed", (first.id, second.id))

    def _picked(self, board: Board, alive: Sequence[Candidate], rng: random.Random) -> Candidate:
        """The fittest of three drawn at random."""
        drawn = rng.choices(alive, k=_TOURNAMENT)
        return max(drawn, key=lambda one: _fitness(board, one)) if self._fit else drawn[0]

    def _crossed(self, first: Params | None, second: Params | None, rng: random.Random) -> Params:
        """The instruction of the first, or of the second where the first has none of its own; demos of both."""
        one, other = first or Params(), second or Params()
        instructions = one.instructions or other.instructions
        pool = list(dict.fromkeys(map(_Gene, (*one.demos, *other.demos))))
        count = min(len(pool), self._demos)
        demos = tuple(gene.demo for gene in rng.sample(pool, count))
        return Params(instructions=instructions, demos=demos).over(one)

    async def _mutated(
        self, ctx: Context, board: Board, part: Part, now: Params, draw: tuple[random.Random, int]
    ) -> str | None:
        rng, number = draw
        task = board.task
        rows: list[Row] = rng.sample(task.train, min(_SHOWN, len(task.train)))
        inputs: dict[str, Any] = {
            "program": described(part),
            "current": now.instructions or part.instructions,
            "examples": "\n\n".join(example(row) for row in rows),
            "tried": "none",
            "tip": _TIP,
        }
        asked = await board.ask(ctx, ProposeInstruction, writer(task, part, task.seed * 1000 + number), inputs)
        return None if asked is None else usable(asked["instruction"], part)

    def _swapped(self, demos: Sequence[Demo], found: Sequence[Demo], rng: random.Random) -> tuple[Demo, ...]:
        """Other demos: a whole set where there is none, else one of them replaced or added."""
        if not demos:
            return balanced(found, self._demos, rng)
        kept = list(demos)
        if len(kept) >= self._demos:
            del kept[rng.randrange(len(kept))]
        genes = {_Gene(demo) for demo in kept}
        fresh = [demo for demo in found if _Gene(demo) not in genes]
        return (*kept, rng.choice(fresh)) if fresh else tuple(kept)


class _Gene:
    """A demo that can be compared: demos hold mappings, which have no hash."""

    __slots__ = ("_key", "demo")

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self._key = repr((sorted(demo.inputs.items()), sorted(demo.outputs.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Gene) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _fitness(board: Board, candidate: Candidate, rows: Sequence[Row] | None = None) -> float:
    standing = board.standing(candidate, rows)
    return 0.0 if standing is None else standing.score
