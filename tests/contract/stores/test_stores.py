"""Every store keeps what a Store promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kaizen.core.ids import new_id
from kaizen.core.protocols import Store
from kaizen.stores.memory import MemoryStore
from kaizen.stores.postgres.store import PostgresStore
from kaizen.stores.sqlite import SqliteStore
from kaizen.testing.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = MemoryStore()
        yield store
        await store.close()


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = SqliteStore(tmp_path / "home" / "ledger.db")
        yield store
        await store.close()


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        store = PostgresStore(postgres_url, schema=f"test {new_id()}")
        yield store
        await store.close()
