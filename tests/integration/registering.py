"""A process that puts versions: ``python registering.py PLACE FIRST COUNT``; prints the numbers it got."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kaizen.core.artifact import Artifact
from kaizen.core.protocols import Archive
from kaizen.core.scope import LOCAL
from kaizen.stores.registry.postgres import PostgresArchive
from kaizen.stores.registry.sqlite import SqliteArchive


def opened(place: str) -> Archive:
    """The archive at a path, or at ``schema@url``."""
    schema, at, url = place.partition("@postgresql:")
    return PostgresArchive(f"postgresql:{url}", schema=schema) if at else SqliteArchive(Path(place))


async def main() -> None:
    archive = opened(sys.argv[1])
    first, count = int(sys.argv[2]), int(sys.argv[3])
    numbers: list[int] = []
    for body in range(first, first + count):
        made = await archive.put(LOCAL, Artifact("params", "a.B", f"{body}".encode()), author="a", reason="", at=1.0)
        numbers.append(made.number)
    await archive.close()
    print(*numbers)


if __name__ == "__main__":
    asyncio.run(main())
