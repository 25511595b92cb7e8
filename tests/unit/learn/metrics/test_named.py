"""The metrics with a name: what they give for right, wrong, partly right and absent answers."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from kaizen import Signature, context
from kaizen.core.context import Program
from kaizen.core.errors import ConfigError
from kaizen.learn.metrics import Measure, metric
from kaizen.learn.metrics.compare import items, longest_common, same, words
from kaizen.learn.metrics.named import calibration_error
from tests.unit.programs.house import Open


class Label(Signature):
    """Label."""

    text: str = context.input("t")
    label: Literal["a", "b"] = context.output("l")


class Slots(Signature):
    """Find."""

    text: str = context.input("t")
    people: str | None = context.output("p")
    time: str | None = context.output("t")


class Reply(Signature):
    """Reply."""

    text: str = context.input("t")
    answer: str = context.output("a")


class Tags(Signature):
    """Tag."""

    text: str = context.input("t")
    tags: list[str] = context.output("t")
    detail: dict[str, Any] = context.output("d")


class Sure(Signature):
    """How sure."""

    text: str = context.input("t")
    label: str = context.output("l")
    confidence: float = context.output("c")


def score(name: str, spec: Any, expected: dict[str, Any], prediction: dict[str, Any] | None) -> float | None:
    found = metric(name, spec)
    assert isinstance(found, Measure)
    said = found.said({}, expected, prediction)
    return None if said is None else said.value


@pytest.mark.parametrize(
    ("wanted", "got", "alike"),
    [
        ("a", "a", True),
        (" Straße  x ", "straße X", True),
        ("a", "b", False),
        (None, "", True),
        (None, [], True),
        ("a", None, False),
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        (1, 2, False),
        (True, 1, False),
        (True, True, True),
        ([1, "A"], [1, "a"], True),
        ([1], [1, 2], False),
        ([1], "1", False),
        ("1", 1, False),
        ({"a": 1, "b": None}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, [1], False),
    ],
)
def test_values_that_mean_the_same(wanted: Any, got: Any, alike: bool) -> None:
    assert same(wanted, got) is alike
    assert same(got, wanted) is alike


def test_words_are_compared_without_articles_and_punctuation() -> None:
    assert words("The cat, a CAT!") == ["cat", "cat"]
    assert words("the") == ["the"]
    assert longest_common(["a", "b", "c"], ["b", "x", "c", "d"]) == 2
    assert items("x", {"a": [True, 1.0], "b": None, "c": {"d": "E"}}) == [
        ("x.a[]", True, "bool"),
        ("x.a[]", 1.0),
        ("x.c.d", "e"),
    ]


@pytest.mark.parametrize(
    ("name", "spec", "expected", "prediction", "value"),
    [
        ("accuracy", Label.spec, {"label": "a"}, {"label": "A "}, 1.0),
        ("accuracy", Label.spec, {"label": "a"}, {"label": "b"}, 0.0),
        ("accuracy", Label.spec, {"label": "a"}, None, 0.0),
        ("accuracy", Label.spec, {}, {"label": "a"}, None),
        ("exact", Label.spec, {"label": "a"}, {"label": "A"}, 0.0),
        ("exact", Label.spec, {"label": "a"}, {"label": "a"}, 1.0),
        ("accuracy", Slots.spec, {"people": "4", "time": None}, {"people": "4", "time": ""}, 1.0),
        ("accuracy", Slots.spec, {"people": "4", "time": None}, {"people": "4", "time": "7"}, 0.0),
        ("accuracy:people", Slots.spec, {"people": "4", "time": None}, {"people": "4", "time": "7"}, 1.0),
        ("accuracy", Slots.spec, {"people": "4"}, {"people": "4", "time": "7"}, 1.0),  # nobody labelled the time
        ("f1", Slots.spec, {"people": "4", "time": None}, {"people": "4", "time": "7"}, 2 / 3),
        ("f1", Slots.spec, {"people": None, "time": None}, {"people": None, "time": None}, 1.0),
        ("f1", Slots.spec, {"people": "4", "time": "7"}, None, 0.0),
        ("f1", Reply.spec, {"answer": "the red fox"}, {"answer": "a red dog"}, 0.5),
        ("f1", Reply.spec, {"answer": ""}, {"answer": None}, 1.0),
        ("f1", Tags.spec, {"tags": ["a", "b"]}, {"tags": ["b", "c", "c"]}, 2 / 5),
        ("f1", Tags.spec, {}, {"tags": []}, None),
        ("rouge", Reply.spec, {"answer": "one two three"}, {"answer": "one three"}, 0.8),
        ("rouge", Reply.spec, {"answer": "one"}, None, 0.0),
        ("rouge", Tags.spec, {"tags": ["a"]}, {"tags": ["a"]}, None),
        ("numeric", Reply.spec, {"answer": "1,000"}, {"answer": 1009}, 1.0),
        ("numeric:0.001", Reply.spec, {"answer": "1000"}, {"answer": "1009"}, 0.0),
        ("numeric", Reply.spec, {"answer": "7"}, {"answer": "about seven"}, 0.0),
        ("numeric", Reply.spec, {"answer": "seven"}, {"answer": "7"}, None),
        ("numeric", Reply.spec, {"answer": "7"}, None, 0.0),
        ("json_fields", Tags.spec, {"detail": {"a": 1, "b": {"c": 2}}}, {"detail": {"a": 1, "b": {"c": 3}}}, 0.5),
        ("json_fields", Tags.spec, {"detail": {"a": 1}}, {"detail": {"a": 1, "extra": 2}}, 0.5),
        ("json_fields", Tags.spec, {"detail": {"a": 1}}, None, 0.0),
        ("json_fields", Tags.spec, {}, {}, None),
        ("calibration", Sure.spec, {"label": "a"}, {"label": "a", "confidence": 0.9}, 0.99),
        ("calibration", Sure.spec, {"label": "a"}, {"label": "b", "confidence": 0.9}, 1 - 0.81),
        ("calibration", Sure.spec, {"label": "a"}, {"label": "b"}, None),
        ("calibration", Sure.spec, {"label": "a"}, None, 0.0),
        ("calibration", Sure.spec, {}, {"label": "b", "confidence": 0.9}, None),
    ],
)
def test_what_metrics_give(name: str, spec: Any, expected: Any, prediction: Any, value: float | None) -> None:
    found = score(name, spec, expected, prediction)
    assert found == (None if value is None else pytest.approx(value))


def test_a_metric_says_why() -> None:
    said = metric("accuracy", Slots.spec).of({}, {"people": "4", "time": "7"}, {"people": "5", "time": "7"})  # type: ignore[attr-defined]
    assert said.comment == "people: expected '4', got '5'"
    nothing = metric("accuracy", Slots.spec).of({}, {}, {})  # type: ignore[attr-defined]
    assert (nothing.value, nothing.coverage) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acuracy", "there is no metric 'acuracy'; did you mean accuracy?"),
        ("zzz", "there is no metric 'zzz'; metrics: accuracy"),
        ("accuracy:lable", "has no output 'lable'; it has label"),
        ("f1:lable", "has no output"),
        ("rouge:x", "has no output"),
        ("json_fields:x", "has no output"),
        ("similarity:x", "has no output"),
        ("numeric:much", "the tolerance is a share"),
        ("calibration", "name its own: calibration:FIELD"),
        ("latency:x", "takes nothing after it"),
        ("judge", "a judge names its model"),
        ("judge:gpt", "a judge names its model"),
    ],
)
def test_metrics_that_there_are_not(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        metric(name, Label.spec)
    assert said in str(error.value)


def test_calibration_error_is_the_distance_of_confidence_from_being_right() -> None:
    assert calibration_error([0.9] * 10, [1.0] * 9 + [0.0]) == pytest.approx(0.0)
    assert calibration_error([1.0] * 4, [0.0] * 4) == 1.0
    assert calibration_error([0.2] * 10 + [0.8] * 10, [0.0] * 10 + [1.0] * 10, bins=2) == pytest.approx(0.2)
    mixed = [0.1 * (place % 5) for place in range(13)]
    assert calibration_error(mixed, [0.0] * 13) == pytest.approx(sum(mixed) / 13)  # too few for two bins
    assert calibration_error([], []) == 0.0


async def test_a_metric_is_a_program_too(house: Open) -> None:
    here = house()
    found: Program = metric("accuracy", Label.spec)
    given = {"inputs": {"text": "x"}, "expected": {"label": "a"}, "prediction": {"label": "b"}}
    answer = await here.app.start(found, given)
    assert answer.outputs["score"] == 0.0  # type: ignore[union-attr]
    assert "expected 'a'" in answer.outputs["comment"]  # type: ignore[union-attr]
    assert repr(found) == "<metric accuracy>"


async def test_similarity_is_the_embedders_word(house: Open) -> None:
    here = house()
    near = metric("similarity", Reply.spec)

    async def of(wanted: Any, got: Any) -> float:
        given = {"inputs": {}, "expected": {"answer": wanted}, "prediction": {"answer": got}}
        return (await here.app.start(near, given)).outputs["score"]  # type: ignore[union-attr]

    assert await of("my card was stolen", "my card was stolen") == 1.0
    assert await of("my card was stolen", "someone took my card") > await of(
        "my card was stolen", "the weather is fine"
    )
    assert await of(3, "x") == 0.0
