"""Parameters that a loop may move: named, typed and bounded. Code is never edited."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias

from kaizen.core.context import Context
from kaizen.core.errors import BudgetExceeded, ConfigError, InvalidInput
from kaizen.core.params import NOTHING, Params
from kaizen.core.request import NO_OPTIONS, Options
from kaizen.learn.optimize.board import Board
from kaizen.learn.optimize.task import Candidate, Task
from kaizen.registry.params import save

Value: TypeAlias = int | float | str | bool

TUNING: Final = "tuning"
"""Name of the optimizer that moves them."""

_OPTIONS: Final = "options."
_TYPES: Final[Mapping[str, str]] = {
    **{one.name: str(one.type) for one in fields(Params) if one.name not in ("contract", "demos", "options")},
    **{f"{_OPTIONS}{one.name}": str(one.type) for one in fields(Options)},
}
"""What may be moved, and what it is."""


@dataclass(frozen=True, slots=True)
class Tunable:
    """One parameter: a field of ``Params``, such as ``temperature``, or a wish to a layer, as ``options.semantic``.

    Args:
        name: which.
        low, high: the bounds of a number, both included; whole ones of what can have no other.
        choices: the values it may have, instead of bounds.
    """

    name: str
    low: int | float | None = None
    high: int | float | None = None
    choices: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        bounded = self.low is not None and self.high is not None
        wrong = [
            said
            for holds, said in (
                (self.name not in _TYPES, "is no field of Params, nor of its options"),
                (bounded == bool(self.choices), "needs either bounds or choices"),
                (bounded and not (self.low or 0.0) < (self.high or 0.0), "needs a low bound below the high one"),
            )
            if holds
        ]
        if wrong:
            raise ConfigError(f"the parameter {self.name!r} {' and '.join(wrong)}")
        for value in self.choices or self._bounds():
            try:
                save(self.put(Params(), value))
            except (InvalidInput, ValueError, TypeError) as error:
                raise ConfigError(f"the parameter {self.name!r} can't be {value!r}: {error}") from None

    @property
    def whole(self) -> bool:
        """Whether it counts something."""
        return self.low is not None and "float" not in _TYPES[self.name]

    def check(self, value: Any) -> Value:
        """The value, if it may be one.

        Raises:
            ConfigError: it is out of bounds, or of another type.
        """
        if self.choices:
            if not any(value == choice and type(value) is type(choice) for choice in self.choices):
                raise ConfigError(f"{self.name} = {value!r} is none of {', '.join(map(repr, self.choices))}")
            return value
        low, high = self._bounds()
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not low <= value <= high:
            kind = "a whole number" if self.whole else "a number"
            raise ConfigError(f"{self.name} = {value!r} should be {kind} from {low:g} to {high:g}")
        return value

    def draw(self, rng: random.Random, near: Value | None = None) -> Value:
        """A value: anywhere, or within a tenth of the range of ``near``."""
        if self.choices:
            return rng.choice(self.choices)
        low, high = self._bounds()
        if isinstance(near, int | float) and not isinstance(near, bool):
            reach = max((high - low) / 10, 1.0 if self.whole else 0.0)
            low, high = max(low, near - reach), min(high, near + reach)
        return round(rng.uniform(low, high)) if self.whole else round(rng.uniform(low, high), 6)

    def put(self, params: Params, value: Any) -> Params:
        """Params with this value.

        Raises:
            ConfigError: see ``check``.
        """
        value = self.check(value)
        if self.name.startswith(_OPTIONS):
            wishes = replace(params.options or NO_OPTIONS, **{self.name.removeprefix(_OPTIONS): value})
            return replace(params, options=wishes)
        return replace(params, **{self.name: value})

    def of(self, params: Params) -> Value | None:
        """The value that params have; None where they leave it open."""
        if self.name.startswith(_OPTIONS):
            return getattr(params.options or NO_OPTIONS, self.name.removeprefix(_OPTIONS))
        return getattr(params, self.name)

    def _bounds(self) -> tuple[float, float]:
        if self.low is None or self.high is None:
            raise AssertionError("checked when it was made")
        return self.low, self.high


class Tuning:
    """An optimizer of parameters within their bounds: half of its tries anywhere, then near the best. Is a ``Search``.

    Args:
        tunables: what may be moved.
        tries: how many candidates.
    """

    name = TUNING

    def __init__(self, tunables: Sequence[Tunable], tries: int = 12) -> None:
        self._tunables, self._tries = tuple(tunables), tries

    def estimate(self, task: Task, each: float) -> int:
        """Model calls: every try on every row to choose by."""
        return math.ceil(self._tries * len(task.val) * each)

    async def search(self, ctx: Context, task: Task, board: Board) -> None:
        """Score candidates until the tries or the budget are used up."""
        rng = random.Random(task.seed)  # noqa: S311 - a search, no secret
        for number in range(self._tries):
            local = number >= self._tries // 2
            start = board.best if local else board.start
            made = self._moved(rng, start, task.name, local=local)
            if not board.affords(len(task.val)):
                return
            try:
                await board.score(ctx, made)
            except BudgetExceeded:
                return

    def _moved(self, rng: random.Random, start: Candidate, name: str, *, local: bool) -> Candidate:
        known = start.params.get(name, NOTHING)
        moved = self._tunables if not local else [rng.choice(self._tunables)]
        params, said = NOTHING, list[str]()
        if known.options is not None:
            params = replace(params, options=known.options)
        for tunable in moved:
            value = tunable.draw(rng, tunable.of(known) if local else None)
            params = tunable.put(params, value)
            said.append(f"{tunable.name} = {value}")
        return start.over(name, params, ", ".join(said))
