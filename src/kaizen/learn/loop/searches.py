"""Proposals that are being made: each a task of its own, so that the watch over the program goes on meanwhile."""

from __future__ import annotations

import asyncio
from typing import Final

from kaizen.core.scope import Scope
from kaizen.learn.loop.seams import Proposal, Proposer, Wanted

TOGETHER: Final = 2
"""How many searches go on at a time."""


class Searches:
    """The searches of a ``Loop``: one for each program at most, and two at a time; further ones wait their turn.

    Args:
        turns: of those that go on at a time, where several loops share them; None makes two of its own.
    """

    def __init__(self, turns: asyncio.Semaphore | None = None) -> None:
        self._going: dict[tuple[Scope, str], tuple[str, asyncio.Task[Proposal]]] = {}
        self._turns = asyncio.Semaphore(TOGETHER) if turns is None else turns

    async def found(self, scope: Scope, wanted: Wanted, propose: Proposer, *, waits: bool) -> Proposal | None:
        """What was proposed; None while it is looked for. The search is begun if it was not, or has failed.

        Args:
            scope: whose.
            wanted: the proposal.
            propose: makes it.
            waits: whether to wait until there is one.

        Raises:
            KaizenError: as the search does.
        """
        key = (scope, wanted.plan.program)
        run_id, search = self._going.get(key, ("", None))
        if search is None or run_id != wanted.run_id:
            await self.end(scope, wanted.plan.program)
            search = asyncio.ensure_future(self._made(propose, wanted))
            self._going[key] = (wanted.run_id, search)
        if not waits and not search.done():
            return None
        try:
            return await search
        finally:
            self._going.pop(key, None)

    async def end(self, scope: Scope, program: str) -> None:
        """Break off the search for a program, if there is one; it can be gone on with."""
        _, search = self._going.pop((scope, program), ("", None))
        if search is not None:
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)

    async def close(self) -> None:
        """Break off all of them."""
        await asyncio.gather(*(self.end(scope, program) for scope, program in list(self._going)))

    async def _made(self, propose: Proposer, wanted: Wanted) -> Proposal:
        async with self._turns:
            return await propose(wanted)
