"""An optimizer that finds a nested program's params in the records of a run, and tries others for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from kaizen.core.artifact import Artifact
from kaizen.core.context import Context, Program
from kaizen.core.params import Params
from kaizen.core.protocols import Store
from kaizen.core.record import RecordQuery


class InstructionSearch:
    def __init__(self, store: Store, candidates: Sequence[str]) -> None:
        self.store, self.candidates = store, candidates

    async def propose(
        self, ctx: Context, program: Program, dataset: Sequence[Mapping[str, Any]], metric: Program, /
    ) -> Sequence[Artifact]:
        await ctx.call(program, **dataset[0])
        query = RecordQuery(run_id=ctx.run.run_id, kind="program")
        records = [record async for record in self.store.records(ctx.scope, query)]
        found: list[tuple[float, Artifact]] = []
        for name in sorted({record.ref for record in records if record.params is not None}):
            for text in self.candidates:
                params = Params(instructions=text)
                branch = ctx.fork(overrides={name: params})
                answers = [await branch.call(program, **row) for row in dataset]
                scores = [await ctx.call(metric, **answer.outputs) for answer in answers]
                total = sum(float(score.outputs["score"]) for score in scores)
                found.append((total, Artifact("params", name, to_json(params))))
        return [artifact for _, artifact in sorted(found, key=lambda one: -one[0])]
