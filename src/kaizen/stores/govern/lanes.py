"""Takes and settles of one event loop, gathered into batches: what all adapters that count have in common."""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, Future, Task, TimerHandle
from collections.abc import Sequence
from itertools import chain
from typing import Final, TypeAlias

from kaizen.core.errors import StoreError
from kaizen.core.identity import Amount, Claim, Refused, Standing, Taken
from kaizen.core.scope import Scope
from kaizen.stores.govern.book import Batch, Charged, SettleOp, TakeOp, WaitOp, minus

_logger = logging.getLogger(__name__)

Outcomes: TypeAlias = Sequence[Charged | Refused]

_GROUP: Final = 256
_GATHER_S: Final = 0.005
_TRIES: Final = 3  # turns of the loop, before somebody else's lock is waited for on a thread
_NOTHING: Final = Amount()


class _Take:
    """One call of ``take`` that waits for its outcome."""

    __slots__ = ("done", "op", "scope")

    def __init__(self, scope: Scope, op: TakeOp, done: Future[Taken | Refused]) -> None:
        self.scope, self.op, self.done = scope, op, done


class _Lane:
    """What one event loop has to tell the store, and what it has in the air."""

    __slots__ = (
        "air",
        "beat",
        "beating",
        "changed",
        "holder",
        "loop",
        "number",
        "scheduled",
        "settles",
        "takes",
        "task",
        "timer",
        "tries",
        "waiting",
        "waits",
    )

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.holder = secrets.token_hex(8)
        self.number = 0
        self.takes: list[_Take] = []
        self.settles: list[SettleOp] = []
        self.waits: list[tuple[WaitOp, Future[None]]] = []
        self.air: dict[tuple[str, str], int] = {}
        self.changed: set[tuple[str, str]] = set()  # accounts whose calls in the air the store knows too many of
        self.waiting: dict[str, str] = {}  # calls that are not sent yet, and their tenants
        self.scheduled = False
        self.task: Task[None] | None = None  # the batch that is under way elsewhere
        self.tries = 0
        self.timer: TimerHandle | None = None
        self.beat: TimerHandle | None = None
        self.beating = False

    @property
    def idle(self) -> bool:
        return self.task is None and not (self.takes or self.settles or self.waits or self.beating)


class GatheringQuota(ABC):
    """A Quota that tells its store in batches, one at a time from each event loop.

    All takes of a turn of the loop, and what was settled since the last batch, are one step for the store. Settles
    alone wait 5 ms for a take to go with. While a batch is under way elsewhere the next one gathers, so the busier
    the loop, the larger its batches.

    A batch of which nobody knows whether it was done is not tried again: its takes fail and its settles stay
    charged in full, so that no budget is ever passed for it.

    Args:
        lease: seconds that calls in the air, and those not sent, count after the last word of this loop.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._lanes: dict[AbstractEventLoop, _Lane] = {}
        self._closed = False

    # -- the seam -----------------------------------------------------------------------------------

    async def take(self, scope: Scope, claims: Sequence[Claim], amount: Amount, /) -> Taken | Refused:
        """Take the amount from every account, or nothing from any, in one step."""
        lane = self._lane()
        take = _Take(scope, TakeOp(scope.tenant, tuple(claims), amount), lane.loop.create_future())
        lane.takes.append(take)
        self._schedule(lane)
        try:
            return await take.done
        except asyncio.CancelledError:
            if take.done.done() and not take.done.cancelled() and isinstance(taken := take.done.result(), Taken):
                self._settle(lane, taken, _NOTHING)
            raise

    async def settle(self, taken: Taken, used: Amount, /) -> None:
        """Put what was used in the place of what was taken; counted with the next batch of the loop that took it."""
        if self._closed:
            return  # too late: it stays charged
        holder, loop = taken.id.partition("-")[0], asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None or lane.holder != holder:
            lane = next((one for one in tuple(self._lanes.values()) if one.holder == holder), None)
            if lane is not None and lane.loop is not loop and lane.loop.is_running():
                lane.loop.call_soon_threadsafe(self._settle, lane, taken, used)
                return
        self._settle(self._lane() if lane is None or lane.loop is not loop else lane, taken, used)

    async def wait(self, taken: Taken, /) -> None:
        """Note that the call is not sent yet; when this returns, the store knows."""
        lane = self._lane()
        lane.waiting[taken.id] = taken.scope.tenant
        await self._mark(lane, WaitOp(_back(taken, _NOTHING, taken.id), sent=False))
        self._keep_alive(lane)

    async def sent(self, taken: Taken, /) -> None:
        """Note that the call is about to be sent; when this returns, the store knows."""
        lane = self._lane()
        if lane.waiting.pop(taken.id, None) is not None:
            await self._mark(lane, WaitOp(_back(taken, _NOTHING, taken.id), sent=True))

    async def standing(self, scope: Scope, accounts: Sequence[str], /) -> Sequence[Standing]:
        """How these accounts stand, with all that this loop has settled."""
        await self._drain(self._lane())
        return await self._standing(scope, accounts)

    async def close(self) -> None:
        """Count what is settled, on whichever loop, and let go."""
        if self._closed:
            return
        here = asyncio.get_running_loop()
        own = self._lane()
        for lane in tuple(self._lanes.values()):
            if lane.loop is here:
                continue
            if lane.loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._drain(lane), lane.loop))
            else:  # its loop stopped: nobody else will tell the store
                own.settles += lane.settles
        await self._drain(own)
        self._closed = True
        for lane in self._lanes.values():
            for timer in (lane.timer, lane.beat):
                if timer is not None and lane.loop is here:
                    timer.cancel()
        self._lanes.clear()
        await self._let_go()

    # -- what an adapter does -----------------------------------------------------------------------

    def _now(self, batch: Batch) -> Outcomes | None:
        """Do a batch here on the loop, if that takes next to no time; None where it would not, and nothing was done."""
        del batch
        return None

    @abstractmethod
    async def _later(self, batch: Batch) -> Outcomes:
        """Do a batch; an outcome for each take.

        Raises:
            StoreError: it may have been done or not.
        """

    @abstractmethod
    async def _standing(self, scope: Scope, accounts: Sequence[str]) -> Sequence[Standing]: ...

    @abstractmethod
    async def _let_go(self) -> None: ...

    # -- gathering ----------------------------------------------------------------------------------

    def _lane(self) -> _Lane:
        if self._closed:
            raise StoreError("the count of limits is closed")
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            for old in [old for old in self._lanes if old.is_closed()]:
                self._lanes.pop(old, None)
            lane = self._lanes[loop] = _Lane(loop)
        return lane

    def _schedule(self, lane: _Lane) -> None:
        if not lane.scheduled and lane.task is None:
            lane.scheduled = True
            lane.loop.call_soon(self._flush, lane)

    def _settle(self, lane: _Lane, taken: Taken, used: Amount) -> None:
        """Queue what is to be given back. Whoever calls runs on the lane's loop."""
        amount, tenant = taken.amount, taken.scope.tenant
        if taken.id.startswith(lane.holder):
            for claim in taken.claims:
                if claim.limits.concurrent is not None:
                    key = (tenant, claim.account)
                    lane.air[key] = lane.air.get(key, 0) - amount.calls
                    lane.changed.add(key)
        waiting = lane.waiting.pop(taken.id, None) is not None
        if not waiting and used == amount and not lane.changed:
            return
        lane.settles.append(_back(taken, used, taken.id if waiting else None))
        if lane.timer is None and not lane.scheduled and lane.task is None:
            lane.timer = lane.loop.call_later(_GATHER_S, self._gathered, lane)

    def _gathered(self, lane: _Lane) -> None:
        lane.timer = None
        if lane.settles:
            self._schedule(lane)

    async def _mark(self, lane: _Lane, op: WaitOp) -> None:
        done: Future[None] = lane.loop.create_future()
        lane.waits.append((op, done))
        self._schedule(lane)
        await done

    def _keep_alive(self, lane: _Lane) -> None:
        if lane.beat is None and (lane.air or lane.waiting) and not self._closed:
            lane.beat = lane.loop.call_later(self._lease / 3, self._beat, lane)

    def _beat(self, lane: _Lane) -> None:
        lane.beat = None
        if lane.air or lane.waiting:
            lane.beating = True
            self._schedule(lane)
            self._keep_alive(lane)

    async def _drain(self, lane: _Lane) -> None:
        while not lane.idle:
            if lane.task is not None:
                await asyncio.wait([lane.task])
            else:
                self._schedule(lane)
            await asyncio.sleep(0)

    # -- batches ------------------------------------------------------------------------------------

    def _flush(self, lane: _Lane) -> None:
        """Do the next batch here and now, or begin to do it elsewhere."""
        lane.scheduled = False
        if lane.task is not None or lane.idle or self._closed:
            return
        takes, settles, waits = lane.takes[:_GROUP], lane.settles[:_GROUP], lane.waits[:_GROUP]
        beat, changed = lane.beating, lane.changed
        batch = Batch(
            lane.holder,
            int(self._lease * 1000),
            settles,
            [op for op, _ in waits],
            [take.op for take in takes],
            self._air(lane, takes, beat=beat),
            [(tenant, mark) for mark, tenant in lane.waiting.items()] if beat else None,
        )
        outcomes = self._now(batch)
        if outcomes is None and lane.tries < _TRIES and not beat:
            lane.tries += 1
            self._schedule(lane)
            return
        lane.tries = 0
        lane.changed, lane.beating = set(), False
        del lane.takes[: len(takes)], lane.settles[: len(settles)], lane.waits[: len(waits)]
        if outcomes is not None:
            self._tell(lane, takes, waits, outcomes)
        else:
            lane.task = lane.loop.create_task(self._elsewhere(lane, batch, takes, waits, changed))

    def _air(self, lane: _Lane, takes: Sequence[_Take], *, beat: bool) -> dict[tuple[str, str], int]:
        """This loop's calls in the air, for the accounts of a batch that limit them."""
        keys = set(lane.air) | lane.changed if beat else set(lane.changed)
        for take in takes:
            for claim in take.op.claims:
                if claim.limits.concurrent is not None:
                    keys.add((take.op.tenant, claim.account))
        air = {key: lane.air.get(key, 0) for key in keys}
        for key, calls in air.items():
            if not calls:
                lane.air.pop(key, None)
        return air

    async def _elsewhere(
        self,
        lane: _Lane,
        batch: Batch,
        takes: Sequence[_Take],
        waits: Sequence[tuple[WaitOp, Future[None]]],
        changed: set[tuple[str, str]],
    ) -> None:
        try:
            outcomes = await self._later(batch)
        except asyncio.CancelledError:  # the loop ends
            for waiter in chain((take.done for take in takes), (done for _, done in waits)):
                waiter.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait forever
            lane.changed |= changed
            if batch.settles:
                _logger.warning("%d settled calls stay charged in full: %s", len(batch.settles), error)
            failure = error if isinstance(error, StoreError) else StoreError(f"the count of limits: {error!r}")
            for waiter in chain((take.done for take in takes), (done for _, done in waits)):
                if not waiter.done():
                    waiter.set_exception(failure)
        else:
            self._tell(lane, takes, waits, outcomes)
        finally:
            lane.task = None
            if not lane.idle:
                self._schedule(lane)

    def _tell(
        self, lane: _Lane, takes: Sequence[_Take], waits: Sequence[tuple[WaitOp, Future[None]]], outcomes: Outcomes
    ) -> None:
        for take, outcome in zip(takes, outcomes, strict=True):
            result = outcome if isinstance(outcome, Refused) else self._taken(lane, take, outcome)
            if not take.done.done():
                take.done.set_result(result)
            elif isinstance(result, Taken):  # its caller was cancelled
                self._settle(lane, result, _NOTHING)
        for _, done in waits:
            if not done.done():
                done.set_result(None)
        if lane.air:
            self._keep_alive(lane)
        if not lane.idle:
            self._schedule(lane)

    def _taken(self, lane: _Lane, take: _Take, charged: Charged) -> Taken:
        op = take.op
        for claim in op.claims:
            if claim.limits.concurrent is not None:
                key = (op.tenant, claim.account)
                lane.air[key] = lane.air.get(key, 0) + op.amount.calls
        lane.number += 1
        return Taken(f"{lane.holder}-{lane.number}", take.scope, op.claims, op.amount, charged.day, charged.month)


def _back(taken: Taken, used: Amount, waiting: str | None = None) -> SettleOp:
    """What a call gives back."""
    accounts = tuple([claim.account for claim in taken.claims])
    less = minus(taken.amount, used)
    return SettleOp(taken.scope.tenant, accounts, less, taken.day, taken.month, waiting, taken.amount)
