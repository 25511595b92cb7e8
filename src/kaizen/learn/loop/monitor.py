"""The scores of a program, version by version: what they call for.

No clock, no I/O: read again from the ledger after a restart, the same scores call for the same.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from kaizen.learn.loop.drift import Drift, Level, Probation
from kaizen.learn.loop.plan import Watch

Trigger: TypeAlias = Literal["bad release", "drift", "floor", "failures", "feedback"]

_SURE: Final = 3.3
"""Standard errors that the window's mean has to be under the floor: it is looked at with every score."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Something is called for.

    Args:
        trigger: what calls for it.
        version: the version that ran.
        said: why, with numbers.
        before: the version before it, of a bad release.
    """

    trigger: Trigger
    version: str
    said: str
    before: str = ""


class Monitor:
    """Watches the version that a label shows.

    Args:
        watch: when scores call for something.
        version: what the label shows now.

    Attributes:
        version: what the label shows.
        before: what it showed before, while the version is on probation.
    """

    def __init__(self, watch: Watch, version: str) -> None:
        self._watch = watch
        self.version = version
        self.before: str | None = None
        self._levels: dict[str, Level] = {}
        self._probation: Probation | None = None
        self._drift: Drift | None = None
        self._window: deque[tuple[str, float]] = deque(maxlen=watch.window)

    def released(self, version: str) -> None:
        """The label shows another version from here on."""
        if version == self.version:
            return
        before, self.version = self.version, version
        known = self._levels.get(before)
        self.before = before if known is not None and known.n >= self._watch.least else None
        self._probation = None
        if known is not None and self.before is not None:
            self._probation = Probation(known, harm=self._watch.harm, alpha=self._watch.alpha)
        self._drift = None
        self._window.clear()

    def returned(self, version: str) -> None:
        """The label shows a version again that was there before: it is known, and on no probation."""
        self.version, self.before = version, None
        self._probation = self._drift = None
        self._window.clear()

    def score(self, version: str, subject: str, value: float) -> Signal | None:
        """Take in one score about a call that a version answered; what it calls for.

        Scores of other versions, such as a candidate's in an experiment, are kept as what is known of those.
        """
        level = self._levels.setdefault(version, Level())
        if version != self.version:
            level.add(subject, value)
            return None
        self._window.append((subject, value))
        if self._probation is not None and (found := self._on_probation(subject, value)) is not None:
            level.add(subject, value)
            return found
        return self._drifted(level, subject, value) or self._under_floor()

    # -- how it stands ----------------------------------------------------------------------------

    @property
    def recent(self) -> tuple[int, float | None]:
        """Scores in the window, and their mean."""
        n = len(self._window)
        return n, sum(value for _, value in self._window) / n if n else None

    def known(self, version: str) -> tuple[int, float | None]:
        """How many scores make up what is known of a version, and their mean."""
        level = self._levels.get(version)
        return (0, None) if level is None or not level.n else (level.n, level.mean)

    # -- inside -----------------------------------------------------------------------------------

    def _on_probation(self, subject: str, value: float) -> Signal | None:
        probation, before = self._probation, self.before
        if probation is None or before is None:
            return None
        worse = probation.add(subject, value)
        if probation.n >= self._watch.probation:
            self._probation = self.before = None
        if not worse:
            return None
        n, mean = self.known(before)
        said = (
            f"{probation.mean:.3f} over {probation.n} scores of version {self.version[:12]}, against {mean or 0:.3f} "
            f"over {n} of version {before[:12]} before it (evidence {probation.evidence:.3g})"
        )
        self._probation = None
        return Signal("bad release", self.version, said, before)

    def _drifted(self, level: Level, subject: str, value: float) -> Signal | None:
        if self._drift is None:
            level.add(subject, value)
            if level.n >= max(self._watch.least, self._watch.window):
                self._drift = Drift(level, harm=self._watch.harm, quiet=self._watch.quiet)
            return None
        if not self._drift.add(subject, value):
            return None
        held = self._drift.held
        mean = sum(value for _, value in held) / len(held)
        said = (
            f"{mean:.3f} over the last {len(held)} scores of version {self.version[:12]}, "
            f"against {level.mean:.3f} over {level.n}"
        )
        # what was known holds no longer: from here on this is the level, or the next score would be an alarm, too
        level = self._levels[self.version] = Level()
        for one in held:
            level.add(*one)
        self._drift = None
        return Signal("drift", self.version, said)

    def _under_floor(self) -> Signal | None:
        """Whether the window's mean is under the floor beyond doubt, scores of one subject taken together."""
        floor, n = self._watch.floor, len(self._window)
        if floor is None or n < self._watch.least:
            return None
        mean = sum(value for _, value in self._window) / n
        if mean >= floor:
            return None
        sums: dict[str, float] = {}
        for subject, value in self._window:
            sums[subject] = sums.get(subject, 0.0) + value - mean
        # at the floor scores vary at least as much as ones and zeros of a few would
        error = math.sqrt(max(sum(one * one for one in sums.values()), 1.0)) / n
        if (floor - mean) / error < _SURE:
            return None
        said = f"{mean:.3f} over the last {n} scores of version {self.version[:12]}, under the floor of {floor:g}"
        self._window.clear()
        return Signal("floor", self.version, said)
