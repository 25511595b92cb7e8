"""Accounts in PostgreSQL, for many workers and machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from pydantic_core import from_json

from kaizen.core.identity import Refused, Standing
from kaizen.core.scope import Scope
from kaizen.stores.govern.book import Batch, Charged, moment
from kaizen.stores.govern.lanes import GatheringQuota, Outcomes
from kaizen.stores.govern.postgres import Database
from kaizen.stores.govern.wire import accounts_of, batch_json, outcomes

_BATCH: Final = "SELECT quota_batch($1, $2, $3, $4, $5, $6, $7)"
_STANDING: Final = """
    SELECT k.account, a.day, a.usd_day, a.month, a.usd_month, coalesce((
        SELECT sum(calls)::bigint FROM air WHERE tenant = $1 AND account = k.account AND until > $3), 0)
    FROM unnest($2::text[]) WITH ORDINALITY AS k (account, place)
    LEFT JOIN accounts a ON a.tenant = $1 AND a.account = k.account ORDER BY k.place"""


class PostgresQuota(GatheringQuota):
    """Accounts in PostgreSQL. A batch is one statement: a function that locks its rows in one order and does it all.

    The time is the server's. A commit does not wait for the disk: a crash of the database's machine may lose the
    takes of the last half second, as a power loss may with SQLite.

    Args:
        url: the database; it may hold a password and is never shown.
        schema: where its tables are made.
        lease: seconds that calls in the air count after their process died.
        patience: seconds before a take fails.
        clock: Unix seconds, instead of the server's.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "kaizen_govern",
        lease: float = 30.0,
        patience: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(lease)
        self._database = Database(url, schema=schema, patience=patience, lasting=False)
        self._clock = clock

    async def _later(self, batch: Batch) -> Outcomes:
        found = await self._do(batch)
        refused = [place for place, outcome in enumerate(found) if isinstance(outcome, Refused)]
        tenants = None if batch.alive is not None else sorted({batch.takes[place].tenant for place in refused})
        if (tenants is None or tenants) and await self._sweep(tenants) and refused:
            air = dict(batch.air)
            for take, outcome in zip(batch.takes, found, strict=True):
                if isinstance(outcome, Charged):
                    for claim in take.claims:
                        if (key := (take.tenant, claim.account)) in air:
                            air[key] += take.amount.calls
            takes = [batch.takes[place] for place in refused]
            again = await self._do(replace(batch, settles=(), waits=(), takes=takes, air=air, alive=None))
            for place, outcome in zip(refused, again, strict=True):
                found[place] = outcome
        return found

    async def _do(self, batch: Batch) -> list[Charged | Refused]:
        accounts = accounts_of(batch)
        rows = await self._database.fetch(
            _BATCH,
            batch.holder,
            batch.hold_ms,
            [tenant for tenant, _ in accounts],
            [account for _, account in accounts],
            batch_json(batch, accounts).decode(),
            batch.alive is not None,
            self._at(),
        )
        return outcomes(batch, from_json(rows[0][0]))

    async def _sweep(self, tenants: Sequence[str] | None) -> int:
        return (await self._database.fetch("SELECT quota_sweep($1, $2)", tenants, self._at()))[0][0]

    def _at(self) -> int | None:
        return None if self._clock is None else int(self._clock() * 1000)

    async def _standing(self, scope: Scope, accounts: Sequence[str]) -> Sequence[Standing]:
        now = moment((self._clock or time.time)())
        rows = await self._database.fetch(_STANDING, scope.tenant, list(accounts), now.ms)
        return [
            Standing(name, usd_day if day == now.day else 0, usd_month if month == now.month else 0, calls)
            for name, day, usd_day, month, usd_month, calls in rows
        ]

    async def _let_go(self) -> None:
        await self._database.close()
