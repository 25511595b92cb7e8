"""The servers of the tests are real ones."""

from __future__ import annotations

import asyncpg
from redis.asyncio import Redis


async def test_the_postgresql_carries_pgvector(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        assert await connection.fetchval("SELECT round(('[1,0]'::vector <=> '[0,1]'::vector)::numeric, 3)") == 1
        assert await connection.fetchval("SHOW server_version_num") >= "160000"
    finally:
        await connection.close()


async def test_the_redis_runs_scripts(redis_url: str) -> None:
    client = Redis.from_url(redis_url)
    try:
        assert await client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "services", "here") == b"OK"
        assert await client.get("services") == b"here"
    finally:
        await client.aclose()
