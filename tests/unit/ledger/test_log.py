"""Log lines: off until set up, one for a significant operation, never a word of its contents."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kaizen.ledger.ledger import Ledger
from kaizen.ledger.log import NAME, setup_logging
from kaizen.stores.memory import MemoryStore
from kaizen.testing.store_suite import OURS, full_record, make_record

logger = logging.getLogger(NAME)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = logger.level, logger.propagate, tuple(logger.handlers)
    yield
    logger.level, logger.propagate = before[:2]
    logger.handlers[:] = before[2]


async def test_root_calls_and_errors_are_logged_once() -> None:
    stream = io.StringIO()
    setup_logging("info", io.StringIO())
    setup_logging("info", stream)  # replaces the first
    ledger = Ledger(MemoryStore(), bytes(32), log=True)
    root = make_record(status="ok", latency_ms=1.23456, cost_usd=0.5)
    failed = full_record()
    quiet = [make_record(parent_id=root.id), make_record(kind="model", parent_id=root.id), make_record(kind="score")]
    await ledger.append(OURS, [root, failed, *quiet], [ledger.seal(OURS, b"private")])
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["level"], line["event"], line["record"]) for line in lines] == [
        ("info", "program call finished", root.id),
        ("warning", "model call failed", failed.id),
    ]
    assert lines[0]["latency_ms"] == 1.235
    assert lines[0]["cost_usd"] == 0.5
    assert "model" not in lines[0]
    assert lines[1]["error_code"] == "unavailable"
    for private in ("private", "DROP TABLE"):
        assert private not in stream.getvalue()


async def test_the_level_counts() -> None:
    stream = io.StringIO()
    setup_logging("warning", stream)
    ledger = Ledger(MemoryStore(), bytes(32), log=True)
    await ledger.append(OURS, [make_record(), make_record(status="error")])
    assert [json.loads(line)["status"] for line in stream.getvalue().splitlines()] == ["error"]


async def test_a_ledger_that_shall_not_log_is_silent() -> None:
    stream = io.StringIO()
    setup_logging("debug", stream)
    await Ledger(MemoryStore(), bytes(32)).append(OURS, [make_record(status="error")])
    assert stream.getvalue() == ""


def test_a_traceback_stays_in_its_line() -> None:
    stream = io.StringIO()
    setup_logging("info", stream)
    try:
        raise ValueError("of no use")
    except ValueError:
        logging.getLogger("kaizen.somewhere").exception("it broke at %s", "noon")
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert line["logger"] == "kaizen.somewhere"
    assert line["event"] == "it broke at noon"
    assert "ValueError: of no use" in line["traceback"]


async def test_off_undoes_what_was_set_up_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = io.StringIO(), logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(logger, "handlers", [*logger.handlers, theirs])
    setup_logging("off", ours)
    assert (logger.level, logger.propagate, logger.handlers[-1]) == (logging.NOTSET, True, theirs)
    setup_logging("info", ours)
    setup_logging("off", ours)
    assert (logger.level, logger.propagate, logger.handlers[-1]) == (logging.NOTSET, True, theirs)
    await Ledger(MemoryStore(), bytes(32), log=True).append(OURS, [make_record(status="error")])
    assert ours.getvalue() == ""
    assert "program call failed" in theirs.stream.getvalue()


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        setup_logging("loud", io.StringIO())


def test_importing_sets_nothing_up() -> None:
    code = (
        "import logging; before = logging.root.handlers[:]; import kaizen.ledger.log; "
        "logging.getLogger('kaizen.x').error('not to be seen'); "
        "assert logging.root.handlers == before; "
        "print([type(h).__name__ for h in logging.getLogger('kaizen').handlers])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['NullHandler']\n"
    assert done.stderr == ""
