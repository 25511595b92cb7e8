"""The health of every model that was asked, as this process measured it: for routing, failover, hedging and pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kaizen.inference.failover.vitals import Limits, State, Vitals

# Callers may name models that don't exist: more refs than this are not kept, the longest unasked goes first.
_REFS: Final = 512
DEFAULT: Final = Limits()


@dataclass(frozen=True, slots=True)
class Condition:
    """How a model does.

    Args:
        state: whether it may be asked, and should be.
        why: what is wrong: "open", "errors", "limited", "latency", "score".
        in_flight: calls in the air.
        calls, faults: that ended in the window.
        p50_ms, p95_ms: of whole answers; None where too few are known.
    """

    state: State
    why: tuple[str, ...]
    in_flight: int
    calls: int
    faults: int
    p50_ms: float | None
    p95_ms: float | None


class Health:
    """What is known of each model's calls. A call costs a few microseconds, a question about one less.

    It is measured per attempt, under the retries, in this process alone.

    Args:
        limits: from when on a model counts as failing.
        clock: seconds that only grow.
    """

    def __init__(self, limits: Limits = DEFAULT, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self._vitals: dict[str, Vitals] = {}
        self._making = threading.Lock()

    def of(self, ref: str) -> Vitals:
        """The model's own; made at the first call."""
        vitals = self._vitals.get(ref)
        if vitals is None:
            with self._making:
                if len(self._vitals) >= _REFS:
                    idle = [name for name, one in self._vitals.items() if not one.in_flight]
                    for name in sorted(idle, key=lambda name: self._vitals[name].seen)[: _REFS // 8]:
                        del self._vitals[name]
                vitals = self._vitals.setdefault(ref, Vitals(self.limits, self.clock()))
        return vitals

    def state(self, ref: str) -> State:
        """Whether a model does well; one that was never asked does."""
        vitals = self._vitals.get(ref)
        return "ok" if vitals is None else vitals.state(self.clock())

    def why(self, ref: str) -> tuple[str, ...]:
        """What is wrong with a model; see ``Condition``."""
        vitals = self._vitals.get(ref)
        return () if vitals is None else vitals.why(self.clock())

    def latency_ms(self, ref: str, quantile: float) -> float | None:
        """Milliseconds below which that share of the whole answers came; None where too few are known.

        Of the last seconds if there are enough calls in them, else of the hour before as well. Right within a tenth.
        """
        vitals = self._vitals.get(ref)
        return None if vitals is None else vitals.quantile(self.clock(), quantile)

    def first_ms(self, ref: str, quantile: float) -> float | None:
        """The same of the first token of streams."""
        vitals = self._vitals.get(ref)
        return None if vitals is None else vitals.quantile(self.clock(), quantile, first=True)

    def in_flight(self, ref: str) -> int:
        """Calls in the air."""
        vitals = self._vitals.get(ref)
        return 0 if vitals is None else vitals.in_flight

    def error_rate(self, ref: str) -> float:
        """The share of faults among the calls that ended in the window; 0 without any."""
        vitals = self._vitals.get(ref)
        calls, faults = (0, 0) if vitals is None else vitals.counts(self.clock())
        return faults / calls if calls else 0.0

    def score(self, ref: str, metric: str, value: float) -> None:
        """A metric judged an answer of this model: a fall below what it used to say is a degradation."""
        self.of(ref).score(self.clock(), metric, value)

    def snapshot(self) -> Mapping[str, Condition]:
        """All models, by ref."""
        now = self.clock()
        return {ref: _condition(vitals, now) for ref, vitals in sorted(self._vitals.copy().items())}


def _condition(vitals: Vitals, now: float) -> Condition:
    calls, faults = vitals.counts(now)
    p50, p95 = vitals.quantile(now, 0.5), vitals.quantile(now, 0.95)
    return Condition(vitals.state(now), vitals.why(now), vitals.in_flight, calls, faults, p50, p95)
