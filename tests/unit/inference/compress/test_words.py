from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.inference.compress.words import looks_back, sentences, terms


@given(st.text())
def test_joined_the_sentences_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One came. Two went! Who? Nobody.", 4),
        ("Dr. Brown met J. R. Smith in the U.S. Navy yard.", 1),
        ("It cost 3.50 dollars. Then it rained.", 2),
        ('He said "No." Then he left.', 2),
        ("This is known.[12] That is not.", 2),
        ("\u4eca\u65e5\u306f\u3002\u660e\u65e5\u306f\u3002", 2),
        ("no end here", 1),
        ("", 0),
    ],
)
def test_a_sentence_ends_where_a_reader_would_say_so(text: str, count: int) -> None:
    assert len(sentences(text)) == count


@pytest.mark.parametrize(
    ("one", "other"),
    [("cities", "city"), ("running", "runs"), ("founded", "founds"), ("classes", "class"), ("Smith's", "smith")],
)
def test_forms_of_a_word_meet(one: str, other: str) -> None:
    assert terms(one) == terms(other) != []


def test_words_that_carry_no_meaning_are_left_out() -> None:
    assert terms("What is the name of it?") == ["nam"]


@pytest.mark.parametrize(("text", "leans"), [("He was born there.", True), ("Ada was.", False), ("...", False)])
def test_a_sentence_that_leans_on_the_one_before_is_known(text: str, leans: bool) -> None:
    assert looks_back(text) is leans
