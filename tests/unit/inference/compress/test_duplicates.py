from __future__ import annotations

import pytest

from kaizen.inference.compress.duplicates import repeated

ONE = "The council of the old town met on Tuesday to vote about the new bridge over the river."


@pytest.mark.parametrize(
    ("other", "alike", "again"),
    [
        (ONE, 1.0, True),
        (ONE.replace("the ", "the  "), 1.0, True),
        (ONE.replace("new bridge", "wide bridge"), 1.0, False),
        (ONE.replace("vote about", "vote on"), 0.8, True),
        (ONE.replace("the new", "3 new"), 0.5, False),
        (ONE.replace("met", "never met"), 0.5, False),
        (ONE.replace("Tuesday", "Monday"), 0.5, False),
        (ONE.replace("old town", '"old" town'), 0.5, False),
        ("Something else was said about the harbour and its boats this year.", 0.5, False),
    ],
)
def test_only_what_says_the_same_repeats(other: str, alike: float, again: bool) -> None:
    assert repeated([ONE, other], alike=alike) == ([1] if again else [])


def test_short_texts_repeat_nothing() -> None:
    assert repeated(["Yes.", "Yes.", "It is so.", "It is so."], alike=0.5) == []


def test_the_first_of_many_stays() -> None:
    assert repeated([ONE, ONE, "Another thing was said by the very same people there.", ONE], alike=1.0) == [1, 3]
