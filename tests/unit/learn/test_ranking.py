"""What is learned from past candidates, and what of it is used."""

from __future__ import annotations

import json
import random
from typing import Any, Literal

import pytest

from kaizen import context
from kaizen.core.artifact import Artifact
from kaizen.learn.ranking import LEAST, Past, Ranking, past_of, shares, task_kind
from kaizen.programs.signature import Signature

BOTH = ("demonstrations", "reflective")


def world(seed: int, count: int = 80) -> list[Past]:
    """Demos help where an answer is chosen, reflection where it is written; noise on top."""
    rng = random.Random(seed)
    made: list[Past] = []
    for _ in range(count):
        kind, stage = rng.choice(("choice", "text")), rng.choice(BOTH)
        helps = (kind == "choice") == (stage == "demonstrations")
        start = rng.uniform(0.1, 0.9)
        made.append(Past(stage, kind, start, (0.6 if helps else 0.0) * (1 - start) + rng.gauss(0, 0.05)))
    return made


def test_it_learns_which_search_helps_at_which_kind_of_task() -> None:
    ranking = Ranking.of(world(0))
    for kind, better, worse in (("choice", *BOTH), ("text", *reversed(BOTH))):
        assert ranking.gain(better, kind, 0.3) > ranking.gain(worse, kind, 0.3) + 0.2
    assert ranking.gain("demonstrations", "choice", 0.3) > ranking.gain("demonstrations", "choice", 0.9)


def test_it_predicts_new_candidates_better_than_their_mean() -> None:
    ranking, fresh = Ranking.of(world(1)), world(2)
    mean = sum(max(0.0, one.gain) for one in world(1)) / 80
    gains = [max(0.0, one.gain) for one in fresh]
    own = sum(
        (ranking.gain(one.stage, one.kind, one.start) - gain) ** 2 for one, gain in zip(fresh, gains, strict=True)
    )
    assert own < 0.2 * sum((mean - gain) ** 2 for gain in gains)


def test_from_too_little_it_learns_nothing() -> None:
    ranking = Ranking.of(world(0)[: LEAST - 1])
    assert ranking == Ranking()
    assert ranking.gain("demonstrations", "choice", 0.3) is None
    assert shares(BOTH, ranking, "choice", 0.3) is None


def test_what_helped_gets_the_most_and_nothing_is_given_up() -> None:
    parted = shares(BOTH, Ranking.of(world(0)), "text", 0.3)
    assert list(parted) == ["reflective", "demonstrations"]
    assert parted["reflective"] > 0.7
    assert parted["demonstrations"] >= 0.05
    assert sum(parted.values()) == pytest.approx(1.0)


def test_where_nothing_ever_helped_nothing_is_said() -> None:
    bad = [Past(stage, "text", 0.5, -0.1) for stage in BOTH for _ in range(LEAST)]
    assert shares(BOTH, Ranking.of(bad), "text", 0.5) is None
    assert shares(BOTH[:1], Ranking.of(world(0)), "text", 0.5) is None


def candidate(**body: Any) -> Artifact:
    given = {"start": 0.5, "score": 0.75, "stage": "reflective", "kind": "text", "run": "r", "partial": False} | body
    return Artifact("candidate", "p", json.dumps(given).encode())


def test_a_kept_candidate_is_read() -> None:
    assert past_of(candidate()) == Past("reflective", "text", 0.5, 0.25, "r")


@pytest.mark.parametrize("body", [{"score": None}, {"partial": True}])
def test_a_candidate_that_was_dropped_gained_nothing(body: dict[str, Any]) -> None:
    assert past_of(candidate(**body)) == Past("reflective", "text", 0.5, 0.0, "r")


@pytest.mark.parametrize("body", [{"start": None}, {"stage": "magic"}])
def test_a_candidate_that_says_too_little_is_left_out(body: dict[str, Any]) -> None:
    assert past_of(candidate(**body)) is None


def test_the_kind_of_a_task_is_told_by_its_outputs() -> None:
    def kind(annotation: Any) -> str:
        body = {"__module__": __name__, "__doc__": "x", "__annotations__": {"text": str, "out": annotation}}
        made = type("Made", (Signature,), {**body, "text": context.input(), "out": context.output()})
        return task_kind(made.spec)

    assert [kind(one) for one in (Literal["a", "b"], bool, int, float, str, list[str])] == [
        "choice",
        "choice",
        "number",
        "number",
        "text",
        "structure",
    ]
    body = {"__module__": __name__, "__doc__": "x", "__annotations__": {"text": str, "a": str, "b": str}}
    two = type("Two", (Signature,), {**body, "text": context.input(), "a": context.output(), "b": context.output()})
    assert task_kind(two.spec) == "structure"
