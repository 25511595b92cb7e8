"""What the gate reads out of a text."""

from __future__ import annotations

import pytest

from kaizen.inference.semantic.numerals import numbers
from kaizen.inference.semantic.reading import read
from kaizen.inference.semantic.stems import stem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000 and 1000 and 1k", ["1000"] * 3),
        ("two hundred and five people", ["205"]),
        ("a thousand things", ["1000"]),
        ("one hundred", ["100"]),
        ("one of them", []),
        ("five", ["5"]),
        ("twenty five million", ["25000000"]),
        ("2 lakh", ["200000"]),
        ("1.5 million", ["1500000"]),
        ("the third world war iii", ["3", "3"]),
        ("once or twice", ["1", "2"]),
        ("version 3.10.2", ["3.10.2"]),
        ("at 10:30", ["10:30"]),
        ("5km", ["5"]),
        ("the 21st", ["21"]),
        ("an 7s phone", ["7s"]),
        ("1,5", ["1,5"]),
        ("a k", []),
    ],
)
def test_a_number_is_one_however_it_is_written(text: str, expected: list[str]) -> None:
    assert list(numbers(text.split())[0]) == expected


def test_units_stay_words() -> None:
    assert numbers(["5km", "in", "30", "mins"])[1] == ["km", "in", "mins"]


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("cards", "card"), ("companies", "company"), ("boxes", "box"), ("classes", "class"), ("watches", "watch"),
        ("wishes", "wish"), ("sizes", "size"), ("stopped", "stop"), ("hoping", "hope"), ("easily", "easy"),
        ("children", "child"), ("won", "win"), ("kilometres", "km"), ("rupees", "inr"), ("learning", "learns"),
    ],
)  # fmt: skip
def test_forms_of_a_word_have_one_stem(word: str, other: str) -> None:
    assert stem(word) == stem(other)


@pytest.mark.parametrize(
    ("word", "other"), [("status", "stat"), ("thing", "th"), ("news", "new"), ("bed", "b"), ("legal", "illegal")]
)
def test_other_words_have_other_stems(word: str, other: str) -> None:
    assert stem(word) != stem(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How can I reset my password?", "How do you reset your password"),
        ("Please tell me how to reset it", "how to reset it"),
        ("Hello, could you explain what APR is?", "explain what APR is"),
        ("What's the best way to clean a pan?", "How to best clean a pan?"),
        ("What does APR mean?", "What is APR?"),
        ("How come it is blue?", "Why is it blue?"),
        ("What is the reason that it broke?", "Why it broke?"),
        ("Is it possible to pay later?", "Can I pay later?"),
        ("I would like to know when it ends. Thank you in advance!", "when does it end"),
        ("What is the cost of a seat?", "How much does a seat cost?"),
    ],
)
def test_ways_of_asking_have_the_same_content_and_kind(one: str, other: str) -> None:
    a, b = read(one), read(other)
    assert (a.content, a.kind) == (b.content, b.kind)


def test_code_and_addresses_are_marks_verbatim() -> None:
    text = "Why does `git  push --force` to https://a.example/x in ~/repo/main.py fail for get_user() or getUser?"
    text += " And x = 2?"
    assert read(text).marks == {
        "`git push --force`", "https://a.example/x", "~/repo/main.py", "get_user", "getUser", "x=2",
    }  # fmt: skip


def test_names_are_capitals_inside_a_sentence_but_not_in_a_title() -> None:
    assert read("How do I use Excel on iOS17 with Anna's Mac?").names == {"excel", "ios17", "anna", "mac"}
    assert read("How To Cook Rice With Fresh Herbs").names == set()
    assert read("Who leads the US? The USA is large.").names == {"usa"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("How many are there?", "amount"), ("how long is it", "how long"), ("Can I stay?", "yes"),
        ("Who is it and why?", "who"), ("close the door", ""), ("Do you know where it is?", "where"),
    ],
)  # fmt: skip
def test_what_is_asked(text: str, kind: str) -> None:
    assert read(text).kind == kind


def test_language_tense_and_the_rest() -> None:
    assert read("Wie kann ich das Passwort ändern und speichern?").english is False
    assert read("Как изменить пароль?").script == "CYRILLIC"
    assert read("¿?…").script == "LATIN"
    assert read("Who won it?").tense == "past"
    assert read("Who will win it?").tense == "future"
    assert read("I don't have none").negations == 2
    assert read("What's the cheapest way?").superlatives
    assert read("she said “never  mind” to me").quotes == {"never  mind"}


def test_a_programs_labels_are_no_words() -> None:
    assert read("question: How do I pay?").words == read("How do I pay?").words


def test_the_gist_is_the_content_or_the_text_if_it_has_none() -> None:
    assert read("How do I reset my passwords?").gist == "reset passwords"
    assert read("How is it?").gist == "how is it?"
