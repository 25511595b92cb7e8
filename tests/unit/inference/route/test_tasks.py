"""The detector of task types, as it is shipped, and the judge that asks it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from kaizen.core.errors import InvalidInput
from kaizen.core.message import Message
from kaizen.core.request import Request
from kaizen.core.scope import LOCAL
from kaizen.inference.route.evidence import Evidence, Judging
from kaizen.inference.route.judge import Judge, Trained, question, whole
from kaizen.inference.route.router import Prompt
from kaizen.inference.route.tasks import TASKS, TaskDetector, ends
from kaizen.inference.route.training import Example, Training, train
from kaizen.stores.memory import MemoryStore


def asking(text: str, system: str = "") -> Request:
    told = (Message.of("system", system),) if system else ()
    return Request(scope=LOCAL, model="a/x", messages=(*told, Message.of("user", text)))


shipped = cache(TaskDetector.shipped)


def judge(**more: Any) -> Judge:
    return Judge(Evidence(MemoryStore(), Judging()), **more)


@cache
def embedder() -> Any:
    pytest.importorskip("wordllama")
    from kaizen.providers.embed.wordllama import WordLlamaEmbedder

    return WordLlamaEmbedder()


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Translate to French: Where is the station?", "translation"),
        ("Summarise this report in two sentences. Sales rose. Costs fell. Two plants were closed.", "summarisation"),
        ("Write a Python function that reverses a string.", "code"),
        ("A farmer has 12 cows and buys 5 more. How many cows are there in total?", "reasoning"),
        ("Who wrote the first English dictionary?", "question answering"),
        ("Classify this review as positive or negative.\n\nThe soup was cold.", "classification"),
        ("Extract all names and dates as JSON. Anna met Bo on 3 May.", "extraction"),
        ("Write a poem about the sea.", "writing"),
        ("Hello, how are you today?", "chat"),
    ],
)
async def test_plain_cases_are_told_apart(text: str, task: str) -> None:
    made = judge(embedder=embedder(), detector=shipped)
    found = await made.task(asking(text))
    assert found is not None
    assert found[0] == task
    assert 1 / len(TASKS) < found[1] <= 1


async def test_the_type_may_stand_in_the_instructions() -> None:
    made = judge(embedder=embedder(), detector=shipped)
    found = await made.task(asking("Der Zug hat Verspätung.", "Translate the user's message into English."))
    assert found is not None
    assert found[0] == "translation"


async def test_without_detector_or_embedder_nothing_is_told() -> None:
    assert await judge().task(asking("hello")) is None
    assert await judge(detector=TaskDetector.shipped).task(asking("hello")) is None


def test_the_shipped_detector_knows_all_types() -> None:
    assert TaskDetector.shipped().labels == TASKS


def test_a_detector_is_fitted_and_written_down() -> None:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, bytes, bytes]] = []
    labels: list[str] = []
    for at in range(60):
        label = ("code", "chat")[at % 2]
        near = np.array([float(label == "code"), *rng.normal(0, 0.1, 3)], "<f4").tobytes()
        rows.append((f"text {at}", near, near))
        labels.append(label)
    made = TaskDetector.fitted(rows, labels)
    assert [made(*row)[0] for row in rows] == labels
    again = TaskDetector.from_json(json.loads(json.dumps(made.as_json())))
    assert again(*rows[0])[1] == pytest.approx(made(*rows[0])[1], abs=0.01)
    with pytest.raises(InvalidInput, match="other features"):
        TaskDetector.from_json(made.as_json() | {"features": []})


def test_ends_are_the_first_and_the_last_sentence() -> None:
    assert ends("Do this. Long material here. Why?") == ("Do this.", "Why?")
    assert ends("") == ("", "")
    assert [len(one) for one in ends("x" * 1000)] == [160, 160]


def test_a_question_is_the_last_message_of_the_users() -> None:
    talk = (
        Message.of("user", "first"),
        Message.of("assistant", "yes"),
        Message.of("user", "last"),
        Message.of("tool", "t"),
    )
    assert question(Request(scope=LOCAL, model="a/x", messages=talk)) == "last"
    assert question(Request(scope=LOCAL, model="a/x", messages=talk[1:2])) == "yes"
    assert question(Request(scope=LOCAL, model="a/x", messages=())) == ""
    assert whole(asking("b", "a")) == "a\nb"


@pytest.mark.parametrize("with_points", [False, True])
async def test_a_router_goes_before_scores_for_the_models_it_knows(with_points: bool) -> None:
    points = embedder() if with_points else None
    some = [
        Example(Prompt("?" * (at % 7 + 1), {"task": ("code", "chat")[at % 2]}), {"a/x": at % 2, "b/y": 1.0})
        for at in range(40)
    ]
    if points is not None:
        made = await points.embed(LOCAL, [one.prompt.text for one in some])
        size = 4 * made.dim
        some = [
            Example(Prompt(one.prompt.text, one.prompt.traits, made.data[at * size : (at + 1) * size]), one.right)
            for at, one in enumerate(some)
        ]
    router = train(some, Training(trees=5, embedder="embedded/wordllama-256" if with_points else None))

    def right(text: str, task: str | None, point: bytes | None) -> Any:
        return router.right(Prompt(text, {} if task is None else {"task": task}, point))

    made = judge(embedder=points, trained=Trained(router, right))
    book = await made.evidence.of(LOCAL)
    worths = await made.worths(asking("???"), book, "chat", ("a/x", "c/z"))
    assert (worths["a/x"].by, worths["a/x"].n, worths["c/z"].by) == ("router", 40, "nothing")
    other = await made.worths(asking("???"), book, "code", ("a/x",))
    assert (worths["a/x"].quality or 0) > (other["a/x"].quality or 0)
    assert (await made.worths(asking("?"), book, None, ("c/z",)))["c/z"].quality is None
