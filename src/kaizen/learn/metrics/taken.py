"""What an answer took, as metrics: milliseconds, dollars, tokens. Less is better, so they bound and never weigh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kaizen.core.errors import ConfigError
from kaizen.core.record import Record
from kaizen.core.spec import Spec
from kaizen.learn.metrics.measure import Measure, Scored


class Reading(Measure):
    """A metric read from an answer's record.

    Args:
        name: as it is named in ``--metric``.
        doc: what it says.
        read: its value; None where the record does not tell.
    """

    def __init__(self, name: str, doc: str, read: Callable[[Record], float | None]) -> None:
        super().__init__(name, doc, lambda inputs, expected, prediction: None)
        self._read = read

    def read(self, record: Record | None) -> Scored | None:
        """What the record says, None where it says nothing."""
        value = None if record is None else self._read(record)
        return None if value is None else Scored(value)


def cost_of(record: Record) -> float | None:
    """Dollars of a call: None where a price is not known, 0 where no model was asked."""
    return record.cost_usd if record.model_calls else 0.0


_READINGS: Final[Mapping[str, tuple[str, Callable[[Record], float | None]]]] = {
    "latency": ("Milliseconds that the answer took.", lambda record: record.latency_ms),
    "cost": ("Dollars that the answer cost.", cost_of),
    "tokens": ("Tokens read and written for the answer.", lambda record: float(record.tokens_in + record.tokens_out)),
}

TAKEN: Final = tuple(_READINGS)


def reading(name: str, spec: Spec, argument: str) -> Reading:
    """One of ``TAKEN``.

    Raises:
        ConfigError: if it was given an argument.
    """
    if argument:
        raise ConfigError(f"--metric {name} takes nothing after it, not {argument!r}")
    doc, read = _READINGS[name]
    return Reading(name, doc, read)
