"""What an evaluation shows besides its score, in words, tables and a file for a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any, Literal

import pytest

from kaizen import Signature, context
from kaizen.core.errors import ConfigError
from kaizen.learn.data.rows import Row
from kaizen.learn.evaluate.report import report
from kaizen.learn.evaluate.result import Evaluation, RowResult, compare, summed
from kaizen.learn.evaluate.views import confusion, fields_of, mistakes, slices
from tests.unit.learn.metrics.test_named import Slots, Tags


class Label(Signature):
    """Label."""

    text: str = context.input("t")
    label: Literal["a", "b", "c"] | None = context.output("l")


class Flag(Signature):
    """Flag."""

    text: str = context.input("t")
    flag: bool = context.output("f")


def evaluation(name: str, pairs: list[tuple[Any, Any]], **more: Any) -> Evaluation:
    results = [
        RowResult(
            Row({"text": f"<row> {place}"}, {name: wanted}, None, {"lang": "de" if place % 3 else "en"}),
            None if got == "-" else {name: got},
            float(wanted == got),
            "" if wanted == got else f"{name}: expected {wanted!r}, got {got!r}",
            record=f"record-{place}",
            error="output_invalid" if got == "-" else None,
            latency_ms=10.0 + place,
            **more,
        )
        for place, (wanted, got) in enumerate(pairs)
    ]
    return summed(results, program="bank.Label", metric="accuracy", run_id="run-1")


def test_confusion_counts_what_was_taken_for_what() -> None:
    found = confusion(Label.spec, evaluation("label", [("a", "a"), ("a", "b"), ("b", "b"), (None, "a"), ("b", "-")]))
    assert found is not None
    assert found.labels == ("a", "b", "c", "null")
    assert found.got == ("a", "b", "c", "null", "(no answer)")
    assert found.counts == ((1, 1, 0, 0, 0), (0, 1, 0, 0, 1), (0, 0, 0, 0, 0), (1, 0, 0, 0, 0))
    assert found.macro_f1 == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    flags = confusion(Flag.spec, evaluation("flag", [(True, True), (False, True)]))
    assert flags is not None
    assert (flags.labels, flags.counts) == (("false", "true"), ((0, 1), (0, 1)))
    assert confusion(Slots.spec, evaluation("people", [("4", "4")])) is None
    assert confusion(Tags.spec, evaluation("tags", [([], [])])) is None


def test_outputs_are_measured_one_by_one() -> None:
    rows = [
        ({"people": "4", "time": None}, {"people": "4", "time": "7"}),
        ({"people": "2", "time": "8"}, {"people": "3", "time": "8"}),
    ]
    results = [RowResult(Row({"text": "x"}, wanted), got, 0.0) for wanted, got in rows]
    people, time, both = fields_of(Slots.spec, summed(results, program="p", metric="m", run_id="r"))
    assert (people.name, people.n, people.right) == ("people", 2, 0.5)
    assert (people.precision, people.recall) == (0.5, 0.5)
    assert (time.precision, time.recall, time.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (both.name, both.n, both.right) == ("all", 4, 0.5)
    assert (both.precision, both.recall) == (0.5, pytest.approx(2 / 3))
    lone = fields_of(Label.spec, evaluation("label", [("a", "a")]))
    assert [one.name for one in lone] == ["label"]


def test_mistakes_are_grouped_the_commonest_first() -> None:
    found = mistakes(evaluation("label", [("a", "a"), ("a", "b"), ("b", "-"), ("a", "b")]))
    assert [(one.what, one.rows) for one in found] == [
        ("label: expected 'a', got 'b'", 2),
        ("output_invalid", 1),
    ]
    assert "<row> 1" in found[0].example


def test_slices_have_intervals_of_their_own() -> None:
    found = slices(evaluation("label", [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")]), "lang")
    assert [(one.value, one.n, one.score) for one in found] == [("de", 2, 0.5), ("en", 2, 1.0)]
    assert found[1].low < 1.0
    assert [one.value for one in slices(evaluation("label", [("a", "a"), ("b", "a")]), "label")] == ["a", "b"]
    many = slices(evaluation("label", [("a", "a")] * 60), "text")
    assert (len(many), many[-1].value, many[-1].n) == (50, "(others)", 11)
    with pytest.raises(ConfigError, match="no row has such a column; columns: label, lang, text"):
        slices(evaluation("label", [("a", "a")]), "language")


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: dict[str, int] = {}
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "rect", "line", "circle", "path"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line", "circle", "path"):
            assert self.opened.pop() == tag


def test_a_report_is_one_file_that_loads_nothing() -> None:
    found = evaluation("label", [("a", "a"), ("a", "b"), ("b", "-"), ("c", "c")], cost_usd=0.01)
    text = report(Label.spec, found, source="test.jsonl")
    page = Page(text)
    assert page.opened == []
    assert page.links == []
    assert "http" not in text
    assert page.tags["svg"] == 4  # the score, the confusion, latency, cost
    assert "<row>" not in text
    assert "&lt;row&gt; 1" in text
    assert f"{found.low:.3f} to {found.high:.3f}" in text
    assert "a taken for b: 1 of 2" in text
    assert "output_invalid" in text


def test_a_report_shows_comparison_slices_fields_and_broken_bounds() -> None:
    before = evaluation("people", [("4", "5"), ("2", "3"), ("1", "1")])
    after = evaluation("people", [("4", "4"), ("2", "2"), ("1", "1")])
    rows = [
        RowResult(Row({"text": "x"}, {"people": "1", "time": "2"}), {"people": "1"}, 2.5, cost_usd=None)
        for _ in range(250)
    ]
    odd = summed(rows, program="p", metric="cost", run_id="r")
    text = report(Slots.spec, after, compared=("base", compare(before, after)), parts=("lang", slices(after, "lang")))
    assert Page(text).opened == []
    assert "Against base" in text
    assert "+0.667" in text
    assert "By lang" in text
    from dataclasses import replace

    text = report(Slots.spec, replace(odd, broken=("p95 < 1: it is 2",)))
    assert Page(text).tags.get("svg") is None  # no share, no time, no known cost: nothing to draw
    assert "p95 &lt; 1: it is 2" in text
    assert "and 50 more" in text
    assert re.search(r"<td>time</td>.*<td class=\"n\">0.000</td>", text)
    assert "unknown" in text
