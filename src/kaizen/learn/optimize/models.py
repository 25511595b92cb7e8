"""The cheapest model that holds the quality: each is scored on the same rows, the dearest only where it has to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kaizen.core.context import Context
from kaizen.core.errors import ConfigError
from kaizen.core.params import Params
from kaizen.learn.data.rows import Row
from kaizen.learn.figures import costs, holds
from kaizen.learn.optimize.board import Board, Standing
from kaizen.learn.optimize.task import Candidate, Task

_SOUND: Final = 2


class Models:
    """Chooses a model by cost at a quality that holds, not by quality.

    Each model first answers two rows, which shows what a row costs. One that is no cheaper there than the one that it
    should replace is not asked further; the others answer all rows, those to learn from as well since nothing is
    learned, from the cheapest up, until one holds the quality as ``kaizen.learn.figures.holds`` has it. One that is
    worse beyond doubt does not answer the rest.

    Args:
        race: whether models are dropped before they have answered all rows. Without, each answers all: the ablation.
    """

    name = "models"

    def __init__(self, *, race: bool = True) -> None:
        self._race = race

    def estimate(self, task: Task, each: float) -> int:
        """The first rows with each model, all rows with the program's own and half of the others."""
        rows = len(task.val) + len(task.train)
        return int((rows + len(task.models) * (min(_SOUND, rows) + rows / 2)) * each)

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Find the cheapest, and choose it.

        Raises:
            ConfigError: no other models are named, or the price of the program's own is not known.
        """
        if not task.models:
            raise ConfigError("--optimizer models needs --models provider/model,provider/model: which to choose from")
        start = board.start
        rows = (*task.val, *task.train)
        # half of the calls are for the others
        await board.score(ctx, start, rows[: int(min(len(rows), board.left / board.each / 2))])
        found = board.standing(start)
        if found is None:
            return
        if found.usd is None:
            raise ConfigError(
                'the price of the program\'s own model is not known: name it in [models."provider/model"]'
            )
        rows = [row for row in rows if row.key in board.known(start, rows)]
        first = rows[:_SOUND] if self._race else rows
        cheaper: list[Standing] = []
        for ref in task.models:
            if all(part.params.model == ref for part in board.parts.values()) or not board.affords(len(first)):
                continue  # what runs already, or what can't be paid
            candidate = self._with_model(board, start, ref)
            await board.score(ctx, candidate, first)
            standing, own = board.standing(candidate, first), board.standing(start, first)
            # what has no price can't be called cheaper
            if standing is not None and own is not None and standing.usd is not None and standing.cost < own.cost:
                cheaper.append(standing)
        for one in sorted(cheaper, key=lambda one: (one.cost, -one.score)):
            if await self._holds(ctx, board, one.candidate, rows):
                board.chosen = one.candidate
                return

    def _with_model(self, board: Board, start: Candidate, ref: str) -> Candidate:
        made = start
        for name in board.parts:
            made = made.over(name, Params(model=ref), f"asks {ref}")
        return Candidate(made.params, made.how, (start.id,))

    async def _holds(self, ctx: Context, board: Board, candidate: Candidate, rows: Sequence[Row]) -> bool:
        """Whether it is cheaper and holds the quality, on as many rows as there are calls for."""
        if self._race:
            await board.race(ctx, candidate, board.start, rows)
        figures = board.compared(board.start, candidate, rows)
        before, after = costs(figures)
        return after < before and holds(figures)
