"""Whether a metric may decide something, by what was measured of the judges that it asks."""

from __future__ import annotations

import contextlib

from kaizen.core.context import Program
from kaizen.core.errors import NotFound
from kaizen.core.scope import Scope
from kaizen.learn.metrics.judge import KIND, Agreement, agreed_on, check_gate, judges_in
from kaizen.registry.registry import Registry


async def may_decide(registry: Registry, scope: Scope, metric: Program) -> None:
    """Make sure that a metric may decide something: promote, release, let pass.

    Raises:
        Denied: it asks a judge whose agreement with people was not measured, or is too low.
    """
    known: dict[str, Agreement] = {}
    for judge in judges_in(metric):
        name = agreed_on(judge.program, judge.spec.name)
        with contextlib.suppress(NotFound):
            known[name] = Agreement.load((await registry.version(scope, KIND, name)).artifact)
    check_gate(metric, known)
