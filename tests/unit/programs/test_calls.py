"""What is known of a call that did not end well."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kaizen.core.errors import BudgetExceeded, KaizenError, Timeout, Unavailable
from kaizen.programs.calls import maybe_billed


def told(error: KaizenError, detail: dict[str, Any]) -> KaizenError:
    error.detail = {**error.detail, **detail}
    return error


@pytest.mark.parametrize(
    ("error", "begun", "billed"),
    [
        (None, False, False),
        (Unavailable("down"), False, False),
        (Unavailable("down"), True, True),
        (Timeout("late"), False, True),
        (asyncio.CancelledError(), False, True),
        (told(Unavailable("down"), {"billed": True, "attempts": 0}), False, True),
        (told(Timeout("late"), {"attempts": 0}), True, False),
        (told(Timeout("late"), {"billed": False}), True, False),
        (told(BudgetExceeded("over"), {"billed": False}), True, False),
        (BudgetExceeded("over"), True, True),
    ],
)
def test_what_a_layer_says_of_the_bill_goes_before_what_the_error_looks_like(
    error: BaseException | None, begun: bool, billed: bool
) -> None:
    assert maybe_billed(error, begun=begun) is billed
