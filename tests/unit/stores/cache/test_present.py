"""What the marks say is not there is not there."""

from __future__ import annotations

from pathlib import Path

from kaizen.stores.cache.present import Present, mark
from kaizen.stores.cache.signal import Signal


def marks_of(tmp_path: Path) -> Present:
    signal = Signal(tmp_path / "word")
    signal.open()
    return Present(signal)


def learn(present: Present, *keys: str) -> None:
    marks = present.begin()
    mark(marks, keys)
    present.finish(marks)


def test_nothing_lacks_before_all_keys_are_learned(tmp_path: Path) -> None:
    present = marks_of(tmp_path)
    present.add(["a"])
    assert not present.lacks("b")
    marks = present.begin()
    assert not present.lacks("b")
    present.add(["put meanwhile"])
    mark(marks, ["a"])
    present.finish(marks)
    assert [present.lacks(key) for key in ("a", "put meanwhile", "b")] == [False, False, True]
    present.add(["b"])
    assert not present.lacks("b")


def test_what_another_one_puts_is_asked_for_from_its_word_on(tmp_path: Path) -> None:
    present, other = marks_of(tmp_path), marks_of(tmp_path)
    learn(present)
    assert present.lacks("a")
    other.add(["a"])
    assert not present.lacks("a")
    present.add(["b"])  # has the last word now, and still does not know what the other one put
    assert not present.lacks("a")
    learn(present, "a", "b")
    assert [present.lacks(key) for key in ("a", "b", "c")] == [False, False, True]


def test_what_another_one_puts_while_keys_are_learned_undoes_it(tmp_path: Path) -> None:
    present, other = marks_of(tmp_path), marks_of(tmp_path)
    for mine in ([], ["b"]):
        marks = present.begin()
        other.add(["a"])
        if mine:
            present.add(mine)
        present.finish(marks)
        assert not present.lacks("a")
    learn(present, "a")
    assert present.lacks("b")  # at rest it can be done


def test_marks_that_were_begun_anew_are_not_finished_by_the_earlier_ones(tmp_path: Path) -> None:
    present = marks_of(tmp_path)
    first, second = present.begin(), present.begin()
    present.add(["a"])
    present.finish(first)
    assert not present.lacks("b")
    present.finish(second)
    assert not present.lacks("b")  # given up, not guessed
