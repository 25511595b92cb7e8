from __future__ import annotations

import io
import time

import pytest

from kaizen.core.record import Record
from kaizen.core.scope import LOCAL
from kaizen.serve.batch.progress import BarDisplay, Counts, LineDisplay, cost_text, display
from tests.unit.serve.conftest import Terminal


def record(cost: float | None, calls: int = 1) -> Record:
    return Record(
        id="i",
        kind="program",
        ref="m.P",
        run_id="r",
        scope=LOCAL,
        started_at=0.0,
        tokens_in=1000,
        tokens_out=200,
        cost_usd=cost,
        model_calls=calls,
    )


@pytest.mark.parametrize(
    ("usd", "unpriced", "text"),
    [
        (None, 0, "$0"),
        (None, 3, "price unknown"),
        (0.0, 0, "$0"),
        (0.0, 2, "$0 and 2 at unknown prices"),
        (0.00123456, 0, "$0.001235"),
        (1.5, 0, "$1.5"),
        (12345.678, 1, "$12345.68 and 1 at unknown prices"),
    ],
)
def test_a_price_that_is_not_known_is_never_zero(usd: float | None, unpriced: int, text: str) -> None:
    assert cost_text(usd, unpriced) == text


def test_the_tally_sums_what_rows_took() -> None:
    counts = Counts(total=10, before=4, answered=2, failed=1, begun=time.monotonic() - 2)
    for one in (record(0.5), record(None), record(None, calls=0), record(0.25)):
        counts.add(one)
    assert counts.done == 7
    rate, rest = counts.text().split(" rows/s, ")
    assert float(rate) == pytest.approx(1.5, abs=0.1)
    assert rest == "1 failed, 4,800 tokens, $0.75 and 1 at unknown prices"


def test_a_line_every_few_seconds_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    shown = display(stream)
    assert isinstance(shown, LineDisplay)
    shown.show(Counts(total=2))
    assert stream.getvalue() == ""
    shown = LineDisplay(stream, every=0.0)
    shown.show(Counts(total=2, answered=1))
    shown.close()
    assert stream.getvalue().startswith("1 of 2 rows, ")
    assert stream.getvalue().count("\n") == 1


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    shown = display(stream)
    assert isinstance(shown, BarDisplay)
    for answered in range(101):
        shown.show(Counts(total=100, answered=answered))
    shown.close()
    assert "100/100" in stream.getvalue()
    assert "0 tokens" in stream.getvalue()
    # a redraw for each row would cost more than the rows of a fast batch
    assert stream.getvalue().count("rows/s") < 10
