"""The optimizers by name, and the one that chains them: what to try is picked by the model, the budget and the rows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Final, cast

from kaizen.core.context import Context
from kaizen.core.errors import ConfigError
from kaizen.learn.budget import Spent
from kaizen.learn.optimize.board import Board, Search
from kaizen.learn.optimize.task import Task
from kaizen.learn.ranking import shares, task_kind

# Name -> where it is: each is loaded when it is asked for.
SEARCHES: Final[Mapping[str, str]] = {
    "compose": "compose:Compose",
    "ranked": "compose:Ranked",
    "demonstrations": "demonstrations:Demonstrations",
    "decoding": "decoding:Decoding",
    "instructions": "instructions:Instructions",
    "reflective": "reflective:Reflective",
    "genetic": "genetic:Genetic",
    "models": "models:Models",
}

_SIZE: Final = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
_SMALL: Final = 4e9
_LEAST_ROWS: Final = 2


def search_named(name: str) -> Search:
    """An optimizer by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    where = SEARCHES.get(name)
    if where is None:
        near = difflib.get_close_matches(name, SEARCHES, n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"there is no optimizer {name!r}{advice}; optimizers: {', '.join(SEARCHES)}")
    module, _, attribute = where.partition(":")
    made = cast("Callable[[], Search]", getattr(import_module(f"kaizen.learn.optimize.{module}"), attribute))
    return made()


def is_strong(ref: str, *, embedded: bool) -> bool:
    """Whether a model can likely follow long instructions and reflect: by where it runs and the size in its name."""
    found = _SIZE.search(ref.partition("/")[2])
    if found is None:
        return not embedded
    return float(found[1]) * (1e9 if found[2].lower() == "b" else 1e6) >= _SMALL


class Compose:
    """One optimizer after another, each from the best so far, each with a share of what is left.

    A small model can neither write proposals nor reflect: it gets decoding, then demonstrations, and proposals only of
    a teacher. A strong one gets a few demonstrations, then instructions and reflection.
    """

    name = "compose"

    def stages(self, task: Task) -> list[tuple[str, float]]:
        """Names of optimizers and the share of what is then left that each may use."""
        strong = task.strong is not False
        proposes = strong or task.teacher is not None
        stages: list[tuple[str, float]] = []
        if not strong:
            stages += [("decoding", 0.5 if proposes else 0.75), ("demonstrations", 0.6 if proposes else 1.0)]
        else:
            stages.append(("demonstrations", 0.25))
        if proposes and find_spec("optuna") is not None:
            stages.append(("instructions", 0.5))
        if proposes:
            stages.append(("reflective", 1.0))
        return stages

    def estimate(self, task: Task, each: float) -> int:
        """What its stages would make together."""
        return sum(search_named(name).estimate(task, each) for name, _ in self.stages(task))

    def chosen(self, task: Task, base: float) -> list[tuple[str, float]]:
        """The stages for a task whose base has this mean score."""
        return self.stages(task)

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """All stages, as long as there is something left."""
        base = board.standing(board.base)
        stages = self.chosen(task, 0.0 if base is None else base.score)
        branches = [ctx.fork() for _ in stages]
        for (name, share), branch in zip(stages, branches, strict=True):
            if not board.affords(_LEAST_ROWS * len(task.val)):
                return
            board.stage = name
            board.tell(f"next: {name}")
            try:
                with board.share(board.left * share):
                    await search_named(name).search(branch, task, board)
            except Spent:
                if not board.affords(_LEAST_ROWS * len(task.val)):
                    raise  # not only its share is spent
            board.start = board.best


class Ranked(Compose):
    """``compose`` with the order and the shares of its stages learned from the registry's past candidates.

    Not the default: where the two were compared (``benchmarks/learn/ranking.py``), it did no better.
    """

    name = "ranked"

    def chosen(self, task: Task, base: float) -> list[tuple[str, float]]:
        """The stages as past runs speak for them, where they say anything."""
        stages = self.stages(task)
        parted = shares([name for name, _ in stages], task.ranking, task_kind(task.program.spec), base)
        if parted is None:
            return stages
        left, made = 1.0, list[tuple[str, float]]()
        for name, share in parted.items():
            made.append((name, min(1.0, share / left)))
            left = max(1e-9, left - share)
        return made
