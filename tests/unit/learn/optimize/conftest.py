"""A search in a run: a house whose model is the desk's, and a way to have a search do its work there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.answer import Answer
from kaizen.core.context import Context
from kaizen.core.ids import new_id
from kaizen.learn.budget import Purse
from kaizen.learn.data.rows import Row
from kaizen.learn.metrics.metric import metric
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.task import Task
from kaizen.learn.optimize.trial import Frozen
from tests.desk import Desk, by_request, rows
from tests.unit.programs.house import House, Open


class Bench:
    """A house and a task."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.told: list[Any] = []

    def task(self, **how: Any) -> Task:
        given = {"program": Desk, "train": rows(18), "val": rows(12, 100), "concurrency": 4} | how
        return Task(metric=metric("accuracy", given["program"].spec), **given)

    def board(self, task: Task | None = None, calls: float | None = 400) -> Board:
        return Board(task or self.task(), Purse(calls=calls), self.told.append)

    async def run(self, work: Callable[[Context], Awaitable[Any]], run_id: str | None = None) -> Any:
        """Do something inside a run; a run of the same id goes on where it was."""
        made: list[Any] = []

        async def inner(ctx: Context) -> dict[str, Any]:
            made.append(await work(ctx))
            return {}

        app = self.house.app
        run = await app.new_run(run_id)
        if run_id is not None:
            steps = await app.ledger.steps(app.scope, run_id, useless=True)
            run = replace(run, replay={step: one for step, one in steps.items() if step != "0"})
        answer = await app.start_run(run, Frozen(inner), {"what": "test"})
        assert isinstance(answer, Answer)
        return made[0]

    async def search(self, search: Any, board: Board, run_id: str | None = None) -> Board:
        """Open a board and have a search do its work."""

        async def work(ctx: Context) -> Board:
            await board.open(ctx.fork())
            await search.search(ctx.fork(), board.task, board)
            return board

        return await self.run(work, run_id)


@pytest.fixture
def bench(house: Open) -> Bench:
    return Bench(house(by_request))


@pytest.fixture
def run_id() -> str:
    return new_id()


@pytest.fixture
def few() -> tuple[Row, ...]:
    return rows(4, 100)
