"""What differs between two versions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kaizen.registry.diff import Items, Values, Words, differences, words


def test_words_that_changed_stand_among_those_that_stayed() -> None:
    assert words("Name the team.", "Name one team now.") == (
        ("=", "Name"),
        ("-", " the"),
        ("+", " one"),
        ("=", " team"),
        ("+", " now"),
        ("=", "."),
    )


@given(st.text(), st.text())
def test_both_texts_can_be_read_off_the_pieces(old: str, new: str) -> None:
    pieces = words(old, new)
    assert "".join(text for op, text in pieces if op != "+") == old
    assert "".join(text for op, text in pieces if op != "-") == new


def test_fields_by_their_kind() -> None:
    old = {
        "instructions": "Name the team.",
        "temperature": 0.0,
        "model": "p/a",
        "stop": ["x"],
        "seed": 1,
        "gone": "a b",
    }
    new = {"instructions": "Name a team.", "temperature": 0.5, "model": "p/b", "stop": ["x", "y"], "seed": 1}
    found = differences(old, new)
    assert list(found) == ["instructions", "temperature", "model", "stop", "gone"]
    assert isinstance(found["instructions"], Words)
    assert found["temperature"] == Values(0.0, 0.5)
    assert found["model"] == Values("p/a", "p/b")
    assert found["stop"] == Items((), ("y",))
    assert found["gone"] == Words((("-", "a b"),))
    assert differences(old, old) == {}


def test_items_that_went_came_and_moved() -> None:
    demos = [{"inputs": {"m": name}, "outputs": {}} for name in "abc"]
    a, b, c = demos
    assert differences({"demos": [a, b]}, {"demos": [b, c]})["demos"] == Items((a,), (c,))
    assert differences({"demos": [a, b]}, {"demos": [b, a]})["demos"] == Items((), (), moved=True)
    assert differences({"demos": [a, a, b]}, {"demos": [a, b]})["demos"] == Items((a,), ())
    assert differences({}, {"demos": [a]})["demos"] == Items((), (a,))
