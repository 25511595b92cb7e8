"""Conditions: what they mean, and what is said of those that can't be read."""

from __future__ import annotations

from typing import Any

import pytest

from kaizen.core.errors import ConfigError
from kaizen.learn.data.where import Where

VALUES: dict[str, Any] = {
    "score": 0.8,
    "score.accuracy": 1.0,
    "corrected": False,
    "input": {"text": "Stolen CARD", "lang": "en", "tags": ["a", "b"], "n": 3},
    "model": None,
}


@pytest.mark.parametrize(
    "text",
    [
        "score >= 0.8",
        "score > 0.79 and score < 1",
        "score = 0.8 or nothing = 1",
        "score == 8e-1",
        "score.accuracy == 1",
        "not corrected",
        "corrected = false",
        "corrected != true",
        'input.lang = "en"',
        "input.lang in ('de', 'en')",
        "input.lang not in ('de')",
        "input.text contains 'card'",
        "input.tags contains 'b'",
        "input.lang > 'de'",
        "model is null",
        "input.lang is not null",
        "absent.name is null",
        "input.lang.deeper is null",
        "(score < 0.5 or score > 0.7) and not (corrected or input.n <= 2)",
        "score",
        r"input.text != 'it\'s'",
        "model != 'x'",
        "input.n = 3",
    ],
)
def test_conditions_that_hold(text: str) -> None:
    assert Where(text)(VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "score < 0.8",
        "corrected",
        "model = 'x'",
        "model > 1",
        "score > 'a'",
        "input.lang = 1",
        "input.n contains 3",
        "input.text contains 3",
        "corrected = 0",
        "input.lang not in ('en')",
        "absent",
        "score > 0.9 or score < 0.1 and not corrected",
    ],
)
def test_conditions_that_do_not_hold(text: str) -> None:
    assert not Where(text)(VALUES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("score >=", "a number, a quoted text, true, false or null should stand where the end is"),
        ("score >= high", "should stand where 'high' at 10 is"),
        ("score 0.8", "'and' or 'or' should stand where '0.8' at 7 is"),
        ("(score > 1", "')' should stand where the end is"),
        ("= 3", "a name should stand where '=' at 1 is"),
        ("score; drop", "';' at 6 is not understood"),
        ("__import__('os')", "'and' or 'or' should stand where '(' at 11 is"),
        ("model is 3", "'null' should stand where '3' at 10 is"),
        ("score not 3", "'in' should stand where '3'"),
        ("true = 1", "a name should stand where 'true' at 1 is"),
        ("(" * 60 + "score" + ")" * 60, "nested deeper"),
    ],
)
def test_conditions_that_can_not_be_read(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Where(text)
    assert said in str(error.value)


def test_a_condition_knows_its_names() -> None:
    assert Where("score > 1 and input.lang = 'x'").names == {"score", "input.lang"}
