"""The contract value: its digest, its checks, and how little of a value a message shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field as PydanticField
from pydantic import ValidationError

from kaizen.core.answer import Answer
from kaizen.core.errors import InvalidInput
from kaizen.core.spec import Field, Spec, dump, shorten

TYPES: list[Any] = [str, int, list[str], dict[str, int]]


def field(name: str, role: Any, annotation: Any = str, **rules: Any) -> Field:
    info: Any = PydanticField(**rules)
    return Field(name, role, annotation, info)


def spec(*fields: Field, name: str = "m.T", doc: str = "") -> Spec:
    return Spec(name, doc, fields)


QUESTION = spec(
    field("q", "input"), field("n", "input", int, default=3), field("why", "intermediate"), field("a", "output")
)


def test_fields_have_roles() -> None:
    assert repr(QUESTION) == "Spec(m.T: q, n -> why, a)"
    assert (list(QUESTION.inputs), list(QUESTION.outputs), list(QUESTION.written)) == (["q", "n"], ["a"], ["why", "a"])
    assert QUESTION.inputs["q"].required
    assert not QUESTION.inputs["n"].required
    assert field("x", "input", description="said").description == "said"


def test_defaults_are_filled_in() -> None:
    assert QUESTION.validate_inputs({"q": "x"}) == {"q": "x", "n": 3}


def test_a_program_without_inputs_says_so() -> None:
    with pytest.raises(InvalidInput, match="'x' is no input; the inputs are none"):
        spec(field("a", "output")).validate_inputs({"x": 1})


def test_an_answer_is_made_again_from_what_was_kept() -> None:
    answer = Answer.of({"why": "w", "a": "é"})
    assert QUESTION.load_answer(dump(answer.outputs), {"q": "x"}) == answer
    with pytest.raises(ValidationError):
        QUESTION.load_answer(b'{"a": "x"}', {})


names = st.sampled_from(["a", "description", "title", "default", "examples", "x1"])
fields = st.dictionaries(names, st.tuples(st.sampled_from(["input", "output"]), st.sampled_from(TYPES)), max_size=4)


@given(fields, fields, st.text(max_size=5))
def test_contracts_are_equal_when_fields_are(one: Any, other: Any, words: str) -> None:
    def made(declared: Any, said: str) -> Spec:
        return spec(
            *(field(name, *how, description=said) for name, how in declared.items()), name=f"m.T{len(said)}", doc=said
        )

    assert made(one, "").contract == made(one, words).contract
    if one != other:
        assert made(one, "").contract != made(other, "").contract


@given(st.recursive(st.text() | st.binary() | st.integers() | st.none(), lambda x: st.lists(x) | st.tuples(x, x)))
def test_a_value_is_shown_on_one_short_line(value: Any) -> None:
    text = shorten(value)
    assert len(text) <= 80
    assert "\n" not in text
    if len(repr(value)) <= 80 and isinstance(value, str | bytes | int):
        assert text == repr(value)


def test_a_huge_value_is_cut() -> None:
    assert shorten("x" * 10**7) == "'" + "x" * 78 + "…"
    assert shorten(b"x" * 10**7).startswith("b'xxx")
    assert len(shorten([["x" * 10**5] * 1000] * 1000)) == 80
    assert len(shorten({str(n): n for n in range(10**5)})) == 80


def test_of_many_mistakes_the_first_are_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        Spec("m.P", "", [field("items", "input", list[int])]).validate_inputs({"items": ["x"] * 50_000})
    assert str(caught.value).count("'items.") == 20
    assert str(caught.value).endswith("; and 49980 more")
    assert caught.value.kept.endswith("; and 49980 more")
    assert len(caught.value.kept) < 4000
