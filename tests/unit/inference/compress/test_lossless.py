from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.inference.compress.lossless import minified, tidy

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.sampled_from((None, 0, 2, "\t")))
def test_minified_json_says_the_same(value: object, indent: int | str | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    short = minified(text)
    assert json.loads(short) == value
    assert len(short) <= len(text)


def test_minified_json_keeps_numbers_strings_and_double_keys_to_the_letter() -> None:
    text = '{ "a" : 1.0, "a" : 1e5,\n "s": "x  \\" y" }\n\n'
    assert minified(text) == '{"a":1.0,"a":1e5,"s":"x  \\" y"}\n'


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("two  words\tand \t more", "two words\tand more"),
        ("end  \nnext", "end\nnext"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("last.   ", "last. "),
        ("  indented", "  indented"),
        ("one two", "one two"),
    ],
)
def test_prose_loses_white_space_that_says_nothing(text: str, short: str) -> None:
    assert tidy(text) == short


@given(st.text(alphabet="ab \t\n."))
def test_tidying_keeps_every_word(text: str) -> None:
    assert tidy(text).split() == text.split()
