"""A step's answer kept by contract, version and inputs; whoever wraps names the version, since params are inside."""

from __future__ import annotations

from typing import Any

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program
from kaizen.core.ids import digest
from kaizen.core.protocols import Cache
from kaizen.core.spec import dump


class StepCache:
    def __init__(self, inner: Program, cache: Cache, version: str) -> None:
        self.spec, self.inner, self.cache, self.version = inner.spec, inner, cache, version

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        key = digest(dump([self.spec.name, self.spec.contract, self.version, inputs]))
        if (kept := await self.cache.get(ctx.scope, key)) is not None:
            return self.spec.load_answer(kept, inputs)
        answer = await ctx.call(self.inner, **inputs)
        await self.cache.put(ctx.scope, key, dump(answer.outputs))
        return answer
