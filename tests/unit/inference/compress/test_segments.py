from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.inference.compress.segments import Segment, question_of, segments
from tests.unit.inference.compress.requests import FILLER, GOLD, QUESTION, passages

LINES = st.sampled_from(
    (
        "",
        "Context:",
        "Question: who was it?",
        "[1] A Title",
        "- an item",
        "```",
        "    code()",
        "<doc>",
        "</doc>",
        "<question>Who?</question>",
        '{"a": 1}',
        "| a | b |",
        FILLER[0],
        FILLER[1] + GOLD,
        "Title: Something",
        "## Context",
        "You must answer briefly.",
        "</b> closed by nobody",
    )
)


def of_kind(text: str, kind: str, **more: bool) -> list[str]:
    return [one.text for one in segments(text, **more) if one.kind == kind]


@given(st.lists(LINES).map("\n".join) | st.text(alphabet='ab<>/:[]{}`.? \n\r"1A'), st.booleans())
def test_joined_the_segments_are_the_text(text: str, data: bool) -> None:
    assert "".join(one.text for one in segments(text, data=data)) == text


@pytest.mark.parametrize(
    "text",
    [
        f"Answer briefly.\n\nContext:\n{passages()}\n\nQuestion: {QUESTION}\nAnswer:",
        f"Context: {passages()}\nQuestion: {QUESTION}",
        f"<documents>\n<document>\n{passages()}\n</document>\n</documents>\n<question>{QUESTION}</question>\nBe brief.",
        f"<context>\n{passages()}\n</context>\nquestion: {QUESTION}",
        f"question: {QUESTION}\n<passages>\n{passages()}\n</passages>",
        f"## Context\n{passages()}\n\n## Question\n{QUESTION}",
        f"**Passage 1 (old):** {passages()}\n\n{QUESTION}",
        f"{QUESTION}\n\n{passages()}",
        f"Answer from the text.\n\n{passages()}\n\n{QUESTION}",
        f"{' '.join(FILLER)}{GOLD}{QUESTION}",
        f"Be brief. Context: {' '.join(FILLER)}{GOLD}Question: {QUESTION} Answer:",
        f"[[ ## context ## ]]\n{passages()}\n\n[[ ## question ## ]]\n{QUESTION}\n",
        "Known:\n- " + passages().replace("\n", "\n- ") + f"\n\n{QUESTION}",
    ],
)
def test_the_question_and_the_material_are_found_however_they_stand(text: str) -> None:
    prose = "".join(of_kind(text, "prose"))
    assert QUESTION in question_of(segments(text))
    assert QUESTION not in prose
    assert all(one.strip() in prose for one in (GOLD, *FILLER))
    assert "rief" not in prose


@pytest.mark.parametrize(
    "kept",
    [
        "```python\nx = 1  # y\n```\n",
        "~~~\nany text. At all.\n~~~\n",
        "| name | year |\n| Ada  | 1871 |\n",
        "    return value\n",
        "Instructions: answer in French and never in English.\n",
        "Rules:\nNever guess. Say so if you do not know.\n",
    ],
)
def test_code_tables_and_instructions_stay(kept: str) -> None:
    text = f"Context:\n{passages()}\n\n{kept}\nQuestion: {QUESTION}"
    assert kept in "".join(of_kind(text, "fixed"))


def test_a_line_that_instructs_in_a_paragraph_under_no_label_stays() -> None:
    text = f"{FILLER[0]}{FILLER[1]}You must answer in French. {FILLER[2]}\n\n{QUESTION}"
    assert of_kind(text, "fixed") == ["You must answer in French. "]


def test_a_short_paragraph_under_no_label_stays() -> None:
    assert of_kind("Greetings to all.\n\nThe sea is wide.", "prose") == []


def test_a_fence_that_nothing_closes_stays_to_the_end() -> None:
    assert of_kind(f"```\n{passages()}", "prose") == []


def test_json_among_text_is_known_and_a_mark_is_no_json() -> None:
    text = 'Context:\n{\n "a": "b. C d."\n}\n[1] One line of text.\n[2]\nQuestion: what?'
    assert of_kind(text, "json") == ['{\n "a": "b. C d."\n}\n']
    assert of_kind('{"a": [1, 2]}', "json") == ['{"a": [1, 2]}']
    assert of_kind('{"a": 1} and more', "json") == []
    assert of_kind("Question: what is\n[1, 2]", "json") == []


@pytest.mark.parametrize(
    ("passage", "heading"),
    [
        ("[1] Ed Wood (film)\nEd Wood is a film.", "[1] Ed Wood (film)\n"),
        ("[2] Ed Wood: Ed Wood is a film.", "[2] Ed Wood: "),
        ("Title: Ed Wood\nEd Wood is a film.", "Title: Ed Wood\n"),
        ("- Ed Wood is a film.", "- "),
        ("Ed Wood is a film.", ""),
    ],
)
def test_a_passages_heading_is_found(passage: str, heading: str) -> None:
    assert "".join(of_kind(passage, "heading", data=True)) == heading


def test_each_marked_or_long_line_is_a_passage_and_wrapped_lines_are_one() -> None:
    marked = segments("1. First one here.\n2. Second one here.", data=True)
    long = segments(passages(), data=True)
    wrapped = segments("This sentence goes on\nfor two lines. And ends.", data=True)
    assert [len({one.passage for one in found}) for found in (marked, long, wrapped)] == [2, 9, 1]


def test_a_labelled_question_leaves_questions_in_the_material_to_it() -> None:
    text = f"<text>\nWho knows? {passages()}\n</text>\nQuestion: {QUESTION}"
    assert question_of(segments(text)) == f"Question: {QUESTION}"


def test_a_sentence_too_short_to_stand_alone_goes_with_the_next() -> None:
    assert of_kind("Teen Titans Go! It is a series on television.", "prose", data=True) == [
        "Teen Titans Go! It is a series on television."
    ]


def test_a_segment_is_a_value() -> None:
    assert Segment("a", "prose", 1) == Segment("a", "prose", 1)
