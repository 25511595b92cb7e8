"""A cheap program first, a strong one when the cheap one's answer misfits the contract."""

from __future__ import annotations

from typing import Any

from kaizen.core.answer import Answer
from kaizen.core.context import Context, Program
from kaizen.core.errors import OutputInvalid


class Cascade:
    def __init__(self, cheap: Program, strong: Program) -> None:
        self.spec, self.cheap, self.strong = cheap.spec, cheap, strong

    async def __call__(self, ctx: Context, /, **inputs: Any) -> Answer:
        try:
            return await ctx.call(self.cheap, **inputs)
        except OutputInvalid:
            return await ctx.call(self.strong, **inputs)
