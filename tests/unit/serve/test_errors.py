from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kaizen.core import errors
from kaizen.core.errors import DefinitionError, InvalidInput, KaizenError, RateLimited, note_record, record_of
from kaizen.core.record import Record
from kaizen.core.scope import LOCAL
from kaizen.serve.errors import TABLE, Outcome, one_line, outcome
from tests.house.rules import ROOT


def every(kind: type[KaizenError] = KaizenError) -> Iterator[type[KaizenError]]:
    if kind.__module__ == errors.__name__:
        yield kind
    for below in kind.__subclasses__():
        yield from every(below)


@pytest.mark.parametrize("kind", sorted(every(), key=lambda kind: kind.__name__))
def test_every_error_has_its_row_and_the_status_of_its_class(kind: type[KaizenError]) -> None:
    assert TABLE[kind].http_status == kind.status
    assert TABLE[kind].exit_code != 0


def test_the_reference_shows_the_table() -> None:
    text = (ROOT / "docs/reference/errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| (\d+) \| (yes|no)", text, re.MULTILINE)
    retryable = {kind: "yes" if kind.retryable else "no" for kind in TABLE}
    assert sorted(rows) == sorted(
        (kind.__name__, kind.code, str(row.exit_code), str(row.http_status), retryable[kind])
        for kind, row in TABLE.items()
    )


def test_any_error_can_note_its_record_and_the_outermost_wins() -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):
        text: str

    inner, outer = (
        Record(id=name, kind="program", ref="m.P", run_id="r", scope=LOCAL, started_at=0.0) for name in "ab"
    )
    for error in (ZeroDivisionError(), InvalidInput("x")):
        assert record_of(error) is None
        note_record(error, inner)
        note_record(error, outer)
        assert record_of(error) is outer
    frozen = Frozen("x")
    note_record(frozen, inner)
    assert record_of(frozen) is None
    unrun = InvalidInput("y")
    assert unrun.record is None


def test_the_nearest_class_decides() -> None:
    class Slow(RateLimited):
        """An error of somebody else's."""

    assert outcome(Slow("x")) == TABLE[RateLimited]
    assert outcome(ValueError("x")) == TABLE[KaizenError] == Outcome(70, 500)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InvalidInput("a\n  b"), "a b"),
        (ValueError("x"), "ValueError: x"),
        (ValueError(), "ValueError"),
        (InvalidInput("\x1b[2J é"), "\\x1b[2J é"),
        (DefinitionError("m.A", ["one"]), "m.A: one"),
        (DefinitionError("m.A", ["one", "two", "3"]), "m.A: one (and 2 more; `kaizen validate` shows all)"),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
