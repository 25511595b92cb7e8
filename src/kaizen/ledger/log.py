"""The log: JSON lines by the standard library's logging, silent until it is set up."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final, TextIO

from kaizen.core.record import Record

NAME: Final = "kaizen"

_logger = logging.getLogger(NAME)
_logger.addHandler(logging.NullHandler())
_FIELDS: Final = "fields"  # the attribute of a LogRecord that holds an operation's fields


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the operation's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= getattr(record, _FIELDS, {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def setup_logging(level: str, stream: TextIO) -> None:
    """Write the log of everything under the name ``kaizen`` to a stream. A second call replaces the first.

    Args:
        level: a level's name, such as ``info``; ``off`` undoes an earlier call and leaves alone what others set up.
        stream: where the lines go.

    Raises:
        ValueError: there is no such level.
    """
    for earlier in [handler for handler in _logger.handlers if isinstance(handler.formatter, JsonLines)]:
        _logger.removeHandler(earlier)
        _logger.setLevel(logging.NOTSET)
        _logger.propagate = True
    if level == "off":
        return
    _logger.setLevel(level.upper())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    _logger.addHandler(handler)
    # Else whoever sets up the root logger too would read every line twice.
    _logger.propagate = False


def log_record(record: Record) -> None:
    """One line for a record: its id, what was run and how it went. Neither inputs nor outputs nor error texts."""
    failed = record.status == "error"
    level = logging.WARNING if failed else logging.INFO
    if not _logger.isEnabledFor(level):
        return
    fields = {
        "record": record.id,
        "run": record.run_id,
        "scope": str(record.scope),
        "kind": record.kind,
        "ref": record.ref,
        "status": record.status,
        "latency_ms": round(record.latency_ms, 3),
        "model": record.model,
        "tokens_in": record.tokens_in,
        "tokens_out": record.tokens_out,
        "cost_usd": record.cost_usd,
        "error_code": record.error_code,
    }
    event = f"{record.kind} call {'failed' if failed else 'finished'}"
    _logger.log(level, event, extra={_FIELDS: {name: value for name, value in fields.items() if value is not None}})
