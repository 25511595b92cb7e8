"""Accounts in Redis, for many workers and machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic_core import from_json, to_json
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from kaizen.core.errors import StoreError
from kaizen.core.identity import Refused, Standing
from kaizen.core.scope import Scope
from kaizen.stores.govern.book import Batch, Charged, moment
from kaizen.stores.govern.lanes import GatheringQuota, Outcomes
from kaizen.stores.govern.redis_script import SCRIPT
from kaizen.stores.govern.wire import accounts_of, batch_json, outcomes
from kaizen.stores.loops import PerLoop

_redis: Any = Redis  # its methods carry half of their types
_KEPT_S: Final = 70 * 86_400  # two months and some: no budget's period outlasts it


class RedisQuota(GatheringQuota):
    """Accounts in Redis. A batch is one script for each tenant; a tenant's keys lie in one slot of a cluster.

    The time is the server's. What was taken is as durable as Redis is set to be: with an append-only file written
    every second, a crash loses a second of it, and with no file a restart forgets all that was spent.

    Args:
        url: the server; it may hold a password and is never shown.
        prefix: what its keys begin with.
        lease: seconds that calls in the air count after their process died.
        patience: seconds before a take fails.
        clock: Unix seconds, instead of the server's.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "kaizen:quota",
        lease: float = 30.0,
        patience: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(lease)
        self._url, self._prefix, self._patience, self._clock = url, prefix, patience, clock
        self._clients = PerLoop(self._open, _end)
        self._sha: str | None = None

    async def _later(self, batch: Batch) -> Outcomes:
        tenants = {take.tenant for take in batch.takes} | {tenant for tenant, _ in (*batch.air, *(batch.alive or ()))}
        tenants |= {op.tenant for op in (*batch.settles, *(wait.back for wait in batch.waits))}
        found: dict[int, Charged | Refused] = {}
        try:
            client = await self._clients.get()
            for tenant in sorted(tenants):
                places = [place for place, take in enumerate(batch.takes) if take.tenant == tenant]
                part = _of(tenant, batch) if len(tenants) > 1 else batch
                found |= zip(places, await self._do(client, tenant, part), strict=True)
        except (RedisError, OSError) as error:
            raise _store_error(error) from None
        return [found[place] for place in range(len(batch.takes))]

    async def _do(self, client: Any, tenant: str, batch: Batch) -> list[Charged | Refused]:
        accounts = accounts_of(batch)
        home = self._home(tenant)
        keys = [f"{home}waiting", f"{home}backs"]
        for _, name in accounts:
            keys += (f"{home}account:{name}", f"{home}air:{name}")
        text = batch_json(batch, accounts)
        if batch.alive:
            text = to_json({**from_json(text), "alive": [mark for _, mark in batch.alive]})
        at = "" if self._clock is None else int(self._clock() * 1000)
        words = (*keys, text, batch.holder, batch.hold_ms, home, at, _KEPT_S)
        if self._sha is None:
            self._sha = await client.script_load(SCRIPT)
        try:
            said = await client.evalsha(self._sha, len(keys), *words)
        except NoScriptError:  # the server was restarted
            said = await client.eval(SCRIPT, len(keys), *words)
        return outcomes(batch, said)

    async def _standing(self, scope: Scope, accounts: Sequence[str]) -> Sequence[Standing]:
        home, now = self._home(scope.tenant), moment((self._clock or time.time)())
        found: list[Standing] = []
        try:
            client: Any = await self._clients.get()
            for name in accounts:
                fields = ("day", "usd_day", "month", "usd_month")
                row = await client.hmget(f"{home}account:{name}", fields)
                day, usd_day, month, usd_month = (int(value or 0) for value in row)
                air = [entry.split(b":") for entry in await client.hvals(f"{home}air:{name}")]
                calls = sum(int(count) for count, until in air if int(until) > now.ms)
                spent = (usd_day if day == now.day else 0, usd_month if month == now.month else 0)
                found.append(Standing(name, *spent, calls))
        except (RedisError, OSError) as error:
            raise _store_error(error) from None
        return found

    def _home(self, tenant: str) -> str:
        return f"{self._prefix}:{{{tenant}}}:"

    async def _open(self) -> Any:
        # Never sent twice: nobody knows whether the first was done.
        return _redis.from_url(
            self._url,
            socket_timeout=self._patience,
            socket_connect_timeout=self._patience,
            retry=Retry(NoBackoff(), 0),
        )

    async def _let_go(self) -> None:
        await self._clients.close()


async def _end(client: Any) -> None:
    await client.aclose()


def _of(tenant: str, batch: Batch) -> Batch:
    """The part of a batch that is one tenant's."""
    return replace(
        batch,
        settles=[op for op in batch.settles if op.tenant == tenant],
        waits=[op for op in batch.waits if op.back.tenant == tenant],
        takes=[op for op in batch.takes if op.tenant == tenant],
        air={key: calls for key, calls in batch.air.items() if key[0] == tenant},
        alive=None if batch.alive is None else [one for one in batch.alive if one[0] == tenant],
    )


def _store_error(error: Exception) -> StoreError:
    text = " ".join((str(error) or type(error).__name__).split())
    return StoreError(f"the Redis of limits: {text}")
