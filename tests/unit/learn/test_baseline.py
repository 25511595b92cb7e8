"""The arm without a language model: it learns from rows alone, and asks nobody."""

from __future__ import annotations

import random
from typing import Any, Literal

import pytest

from kaizen import Signature, context
from kaizen.core.context import Context
from kaizen.core.errors import ConfigError, InvalidInput
from kaizen.learn import baseline
from kaizen.learn.baseline import WithoutModel
from kaizen.learn.data.rows import Row
from kaizen.learn.evaluate.evaluate import evaluate
from kaizen.learn.metrics import metric
from kaizen.programs.prompt.spans import SpanFinder, is_span
from tests.unit.programs.house import Open

TEAMS = {
    "cards": ("my card was stolen", "the machine kept my card", "my credit card is blocked", "a new card please"),
    "transfers": ("send money abroad", "my transfer is late", "the payment did not arrive", "transfer to my sister"),
    "accounts": ("open an account", "close my account", "change my address", "who owns this account"),
}


class Triage(Signature):
    """Name the team."""

    message: str = context.input("m")
    team: Literal["cards", "transfers", "accounts"] = context.output("t")


class Booking(Signature):
    """Find what was asked for."""

    text: str = context.input("t")
    people: str | None = context.output("p")
    day: str = context.output("d")


class Nested(Signature):
    """Find what was asked for."""

    text: str = context.input("t")
    slots: dict[str, str] = context.output("s")


class Free(Signature):
    """Answer."""

    text: str = context.input("t")
    more: int = context.input("m", default=1)
    answer: str = context.output("a")
    kind: str = context.output("k")


def triage(n: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    made: list[Row] = []
    for place in range(n):
        team = list(TEAMS)[place % 3]
        words = (
            f"{rng.choice(('please', 'hello', 'sorry'))} {rng.choice(TEAMS[team])} {rng.choice(('now', 'today', ''))}"
        )
        made.append(Row({"message": words}, {"team": team}))
    return made


def bookings(n: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    made: list[Row] = []
    for _ in range(n):
        people, day = str(rng.randrange(2, 12)), rng.choice(("Monday", "Friday", "Sunday"))
        text, found = rng.choice(
            (
                (f"a table for {people} people on {day}", people),
                (f"can we come on {day}, we are {people}", people),
                (f"are you open on {day}?", None),
            )
        )
        made.append(Row({"text": text}, {"people": found, "day": day}))
    return made


async def scored(here: Any, program: WithoutModel, rows: list[Row], spec: Any, name: str = "accuracy") -> Any:
    return await evaluate(Context(await here.app.new_run()), program, rows, metric(name, spec))


async def test_labels_are_learned_and_no_model_is_asked(house: Open) -> None:
    here = house()
    arm = WithoutModel(Triage.spec, triage(45, 0))
    found = await scored(here, arm, triage(60, 1), Triage.spec)
    assert found.score > 0.9
    assert (here.calls, found.calls, found.cost_usd) == (0, 0, 0.0)
    assert found.program == f"{Triage.spec.name}:without_model"
    label = arm.arms["team"]
    assert label.kind == "label"
    assert label.right[label.how] == max(label.right.values()) > label.right["majority"]
    again = WithoutModel(Triage.spec, triage(45, 0))
    assert (await scored(here, again, triage(60, 1), Triage.spec)).score == found.score


async def test_values_are_found_in_the_text(house: Open) -> None:
    here = house()
    arm = WithoutModel(Booking.spec, bookings(40, 0))
    assert arm.arms == {}
    found = await scored(here, arm, bookings(60, 1), Booking.spec)
    assert {name: one.kind for name, one in arm.arms.items()} == {"people": "span", "day": "span"}
    assert found.score > 0.9
    nested = [Row(row.inputs, {"slots": {k: v for k, v in row.outputs.items() if v}}) for row in bookings(40, 0)]
    inner = WithoutModel(Nested.spec, nested)
    answer = await here.app.start(inner, {"text": "a table for 9 people on Friday"})
    assert answer.outputs["slots"] == {"people": "9", "day": "Friday"}  # type: ignore[union-attr]
    assert set(inner.arms) == {"slots.people", "slots.day"}


async def test_other_values_are_those_of_the_nearest_row(house: Open) -> None:
    here = house()
    rows = [
        Row({"text": "how do I open an account", "more": 2}, {"answer": "go to the branch", "kind": "help"}),
        Row({"text": "what is the weather", "more": 2}, {"answer": "sunny", "kind": "help"}),
        Row({"text": "who are you", "more": 1}, {"answer": "a bank", "kind": "help"}),
        Row({"text": "bye", "more": 1}, {"answer": "see you", "kind": "end"}),
    ]
    arm = WithoutModel(Free.spec, rows)
    answer = await here.app.start(arm, {"text": "how can I open my account", "more": 2})
    assert answer.outputs["answer"] == "go to the branch"  # type: ignore[union-attr]
    assert {name: (one.kind, one.how) for name, one in arm.arms.items()}["answer"] == ("copy", "nearest row")
    assert arm.arms["kind"].kind == "label"


async def test_fields_that_are_always_empty_stay_empty(house: Open) -> None:
    here = house()
    rows = [Row({"text": f"hello {place}"}, {"slots": {}}) for place in range(6)]
    answer = await here.app.start(WithoutModel(Nested.spec, rows), {"text": "x"})
    assert answer.outputs["slots"] == {}  # type: ignore[union-attr]
    alike = [Row({"message": f"m {place}"}, {"team": "cards"}) for place in range(6)]
    arm = WithoutModel(Triage.spec, alike)
    assert (await here.app.start(arm, {"message": "x"})).outputs["team"] == "cards"  # type: ignore[union-attr]
    assert arm.arms["team"].how == "majority"


def test_it_needs_rows_and_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="needs rows"):
        WithoutModel(Triage.spec, [])
    monkeypatch.setattr(baseline, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"kaizen-engine\[semantic\]"):
        baseline._points(b"", 1)


def test_spans_are_words_of_the_text_or_nothing() -> None:
    rows = bookings(40, 3)
    finder = SpanFinder([row.inputs["text"] for row in rows], [row.outputs["people"] for row in rows])
    assert finder.find("a table for 11 people on Monday") == "11"
    assert finder.find("are you open on Monday?") is None
    assert is_span("Hello There", "there")
    assert is_span("x", None)
    assert not is_span("x", "y")
    # what does not end where words end can't be learned, and spoils nothing
    odd = SpanFinder(["order12 now", "order13 now"], ["rder1", None])
    assert odd.find("order14 now") in (None, "order", "14", "now", "order14")
    mixed = SpanFinder(["call _ME_ at NOON !"], ["NOON"])
    assert mixed.find("call _ME_ at NOON !") == "NOON"


def test_many_rows_are_folded_fewer_times() -> None:
    np = pytest.importorskip("numpy")
    from kaizen.learn.classify import choose

    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 8)).astype("float32")
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels = ["up" if point[0] > 0 else "down" for point in points]
    found = choose(points, labels, 0)
    assert found.right[found.name] > 0.9
    assert found.guess(points[:2]) == labels[:2]
    few = choose(points[:5], ["a", "b", "a", "b", "a"], 0)
    assert set(few.right) >= {"majority", "centroids"}
