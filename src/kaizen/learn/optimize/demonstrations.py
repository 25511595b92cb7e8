"""Which examples a program shows its model: drawn, bootstrapped from its own right answers, or the nearest ones.

Examples are balanced by label, and taken from the labelled rows where the model fails: bootstrapping alone keeps what
a small model gets right already, which is one label (the idea is DSPy's, Khattab et al. 2023,
https://arxiv.org/abs/2310.03714; the balance is what it lacks). No examples at all stays a candidate: the base.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from kaizen.core.context import Context
from kaizen.core.params import NOTHING, Demo, Params
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.decoding import NEAREST, likeness, within
from kaizen.learn.optimize.instructions import balanced, demos_met
from kaizen.learn.optimize.task import Candidate, Task
from kaizen.learn.optimize.weighing import demo_for

_FEW: Final = 4
_MANY: Final = 8
_DRAWS: Final = 4
_PLAIN_CHARS: Final = 7000
_STARTS: Final = 2


class Demonstrations:
    """Tries sets of examples, the likeliest to help first, as long as there are calls.

    Args:
        nearest: whether the nearest rows at run time are tried.
        plain: whether a plain text is tried, which small models do better with than with a conversation.
        draws: how many random sets.
    """

    name = "demonstrations"

    def __init__(self, *, nearest: bool = True, plain: bool = True, draws: int = _DRAWS) -> None:
        self._nearest, self._plain, self._draws = nearest, plain, draws

    def estimate(self, task: Task, each: float) -> int:
        """A pass over the rows to choose by for each set."""
        ways = self._draws + 2 * self._nearest + self._plain
        return int(ways * len(task.val) * each)

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Try them; a way whose first rows all fail, or that is worse than the best beyond doubt, is not gone on with.

        Values that are weighed already have their examples: the weights were fitted with them. Answers that the model
        writes are tried beside that, from the base on, without random sets.
        """
        weighs = _weighs(task, board.start)
        if weighs:
            if _weighs(task, board.base):
                return
            board.start = board.base
        near = self._nearest and await likeness(ctx)
        places = [ctx.fork() for _ in range(2)]
        known = await self._known(places[0], task, board)
        branch = places[1]
        best = board.best
        for candidate in self._candidates(task, board, known, near=near, draws=0 if weighs else self._draws):
            if not board.affords(len(task.val)):
                return
            first = await board.score(branch, candidate, task.val[:_STARTS])
            if any(one.error is None for one in first):
                await board.race(branch, candidate, best, task.val)

    async def _known(self, ctx: Context, task: Task, board: Board) -> Board:
        """How the base answers rows to learn from, where programs below it have to be shown what they answered."""
        below = [name for name in board.parts if name != task.name]
        count = min(len(task.train), 2 * _MANY)
        if below and board.affords(2 * len(task.val) + count):
            rows = random.Random(f"demonstrations {task.seed}").sample(task.train, count)  # noqa: S311 - a choice
            await board.score(ctx, board.base, rows)
        return board

    def _candidates(self, task: Task, board: Board, known: Board, *, near: bool, draws: int) -> Iterator[Candidate]:
        rng = random.Random(f"demonstrations {task.seed}")  # noqa: S311 - choices, no secret
        small = task.strong is False
        own = list(self._own(task, board, near=near)) if task.name in board.parts else []
        yield from (one for one, plain in own if small and plain)
        yield from (one for one, plain in own if not plain)
        outcomes = known.known(board.base, (*task.train, *task.val))
        pools = {name: demos_met(board, part, task.train, outcomes) for name, part in board.parts.items()}
        for number in range(draws):
            count = _FEW if number % 2 == 0 else _MANY
            sets = {name: balanced(found, count, rng) for name, found in pools.items() if found}
            if sets:
                yield _with(board, {name: Params(demos=demos) for name, demos in sets.items()}, f"{count} examples")

    def _own(self, task: Task, board: Board, *, near: bool) -> Iterator[tuple[Candidate, bool]]:
        """Ways to show the labelled rows themselves, and whether each is in a plain text."""
        part = board.parts[task.name]
        every = tuple(demo_for(row, part) for row in (*task.train, *task.val))
        plain = self._plain and not part.way and set(part.spec.written) == set(part.spec.outputs)
        if near and every:
            some = min(NEAREST, len(every))
            if plain:
                params = Params(demos=every, nearest=some, layout="plain", temperature=0.0)
                yield _with(board, {task.name: params}, f"the {some} nearest examples in a plain text"), True
            few = min(_FEW, len(every))
            yield _with(board, {task.name: Params(demos=every, nearest=few)}, f"the {few} nearest examples"), False
        if plain and task.train:
            rng = random.Random(f"plain {task.seed}")  # noqa: S311 - an order
            fixed = within(_drawn(task, board, rng), _PLAIN_CHARS)
            params = Params(demos=fixed, layout="plain", temperature=0.0)
            yield _with(board, {task.name: params}, f"{len(fixed)} examples in a plain text"), True


def _weighs(task: Task, candidate: Candidate) -> bool:
    return bool(candidate.params.get(task.name, NOTHING).scored)


def _drawn(task: Task, board: Board, rng: random.Random) -> tuple[Demo, ...]:
    part = board.parts[task.name]
    return balanced([demo_for(row, part) for row in task.train], len(task.train), rng)


def _with(board: Board, changed: dict[str, Params], how: str) -> Candidate:
    """The start with other examples: those that it showed are gone, with how they were chosen."""
    made = dict(board.start.params)
    for name, params in changed.items():
        made[name] = params.over(replace(made.get(name, NOTHING), demos=(), nearest=None))
    return Candidate(made, how, (board.start.id,))
