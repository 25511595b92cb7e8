from __future__ import annotations

import numpy as np

from kaizen.core.message import Message
from kaizen.inference.compress.demos import chosen, demos_of, with_fewer
from tests.unit.inference.compress.requests import asking

SYSTEM = Message.of("system", "Sort the mail.")
DEMOS = tuple(
    message
    for text in ("my card was stolen", "a card of mine is lost", "the app shows no balance", "send money abroad")
    for message in (Message.of("user", text), Message.of("assistant", "x"))
)


def test_the_examples_of_the_stable_part_are_found() -> None:
    assert len(demos_of(asking("q", SYSTEM, *DEMOS, stable=9))[1]) == 4
    assert demos_of(asking("q", SYSTEM, *DEMOS, stable=8))[1] == []  # half an example is none
    assert demos_of(asking("q", SYSTEM, stable=1)) == (1, [])


def test_those_like_the_question_and_unlike_each_other_stay_in_order() -> None:
    short = with_fewer(asking("is my card stolen?", SYSTEM, *DEMOS, stable=9), 2, None, "is my card stolen?")
    assert [one.text for one in short.messages] == [
        *("Sort the mail.", "my card was stolen", "x"),
        *("a card of mine is lost", "x", "is my card stolen?"),
    ]
    assert short.stable == 1


def test_a_second_example_of_the_same_is_worth_less_than_a_new_one() -> None:
    similar = np.array([0.9, 0.89, 0.6])
    among = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert chosen(similar, among, 2) == [0, 2]
    assert chosen(similar, among, 9) == [0, 1, 2]


def test_embeddings_decide_where_there_are_some() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    short = with_fewer(asking("q", SYSTEM, *DEMOS, stable=9), 1, vectors, "q")
    assert short.messages[1].text == "send money abroad"
