"""What is known of one model's calls: counts and latencies of the last seconds, and what they used to be.

Everything has a fixed size, whatever the traffic: a ring of slots for the last ``window`` seconds, and a baseline into
which each slot goes when it leaves the ring, and which forgets by half in half an hour.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

State: TypeAlias = Literal["ok", "degraded", "open"]
Outcome: TypeAlias = Literal["ok", "fault", "limited", "other", "unknown"]
Admission: TypeAlias = Literal["pass", "probe", "refused"]

_SLOTS: Final = 6
_HALF_LIFE: Final = 1800.0
# A bin is a quarter of a doubling, so a quantile is right within a tenth: from a quarter of a millisecond to an hour.
_BINS: Final = 96
_PER_DOUBLING: Final = 4
_FIRST: Final = 2 * _PER_DOUBLING
# A median that rises by less than this, in milliseconds, is noise however many times the baseline it is.
_NOTICEABLE_MS: Final = 25.0
# How long a judgement holds, in seconds: a router asks about every candidate of every call.
_JUDGED_FOR: Final = 1.0
_METRICS: Final = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on a model counts as failing.

    Args:
        window: seconds that are looked at.
        minimum: calls (or scores) in them below which nothing is said.
        errors: share of faults that opens the circuit; half of it is a degradation.
        cooldown: seconds for which an open circuit lets no call pass.
        slow: median latency, in times the model's own baseline, that is a degradation.
        drop: share by which scores may fall below their baseline.
        breaks: whether the circuit opens at all.
    """

    window: float = 30.0
    minimum: int = 10
    errors: float = 0.5
    cooldown: float = 15.0
    slow: float = 2.0
    drop: float = 0.2
    breaks: bool = True


class Latencies:
    """A histogram of milliseconds: the slots of the ring, their sum, and the baseline."""

    __slots__ = ("baseline", "count", "past", "recent", "slots")

    def __init__(self) -> None:
        self.slots = [[0] * _BINS for _ in range(_SLOTS)]
        self.recent = [0] * _BINS
        self.count = 0
        self.baseline = [0.0] * _BINS
        self.past = 0.0

    def add(self, slot: int, ms: float) -> None:
        """Count one call."""
        at = int(_PER_DOUBLING * math.log2(ms) + _FIRST) if ms > 0.25 else 0
        at = at if at < _BINS else _BINS - 1
        self.slots[slot][at] += 1
        self.recent[at] += 1
        self.count += 1

    def leave(self, slot: int, keep: float) -> None:
        """A slot's time is over: it goes into the baseline, of which the share ``keep`` stays."""
        gone = self.slots[slot]
        left = sum(gone)
        if left or self.past:
            self.baseline = [kept * keep + one for kept, one in zip(self.baseline, gone, strict=True)]
            self.past = self.past * keep + left
        if left:
            self.recent = [whole - one for whole, one in zip(self.recent, gone, strict=True)]
            self.count -= left
            self.slots[slot] = [0] * _BINS

    def quantile(self, q: float, enough: int) -> float | None:
        """Of the last seconds where there are enough calls in them, else of all that is remembered; None without."""
        if self.count >= enough:
            return _quantile(self.recent, self.count, q)
        whole = self.count + self.past
        if whole < enough:
            return None
        return _quantile([a + b for a, b in zip(self.recent, self.baseline, strict=True)], whole, q)

    def slower(self, times: float, enough: int) -> bool:
        """Whether the median is that many times what it used to be."""
        if self.count < enough or self.past < enough:
            return False
        now, before = _quantile(self.recent, self.count, 0.5), _quantile(self.baseline, self.past, 0.5)
        return now > times * before and now - before > _NOTICEABLE_MS


class Scores:
    """One metric's words on a model: by slot of the ring how many and their sum, and the same of the past."""

    __slots__ = ("past", "slots")

    def __init__(self) -> None:
        self.slots = [[0.0, 0.0] for _ in range(_SLOTS)]
        self.past = [0.0, 0.0]

    def leave(self, slot: int, keep: float) -> None:
        """A slot's time is over: it goes into the past, of which the share ``keep`` stays."""
        self.past = [held * keep + one for held, one in zip(self.past, self.slots[slot], strict=True)]
        self.slots[slot] = [0.0, 0.0]

    def fell(self, drop: float, enough: int) -> bool:
        """Whether the mean is that share lower than what it used to be."""
        count, (past, whole) = sum(slot[0] for slot in self.slots), self.past
        if count < enough or past < enough:
            return False
        before = whole / past
        return sum(slot[1] for slot in self.slots) / count < before - drop * abs(before)


def _quantile(bins: list[int] | list[float], count: float, q: float) -> float:
    """The milliseconds below which the share ``q`` of the calls lies: the middle of the bin where it is reached."""
    wanted, seen, at = q * count, 0.0, 0
    for at, held in enumerate(bins):  # noqa: B007 - the last bin, where rounding leaves a rest
        seen += held
        if held and seen >= wanted:
            break
    return 2.0 ** ((at - _FIRST + 0.5) / _PER_DOUBLING)


class Vitals:
    """One model's calls, and its circuit.

    The circuit opens when the share of faults reaches ``errors``. After ``cooldown`` it is half open: one call at a
    time passes as a probe; a fault opens it again, any other answer closes it (Nygard, Release It!, 2007).

    Args:
        limits: see there.
        now: ``time.monotonic()``.
    """

    __slots__ = (
        *("_counts", "_judged", "_limits", "_lock", "_opened", "_probing", "_scores", "_slot", "_sums"),
        *("first", "in_flight", "latency", "seen"),
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._lock = threading.Lock()  # an App runs in any number of threads
        self._slot = int(now * _SLOTS / limits.window)
        self._counts = [[0, 0, 0, 0] for _ in range(_SLOTS)]  # by slot: ok, fault, limited, other
        self._sums = [0, 0, 0, 0]
        self._scores: dict[str, Scores] = {}
        self._opened: float | None = None
        self._probing = False
        self._judged: tuple[float, tuple[str, ...]] = (-math.inf, ())
        self.latency, self.first = Latencies(), Latencies()
        self.in_flight = 0
        self.seen = now

    # -- calls ------------------------------------------------------------------------------------

    def admit(self, now: float) -> Admission:
        """May a call begin? If so it is counted as in the air, and ``end`` has to follow."""
        with self._lock:
            self.seen = now
            if self._opened is not None:
                if self._probing or now < self._opened + self._limits.cooldown:
                    return "refused"
                self._probing = True
            self.in_flight += 1
            return "pass" if self._opened is None else "probe"

    def end(
        self, now: float, outcome: Outcome, admitted: Admission, *, ms: float | None = None, first: float | None = None
    ) -> None:
        """A call is over.

        Args:
            now: ``time.monotonic()``.
            outcome: "unknown" says nothing about the model: the caller left, or it was never asked.
            admitted: what ``admit`` said.
            ms: what a whole answer took.
            first: what the first token of a stream took.
        """
        with self._lock:
            self.in_flight -= 1
            if admitted == "probe":
                self._probing = False
            if outcome == "unknown":
                return
            slot = self._roll(now)
            if ms is not None:
                self.latency.add(slot, ms)
            if first is not None:
                self.first.add(slot, first)
            if admitted == "probe":
                self._probed(now, fault=outcome == "fault")
            at = _OUTCOMES[outcome]
            self._counts[slot][at] += 1
            self._sums[at] += 1
            if outcome == "fault" and self._opened is None and self._limits.breaks:
                calls = sum(self._sums)
                if calls >= self._limits.minimum and self._sums[1] >= self._limits.errors * calls:
                    self._opened = now
                    self._judged = (-math.inf, ())

    def score(self, now: float, metric: str, value: float) -> None:
        """A metric judged an answer of this model. Each has its own scale; those beyond the first few are not kept."""
        with self._lock:
            slot = self._roll(now)
            scores = self._scores.get(metric)
            if scores is None:
                if len(self._scores) >= _METRICS:
                    return
                scores = self._scores[metric] = Scores()
            scores.slots[slot][0] += 1
            scores.slots[slot][1] += value

    # -- what they say ----------------------------------------------------------------------------

    def state(self, now: float) -> State:
        """Open while no call may pass; degraded also while the next may, to try."""
        with self._lock:
            opened = self._opened
            if opened is not None:
                shut = self._probing or now < opened + self._limits.cooldown
                return "open" if shut else "degraded"
            return "degraded" if self._why(now) else "ok"

    def why(self, now: float) -> tuple[str, ...]:
        """What is wrong: "open", "errors", "limited", "latency", "score"."""
        with self._lock:
            return ("open",) if self._opened is not None else self._why(now)

    def left(self, now: float) -> float:
        """Seconds until an open circuit lets a call pass."""
        opened = self._opened
        return 0.0 if opened is None else max(0.0, opened + self._limits.cooldown - now)

    def counts(self, now: float) -> tuple[int, int]:
        """Calls that ended in the last seconds, and the faults among them."""
        with self._lock:
            self._roll(now)
            return sum(self._sums), self._sums[1]

    def quantile(self, now: float, q: float, *, first: bool = False) -> float | None:
        """A latency in milliseconds; None where too few calls are known."""
        with self._lock:
            self._roll(now)
            return (self.first if first else self.latency).quantile(q, self._limits.minimum)

    # -- inside, under the lock -------------------------------------------------------------------

    def _probed(self, now: float, *, fault: bool) -> None:
        self._opened = now if fault else None
        self._judged = (-math.inf, ())
        if not fault:  # what opened it is over: the next fault must not open it again by itself
            self._counts = [[0, 0, 0, 0] for _ in range(_SLOTS)]
            self._sums = [0, 0, 0, 0]

    def _why(self, now: float) -> tuple[str, ...]:
        judged, said = self._judged
        if now - judged < _JUDGED_FOR:
            return said
        self._roll(now)
        limits, calls = self._limits, sum(self._sums)
        found: list[str] = []
        if calls >= limits.minimum and self._sums[1] >= max(1.0, limits.errors / 2 * calls):
            found.append("errors")
        if calls >= limits.minimum and self._sums[2] >= max(1.0, limits.errors * calls):
            found.append("limited")
        if any(one.slower(limits.slow, limits.minimum) for one in (self.latency, self.first)):
            found.append("latency")
        if any(one.fell(limits.drop, limits.minimum) for one in self._scores.values()):
            found.append("score")
        self._judged = (now, tuple(found))
        return self._judged[1]

    def _roll(self, now: float) -> int:
        """The present slot of the ring, after those whose time is over have left it."""
        present = int(now * _SLOTS / self._limits.window)
        passed = present - self._slot
        if passed > 0:
            width = self._limits.window / _SLOTS
            for step in range(min(passed, _SLOTS)):
                # what lies idle longer than the whole ring forgets for all of that time, once
                idle = width * (passed - _SLOTS + 1 if step == 0 and passed > _SLOTS else 1)
                self._leave((self._slot + 1 + step) % _SLOTS, 0.5 ** (idle / _HALF_LIFE))
            self._slot = present
        return self._slot % _SLOTS

    def _leave(self, slot: int, keep: float) -> None:
        self.latency.leave(slot, keep)
        self.first.leave(slot, keep)
        for at, gone in enumerate(self._counts[slot]):
            self._sums[at] -= gone
        self._counts[slot] = [0, 0, 0, 0]
        for scores in self._scores.values():
            scores.leave(slot, keep)


_OUTCOMES: Final[dict[Outcome, int]] = {"ok": 0, "fault": 1, "limited": 2, "other": 3}
