"""What keys, limits and budgets cost a call, on each store that counts.

    python benchmarks/govern.py --json out.json

A call here is `Policy.decide(ctx, "infer", ...)` for a key with a requests-a-minute limit, a daily budget and a
tenant's monthly budget (two accounts), one turn of the loop or 2 ms in place of a model, and `lease.settle(used)`. Its
CPU is this process's, all threads, less that of the same loop without the two; what PostgreSQL and Redis use
themselves is not in it. `decide_us` is the time from the question to its answer. A key's check (`authenticate`) stands
alone, and so does a caller without limits.

The bar: at 8 in flight on SQLite at most 50 us of CPU for take and settle together.

PostgreSQL and Redis are those of the tests, unless KAIZEN_TEST_DATABASE_URL and KAIZEN_TEST_REDIS_URL name others; with
`--stores sqlite` they are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.lab import report, summary  # noqa: E402 - the path has to be set first
from kaizen.core.context import Context, Run, Runtime  # noqa: E402
from kaizen.core.identity import NANO, Limits, Quota  # noqa: E402
from kaizen.core.ids import new_id  # noqa: E402
from kaizen.core.protocols import Allow, Need  # noqa: E402
from kaizen.core.scope import Scope  # noqa: E402
from kaizen.govern.keys import Keys  # noqa: E402
from kaizen.govern.policy import Govern, Rules  # noqa: E402
from kaizen.stores.govern.sqlite_keys import SqliteKeys  # noqa: E402
from kaizen.stores.govern.sqlite_quota import SqliteQuota  # noqa: E402

SCOPE = Scope("acme", "prod")
NEED, USED = Need(1, 1500, 0.004), Need(1, 300, 0.0007)
MOST = Limits(requests_per_minute=10**9, usd_per_day=9_000_000 * NANO)
TENANT = Limits(usd_per_month=9_000_000 * NANO)
BAR_US = 50.0


class House:
    """A Govern on a store, with a key."""

    def __init__(self, quota: Quota, folder: Path) -> None:
        self.quota = quota
        self.keys = Keys(SqliteKeys(folder / f"{new_id()}.db"))
        self.policy = Govern(keys=self.keys, quota=quota, rules=Rules(tenant=TENANT))
        self.free = Govern(keys=self.keys, quota=quota, rules=Rules())

    async def open(self) -> None:
        issued = await self.keys.create(SCOPE, limits=MOST)
        self.secret = issued.secret
        self.ctx = call(f"key:{issued.key.id}")
        self.unlimited = call(f"key:{(await self.keys.create(SCOPE)).key.id}")
        await self.one(0.0, [])

    async def one(self, model_s: float, waits: list[float]) -> None:
        start = time.perf_counter()
        decision = await self.policy.decide(self.ctx, "infer", "mine/large", NEED)
        waits.append(time.perf_counter() - start)
        await asyncio.sleep(model_s)
        assert isinstance(decision, Allow)
        assert decision.lease is not None
        await decision.lease.settle(USED)

    async def close(self) -> None:
        await self.quota.close()
        await self.keys.close()


def call(principal: str) -> Context:
    runtime: Any = None
    return Context(Run(runtime=cast("Runtime", runtime), scope=SCOPE, run_id="run", principal=principal))


async def cpu_us(work: Callable[[], Awaitable[None]], calls: int, flight: int) -> float:
    """CPU of this process for each of ``calls``, ``flight`` at a time."""

    async def lane() -> None:
        for _ in range(calls // flight):
            await work()

    start = time.process_time()
    await asyncio.gather(*(lane() for _ in range(flight)))
    return (time.process_time() - start) / (calls // flight * flight) * 1e6


async def measure(make: Callable[[], Quota], folder: Path, flight: int, model_s: float, how: argparse.Namespace) -> Any:
    house = House(make(), folder)
    await house.open()
    waits: list[float] = []

    async def nothing() -> None:
        waits.append(time.perf_counter())
        await asyncio.sleep(0)
        await asyncio.sleep(model_s)

    figures: list[float] = []
    decided: list[float] = []
    calls = how.calls if not model_s else min(how.calls, 250 * flight)
    for _ in range(how.rounds):
        waits.clear()
        base = await cpu_us(nothing, calls, flight)
        waits.clear()
        figures.append(await cpu_us(lambda: house.one(model_s, waits), calls, flight) - base)
        decided += waits
    (standing,) = await house.quota.standing(SCOPE, [house.ctx.run.principal])
    done = how.rounds * (calls // flight * flight) + 1
    assert standing.usd_day == done * round(USED.usd * NANO), "the count is wrong"
    await house.close()
    cuts = statistics.quantiles(decided, n=100)
    return {"cpu_us": summary(figures), "decide_us": {"p50": round(cuts[49] * 1e6), "p99": round(cuts[98] * 1e6)}}


async def alone(folder: Path, how: argparse.Namespace) -> Any:
    """A key's check, and the decision about a caller whom nothing limits."""
    house = House(SqliteQuota(folder / f"{new_id()}.db"), folder)
    await house.open()

    async def check() -> None:
        await house.keys.authenticate(house.secret)

    async def free() -> None:
        await house.free.decide(house.unlimited, "infer", "mine/large", NEED)

    found: dict[str, Any] = {}
    for name, work in (("authenticate", check), ("without_limits", free)):
        found[name] = summary([await cpu_us(work, how.calls, 1) for _ in range(how.rounds)], digits=2)
    await house.close()
    return found


@contextmanager
def stores(names: list[str], folder: Path) -> Iterator[dict[str, Callable[[], Quota]]]:
    """The stores that count, each on real servers."""
    from tests import services

    running: list[Any] = []
    made: dict[str, Callable[[], Quota]] = {}

    def address(fixture: Any) -> str:
        running.append(fixture.__wrapped__())  # what pytest would run
        return next(running[-1])

    try:
        for name in names:
            if name == "sqlite":
                made[name] = lambda: SqliteQuota(folder / f"{new_id()}.db")
            elif name == "postgres":
                from kaizen.stores.govern.postgres_quota import PostgresQuota

                made[name] = partial(PostgresQuota, address(services.postgres_url), schema=f"b_{new_id()}")
            else:
                from kaizen.stores.govern.redis_quota import RedisQuota

                made[name] = partial(RedisQuota, address(services.redis_url), prefix=new_id())
        yield made
    finally:
        for one in running:
            next(one, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", default="sqlite,postgres,redis")
    parser.add_argument("--flights", default="1,8,64")
    parser.add_argument("--calls", type=int, default=8000, help="in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    how = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, stores(how.stores.split(","), Path(name)) as made:
        folder = Path(name)
        figures["alone_us"] = asyncio.run(alone(folder, how))
        for store, make in made.items():
            for flight in map(int, how.flights.split(",")):
                for model_s in (0.0, 0.002):
                    key = f"{store}, {flight} in flight, {'an instant' if not model_s else '2 ms'} model"
                    figures[key] = asyncio.run(measure(make, folder, flight, model_s, how))
                    sys.stderr.write(f"{key}: {figures[key]}\n")
    bar = {key: figures[key]["cpu_us"]["median"] <= BAR_US for key in figures if key.startswith("sqlite, 8 ")}
    report({"bar_us": BAR_US, "bar_met": bar, "figures": figures}, seed=7, file=how.json)


if __name__ == "__main__":
    main()
