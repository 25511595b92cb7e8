"""A policy that asks before a program runs: the run suspends, and goes on once somebody has said yes."""

from __future__ import annotations

from kaizen.core.context import Context
from kaizen.core.protocols import Allow, Ask, Decision, Need


class Approval:
    def __init__(self, dangerous: set[str]) -> None:
        self.dangerous = dangerous
        self.approved: set[tuple[str, str]] = set()

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Decision:
        if target not in self.dangerous or (ctx.run.run_id, ctx.step) in self.approved:
            return Allow()
        return Ask(f"may {ctx.run.principal or 'anybody'} {action} {target}?")
