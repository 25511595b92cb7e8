"""What every KeyStore promises, as tests. An adapter is done when it passes.

    from kaizen.testing.keys_suite import KeysSuite, Open

    class TestMyKeys(KeysSuite):
        @pytest.fixture
        async def open_store(self): ...

``open_store()`` opens one more view of the same keys, as another worker would. The tests are ``async def``: run them
with anyio's pytest plugin (``anyio_mode = "auto"``).
"""
# ruff: noqa: S101, D102 - these are tests, and their names say what they show

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Final, TypeAlias

import pytest

from kaizen.core.errors import Conflict
from kaizen.core.identity import Key, KeyStore, Limits
from kaizen.core.scope import Scope

Open: TypeAlias = Callable[[], KeyStore]
FULL: Final = Key(
    id="full",
    scope=Scope("acme", "prod"),
    digest=b"\x00d" * 16,
    previous=b"\xffp" * 16,
    previous_until=2e9 + 0.125,
    name="Zoë's '; DROP TABLE keys; --",
    user="zoë",
    scopes=frozenset({"infer", "admin"}),
    models=("openai/*", "embedded/smollm2-135m"),
    exact=False,
    limits=Limits(requests_per_minute=1, tokens_per_minute=2, concurrent=3, usd_per_day=4, usd_per_month=9 * 10**15),
    created_at=1.5,
    expires_at=2.5,
    revoked_at=3.5,
    last_used_at=4.5,
)


def make_key(key_id: str, tenant: str = "acme", created_at: float = 1.0) -> Key:
    """A key with nothing special."""
    return Key(id=key_id, scope=Scope(tenant, "prod"), digest=key_id.encode(), created_at=created_at)


class KeysSuite:
    """Subclass it, and give a fixture ``open_store``."""

    async def test_a_key_comes_back_as_it_went_in(self, open_store: Open) -> None:
        assert all(
            getattr(FULL, one.name) != getattr(make_key("x"), one.name) for one in fields(Key) if one.name != "scope"
        )
        store, plain = open_store(), make_key("plain")
        await store.add(FULL)
        await store.add(plain)
        assert [await open_store().find(name) for name in ("full", "plain", "none")] == [FULL, plain, None]

    async def test_an_id_is_taken_once(self, open_store: Open) -> None:
        store = open_store()
        await store.add(make_key("a"))
        with pytest.raises(Conflict):
            await store.add(replace(FULL, id="a"))
        assert await store.find("a") == make_key("a")

    async def test_keys_are_listed_oldest_first_by_tenant(self, open_store: Open) -> None:
        store = open_store()
        assert list(await store.list(None)) == []
        keys = [make_key("c", "acme", 1), make_key("a", "other", 2), make_key("b", "acme", 3)]
        for key in reversed(keys):
            await store.add(key)
        assert list(await store.list(None)) == keys
        assert [key.id for key in await store.list("acme")] == ["c", "b"]
        assert list(await store.list("nobody")) == []

    async def test_a_key_is_revoked_once_for_all(self, open_store: Open) -> None:
        store, other = open_store(), open_store()
        await store.add(make_key("a"))
        assert await other.revoke("a", 7.0)
        assert not await store.revoke("a", 8.0)
        assert not await store.revoke("none", 8.0)
        assert await store.find("a") == replace(make_key("a"), revoked_at=7.0)
        assert not await store.rotate("a", b"a", b"new", 9.0)

    async def test_of_two_who_rotate_at_once_one_does(self, open_store: Open) -> None:
        store, other = open_store(), open_store()
        await store.add(make_key("a"))
        done = await asyncio.gather(store.rotate("a", b"a", b"one", 5.0), other.rotate("a", b"a", b"two", 5.0))
        assert sorted(done) == [False, True]
        found = await store.find("a")
        digest = b"one" if done[0] else b"two"
        assert found == replace(make_key("a"), digest=digest, previous=b"a", previous_until=5.0)

    async def test_the_last_use_is_the_latest(self, open_store: Open) -> None:
        store = open_store()
        await store.add(make_key("a"))
        await store.touch({"a": 5.0, "none": 6.0})
        await store.touch({"a": 4.0})
        found = await store.find("a")
        assert found is not None
        assert found.last_used_at == 5.0
