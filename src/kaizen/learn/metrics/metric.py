"""A metric by its name."""

from __future__ import annotations

import difflib
from typing import Final

from kaizen.core.context import Program
from kaizen.core.errors import ConfigError
from kaizen.core.spec import Spec
from kaizen.learn.metrics.judge import Judge
from kaizen.learn.metrics.likeness import Likeness
from kaizen.learn.metrics.named import NAMED
from kaizen.learn.metrics.objective import objective
from kaizen.learn.metrics.taken import TAKEN, reading

METRICS: Final = (*NAMED, *TAKEN, "similarity", "judge")
_SEVERAL: Final = frozenset(",<>*")


def metric(name: str, spec: Spec) -> Program:
    """The metric of a name, or of several with weights and bounds, for answers of one contract.

    Args:
        name: such as ``accuracy``, ``f1:slots``, ``numeric:0.05``, ``judge:provider/model``, or
            ``0.7*accuracy, 0.3*rouge, cost_usd < 0.01``.
        spec: the contract of the program whose answers it judges.

    Raises:
        ConfigError: there is none of that name, or it can't judge such answers.
    """
    if _SEVERAL & set(name):
        return objective(name, lambda one: metric(one, spec))
    plain, _, argument = name.strip().partition(":")
    if plain in NAMED:
        return NAMED[plain](spec, argument)
    if plain in TAKEN:
        return reading(plain, spec, argument)
    if plain == "similarity":
        return Likeness(spec, argument)
    if plain == "judge":
        return Judge(spec, argument)
    near = difflib.get_close_matches(plain, METRICS, n=1)
    advice = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"there is no metric {plain!r}{advice}; metrics: {', '.join(METRICS)}, or FILE.py:Name")
