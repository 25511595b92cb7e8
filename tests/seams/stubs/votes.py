"""Self-consistency: several samples of one program, and the answer most of them give."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from kaizen.core.answer import Answer
from kaizen.core.context import EVERY, Context, Program
from kaizen.core.params import Params
from kaizen.core.spec import dump


class SelfConsistency:
    def __init__(self, inner: Program, n: int) -> None:
        self.spec, self.inner, self.n = inner.spec, inner, n

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        samples = [Params(temperature=0.7, seed=seed) for seed in range(self.n)]
        branches = [ctx.fork(overrides={EVERY: sample}) for sample in samples]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch.call(self.inner, **inputs)) for branch in branches]
        answers = {dump(task.result().outputs): task.result() for task in tasks}
        votes = Counter(dump(task.result().outputs) for task in tasks)
        return answers[votes.most_common(1)[0][0]]
