"""All that count what callers use keep what a Quota promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from kaizen.core.identity import Quota
from kaizen.core.ids import new_id
from kaizen.stores.govern.postgres_quota import PostgresQuota
from kaizen.stores.govern.redis_quota import RedisQuota
from kaizen.stores.govern.sqlite_quota import SqliteQuota
from kaizen.testing.quota_suite import Make, QuotaSuite

Clock: TypeAlias = Callable[[], float] | None


class Opened:
    """Those that a test opened, to be closed after it."""

    def __init__(self, opening: Callable[[Clock, float], Quota]) -> None:
        self._opening, self._all = opening, list[Quota]()

    def __call__(self, clock: Clock = None, *, lease: float = 30.0) -> Quota:
        self._all.append(self._opening(clock, lease))
        return self._all[-1]

    async def close(self) -> None:
        for quota in self._all:
            await quota.close()


class TestSqliteQuota(QuotaSuite):
    @pytest.fixture
    async def make(self, tmp_path: Path) -> AsyncIterator[Make]:
        def opening(clock: Clock, lease: float) -> Quota:
            path = tmp_path / "home" / "govern.db"
            return SqliteQuota(path, lease=lease, clock=clock) if clock else SqliteQuota(path, lease=lease)

        opened = Opened(opening)
        yield opened
        await opened.close()


class TestPostgresQuota(QuotaSuite):
    @pytest.fixture
    async def make(self, postgres_url: str) -> AsyncIterator[Make]:
        schema = f"quota {new_id()}"

        def opening(clock: Clock, lease: float) -> Quota:
            return PostgresQuota(postgres_url, schema=schema, lease=lease, clock=clock)

        opened = Opened(opening)
        yield opened
        await opened.close()


class TestRedisQuota(QuotaSuite):
    @pytest.fixture
    async def make(self, redis_url: str) -> AsyncIterator[Make]:
        prefix = f"test:{new_id()}"

        def opening(clock: Clock, lease: float) -> Quota:
            return RedisQuota(redis_url, prefix=prefix, lease=lease, clock=clock)

        opened = Opened(opening)
        yield opened
        await opened.close()
