"""A worker that takes and settles until it is told to stop: what it took goes to standard output, a line for each.

    python governing.py KIND WHERE LEASE LIMITS TASKS SECONDS

KIND is sqlite, postgres or redis; LIMITS is JSON. With SECONDS 0 each task takes once and holds on.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from kaizen.core.identity import Amount, Claim, Limits, Quota, Taken
from kaizen.core.scope import Scope

SCOPE = Scope("acme", "prod")
CALL = Amount(1, 10, 1_000_000)


def open_quota(kind: str, where: str, lease: float) -> Quota:
    """A view of the accounts that lie there."""
    if kind == "sqlite":
        from kaizen.stores.govern.sqlite_quota import SqliteQuota

        return SqliteQuota(Path(where), lease=lease)
    url, _, name = where.rpartition("#")
    if kind == "postgres":
        from kaizen.stores.govern.postgres_quota import PostgresQuota

        return PostgresQuota(url, schema=name, lease=lease)
    from kaizen.stores.govern.redis_quota import RedisQuota

    return RedisQuota(url, prefix=name, lease=lease)


async def main(kind: str, where: str, lease: str, limits: str, tasks: str, seconds: str) -> None:
    quota = open_quota(kind, where, float(lease))
    claims = [Claim("key:1", Limits(**json.loads(limits)))]
    end = time.monotonic() + float(seconds)

    async def hammer() -> None:
        while True:
            taken = await quota.take(SCOPE, claims, CALL)
            if isinstance(taken, Taken):
                sys.stdout.write("taken\n")
                sys.stdout.flush()
                if not float(seconds):  # it holds on to what it took
                    await asyncio.sleep(3600)
                await quota.settle(taken, CALL)
            elif end <= time.monotonic():
                return
            else:
                await asyncio.sleep(0.002)
            if float(seconds) and end <= time.monotonic():
                return

    await asyncio.gather(*(hammer() for _ in range(int(tasks))))
    await quota.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
