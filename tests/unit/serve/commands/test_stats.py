from __future__ import annotations

import re
from itertools import groupby

import pytest

from kaizen.ledger.views import Stat
from kaizen.serve.commands.stats import plot


def stat(group: str, *, calls: int = 1, p95: float | None = 1.0) -> Stat:
    return Stat(group, calls, 0, p95, p95, p95, 0, 0, None, 0, 0, None)


def heights(drawn: str) -> list[int]:
    """The height of each bar, in characters, from the left."""
    body = [re.split("[│┤]", line)[1] for line in drawn.splitlines()[2:-2]]
    width = max(map(len, body))
    columns = ["".join(line.ljust(width)[place] for line in body).count("█") for place in range(width)]
    return [height for height, _ in groupby(columns) if height]


def test_the_bars_have_the_heights_of_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    drawn = plot("program", [stat("b", p95=400.0), stat("a", p95=800.0), stat("c", p95=100.0)], colour=False)
    assert "latency p95, ms" in drawn
    high, middle, low = heights(drawn)
    assert high > middle > low >= 1
    assert drawn.splitlines()[-1].split() == ["a", "b", "c"]


def test_long_latencies_are_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    drawn = plot("model", [stat("embedded/a-model-with-a-long-name", p95=4000.0), stat("b", p95=None)], colour=False)
    assert "latency p95, s" in drawn
    assert "4┤" in drawn
    assert "…-with-a-long-name" in drawn


def test_days_show_their_calls_and_the_last_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    days = [stat(f"2031-01-{n:02}", calls=n) for n in range(1, 31)]
    drawn = plot("day", days, colour=False)
    assert " calls " in drawn
    shown = drawn.splitlines()[-1].split()
    assert (shown[0], shown[-1]) == ("2031-01-11", "2031-01-30")


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "\x1b[" in plot("program", [stat("a")], colour=True)
    assert "\x1b[" not in plot("program", [stat("a")], colour=False)
