"""Tasks."""

from __future__ import annotations

from kaizen.learn.metrics.metric import metric
from kaizen.learn.optimize.task import Task
from tests.desk import Desk, rows

ROWS = rows(60)


def task(train: int, val: int) -> Task:
    return Task(program=Desk, train=ROWS[:train], val=ROWS[train : train + val], metric=metric("exact", Desk.spec))


def test_a_small_budget_chooses_by_fewer_rows_and_learns_from_the_others() -> None:
    whole = task(10, 50)
    narrow = whole.within(120)
    assert len(narrow.val) == 20
    assert all(row in whole.val for row in narrow.val)
    assert sorted(row.key for row in (*narrow.train, *narrow.val)) == sorted(row.key for row in ROWS)
    assert whole.within(120).val == narrow.val


def test_a_dozen_rows_stay_however_small_the_budget_is() -> None:
    assert len(task(10, 50).within(10).val) == 12
    assert len(task(10, 8).within(10).val) == 8


def test_a_large_budget_and_none_leave_the_rows_as_they_are() -> None:
    whole = task(10, 50)
    assert whole.within(500) is whole
    assert whole.within(None) is whole
