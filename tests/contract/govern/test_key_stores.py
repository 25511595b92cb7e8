"""Both that keep keys keep what a KeyStore promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kaizen.core.identity import KeyStore
from kaizen.core.ids import new_id
from kaizen.stores.govern.postgres_keys import PostgresKeys
from kaizen.stores.govern.sqlite_keys import SqliteKeys
from kaizen.testing.keys_suite import KeysSuite, Open


class TestSqliteKeys(KeysSuite):
    @pytest.fixture
    async def open_store(self, tmp_path: Path) -> AsyncIterator[Open]:
        opened: list[SqliteKeys] = []

        def opening() -> KeyStore:
            opened.append(SqliteKeys(tmp_path / "home" / "govern.db"))
            return opened[-1]

        yield opening
        for store in opened:
            await store.close()


class TestPostgresKeys(KeysSuite):
    @pytest.fixture
    async def open_store(self, postgres_url: str) -> AsyncIterator[Open]:
        schema, opened = f"keys_{new_id()}", list[PostgresKeys]()

        def opening() -> KeyStore:
            opened.append(PostgresKeys(postgres_url, schema=schema))
            return opened[-1]

        yield opening
        for store in opened:
            await store.close()
