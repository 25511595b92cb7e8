"""The cheapest model that holds the quality: each is scored on the same rows, the dearest only where it has to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kaizen.core.context import Context
from kaizen.core.errors import ConfigError
from kaizen.core.params import Params
from kaizen.learn.optimize.board import Board, Standing
from kaizen.learn.optimize.task import Candidate, Task

_FIRST: Final = 8
_HOLDS: Final = 0.02
_HOPELESS: Final = 0.35


class Models:
    """Chooses a model by cost at a quality that holds, not by quality.

    Each model first answers a few rows, which shows its cost a row. A model that is no cheaper than the one it should
    replace, or far worse on those rows, is not asked further; the others answer all rows, cheapest first, until one
    holds the quality.

    Args:
        holds: how far the mean score may fall.
        race: whether models are dropped after the first rows. Without, all are scored on all rows: the ablation.
    """

    name = "models"

    def __init__(self, *, holds: float = _HOLDS, race: bool = True) -> None:
        self._holds, self._race = holds, race

    def estimate(self, task: Task, each: float) -> int:
        """The first rows with each model, all rows with half of them."""
        rows = min(_FIRST, len(task.val)) + len(task.val) / 2
        return int(len(task.models) * rows * each)

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Find the cheapest, and choose it.

        Raises:
            ConfigError: no other models are named, or the price of the program's own is not known.
        """
        if not task.models:
            raise ConfigError("--optimizer models needs --models provider/model,provider/model: which to choose from")
        start = board.start
        await board.score(ctx, start)
        found = board.standing(start)
        if found is None:
            return
        if found.usd is None:
            raise ConfigError(
                'the price of the program\'s own model is not known: name it in [models."provider/model"]'
            )
        first = task.val[:_FIRST] if self._race else task.val
        tried: list[Standing] = []
        for ref in task.models:
            candidate = self._with_model(board, start, ref)
            if candidate.id == start.id or not board.affords(len(first)):
                continue
            await board.score(ctx, candidate, first)
            standing = board.standing(candidate, first)
            if standing is not None and standing.usd is not None:  # what has no price can't be called cheaper
                tried.append(standing)
        await self._settle(ctx, board, found, tried)

    def _with_model(self, board: Board, start: Candidate, ref: str) -> Candidate:
        made = start
        for name in board.parts:
            made = made.over(name, Params(model=ref), f"asks {ref}")
        return Candidate(made.params, made.how, (start.id,))

    async def _settle(self, ctx: Context, board: Board, found: Standing, tried: Sequence[Standing]) -> None:
        """All rows, from the cheapest up, until one holds."""
        rows = board.task.val
        for one in sorted(tried, key=lambda one: (one.cost, -one.score)):
            known = board.standing(found.candidate, [row for row in rows if row.key in board.known(one.candidate)])
            if one.cost >= found.cost or (self._race and known is not None and one.score < known.score - _HOPELESS):
                continue
            if not board.affords(len(rows) - one.rows):
                return
            await board.score(ctx, one.candidate)
            standing = board.standing(one.candidate)
            if standing is not None and standing.cost < found.cost and standing.score >= found.score - self._holds:
                board.chosen = one.candidate
                return
