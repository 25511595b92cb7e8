"""All that keep versions and labels keep what an Archive promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kaizen.core.ids import new_id
from kaizen.core.protocols import Archive
from kaizen.stores.registry.memory import MemoryArchive
from kaizen.stores.registry.postgres import PostgresArchive
from kaizen.stores.registry.sqlite import SqliteArchive
from kaizen.testing.archive_suite import ArchiveSuite, Open


class TestMemoryArchive(ArchiveSuite):
    @pytest.fixture
    async def open_archive(self) -> AsyncIterator[Open]:
        archive = MemoryArchive()
        yield lambda: archive
        await archive.close()


class TestSqliteArchive(ArchiveSuite):
    @pytest.fixture
    async def open_archive(self, tmp_path: Path) -> AsyncIterator[Open]:
        opened: list[Archive] = []

        def opening() -> Archive:
            opened.append(SqliteArchive(tmp_path / "home" / "registry.db"))
            return opened[-1]

        yield opening
        for archive in opened:
            await archive.close()


class TestPostgresArchive(ArchiveSuite):
    @pytest.fixture
    async def open_archive(self, postgres_url: str) -> AsyncIterator[Open]:
        schema, opened = f"registry {new_id()}", list[Archive]()

        def opening() -> Archive:
            opened.append(PostgresArchive(postgres_url, schema=schema))
            return opened[-1]

        yield opening
        for archive in opened:
            await archive.close()
