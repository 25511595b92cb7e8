"""One value for each subject: its calls are correlated, so it counts once, however many there are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class _Open:
    since: float
    n: int = 0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Closed:
    """A subject that counts.

    Args:
        subject: who.
        value: the mean of its values.
        at: when it was closed, Unix seconds.
    """

    subject: str
    value: float
    at: float


class Subjects:
    """Takes values as they come and gives out each subject once, with the mean of its first values.

    A subject is closed with its value number ``most``, or ``window`` seconds after its first value, whichever comes
    first; what comes later is left out. Its value never changes once it counts, and when it is closed depends on the
    subject's own values' times only, so a sequential test of closed subjects stays valid.

    Args:
        most: how many values close a subject.
        window: seconds after the first value.
    """

    __slots__ = ("_done", "_open", "most", "window")

    def __init__(self, most: int, window: float) -> None:
        self.most, self.window = most, window
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._done: set[str] = set()

    def add(self, subject: str, value: float, at: float) -> Sequence[Closed]:
        """Take in one value; the subjects that are closed by now, in the order they were."""
        closed = self.due(at)
        if subject in self._done:
            return closed
        found = self._open.get(subject)
        if found is None:
            found = self._open[subject] = _Open(at)
        found.n += 1
        found.total += value
        return closed if found.n < self.most else [*closed, self._close(subject, at)]

    def due(self, now: float) -> Sequence[Closed]:
        """The subjects whose window has passed, in the order they were opened."""
        closed: list[Closed] = []
        while self._open:
            subject = next(iter(self._open))
            end = self._open[subject].since + self.window
            if end > now:
                break
            closed.append(self._close(subject, end))
        return closed

    @property
    def open(self) -> int:
        """How many have values and do not count yet."""
        return len(self._open)

    def _close(self, subject: str, at: float) -> Closed:
        found = self._open.pop(subject)
        self._done.add(subject)
        return Closed(subject, found.total / found.n, at)
