"""A process that appends to a store without end: ``python appending.py FILE NAME``.

It prints the id of each record after its append has returned. A payload goes with each.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from kaizen.core.ids import new_id
from kaizen.core.record import Payload, Record
from kaizen.core.scope import LOCAL
from kaizen.stores.sqlite import SqliteStore


async def append(store: SqliteStore, name: str) -> None:
    while True:
        record = Record(id=new_id(), kind="program", ref=name, run_id=name, scope=LOCAL, started_at=time.time())
        start = time.perf_counter()
        await store.append(LOCAL, [record], [Payload(record.id, record.id.encode() * 10)])
        # One write, so that a kill tears at most the last line.
        os.write(1, f"{record.id} {time.perf_counter() - start}\n".encode())


async def main(path: str, name: str) -> None:
    store = SqliteStore(Path(path))
    await asyncio.gather(*[append(store, name) for _ in range(4)])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
