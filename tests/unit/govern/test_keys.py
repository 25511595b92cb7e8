"""Keys: what opens, for how long, and what is kept of them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.core.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from kaizen.core.identity import Identity, Limits, permits
from kaizen.core.scope import Scope
from kaizen.govern.keys import Issued, Keys
from tests.unit.govern.keys import OURS, Clock, KeysInMemory


@pytest.fixture
def store() -> KeysInMemory:
    return KeysInMemory()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(store: KeysInMemory, clock: Clock) -> Keys:
    return Keys(store, recheck=0.05, clock=clock)


async def refused(keys: Keys, credential: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await keys.authenticate(credential)
    assert credential == "" or credential not in str(caught.value) + repr(caught.value.detail)
    return str(caught.value)


async def test_a_key_tells_whose_it_is(keys: Keys) -> None:
    issued = await keys.create(
        OURS,
        name="ci",
        scopes=frozenset({"infer", "metrics"}),
        models=["openai/*"],
        exact=False,
        limits=Limits(concurrent=2),
    )
    assert re.fullmatch(r"kz_[0-9a-f]{16}_[0-9A-Za-z]{43}", issued.secret)
    identity = await keys.authenticate(issued.secret)
    assert identity == Identity(OURS, f"key:{issued.key.id}", issued.key.scopes, ("openai/*",), exact=False)
    assert (issued.key.created_at, issued.key.limits) == (1e9, Limits(concurrent=2))


async def test_no_two_keys_are_alike_and_none_opens_for_another(keys: Keys) -> None:
    made = [await keys.create(Scope(f"tenant-{n}")) for n in range(20)]
    assert len({issued.secret for issued in made}) == len({issued.key.id for issued in made}) == 20
    first, second = (issued.secret.split("_") for issued in made[:2])
    await refused(keys, "_".join([*first[:2], second[2]]))
    for issued in made:
        assert (await keys.authenticate(issued.secret)).scope == issued.key.scope


async def test_what_is_kept_does_not_open_and_shows_nothing(keys: Keys, store: KeysInMemory) -> None:
    issued = await keys.create(OURS)
    secret = issued.secret.rpartition("_")[2]
    kept = store.keys[issued.key.id]
    assert secret not in repr(issued) + repr(kept) + repr(keys) + json.dumps(asdict(kept), default=repr)
    assert kept.digest.hex() not in repr(kept)
    assert repr(kept.digest) not in repr(kept)
    await refused(keys, f"kz_{kept.id}_{kept.digest.hex()[:43]}")


@pytest.mark.parametrize(
    "flaw", ["", "kz", "kz__", "sk-1", "kz_../../x", "Bearer kz", "kz_" + "a" * 100, "\ud800", "kz_\x00_"]
)
async def test_what_is_no_key_is_refused_before_anybody_looks(keys: Keys, store: KeysInMemory, flaw: str) -> None:
    assert await refused(keys, flaw) == "the credential is no key of ours"
    assert await refused(keys, f"{flaw}_{'a' * 44}") == "the credential is no key of ours"
    assert store.found == 0


@given(place=st.integers(0, 63), letter=st.characters(codec="utf-8"))
def test_a_key_with_one_letter_changed_opens_nothing(place: int, letter: str) -> None:
    async def work() -> None:
        keys = Keys(KeysInMemory())
        secret = (await keys.create(OURS)).secret
        place_ = place % len(secret)
        if secret[place_] != letter:
            await refused(keys, secret[:place_] + letter + secret[place_ + 1 :])

    asyncio.run(work())


async def test_a_key_expires(keys: Keys, clock: Clock) -> None:
    issued = await keys.create(OURS, expires_at=1e9 + 10)
    clock.now += 9.9
    await keys.authenticate(issued.secret)
    clock.now += 0.1
    assert await refused(keys, issued.secret) == "the key has expired"
    assert not keys.good(issued.key)


async def test_a_revoked_key_opens_nothing_at_once_here_and_soon_elsewhere(keys: Keys, store: KeysInMemory) -> None:
    issued, elsewhere = await keys.create(OURS), Keys(store, recheck=0.05)
    await keys.authenticate(issued.secret)
    await elsewhere.authenticate(issued.secret)
    revoked = await keys.revoke(issued.key.id)
    assert revoked.revoked_at == 1e9
    assert await refused(keys, issued.secret) == "the key is revoked"
    await asyncio.sleep(0.06)
    assert await refused(elsewhere, issued.secret) == "the key is revoked"
    assert (await keys.revoke(issued.key.id)).revoked_at == 1e9
    with pytest.raises(Conflict):
        await keys.rotate(issued.key.id)


async def test_a_rotated_key_may_overlap(keys: Keys, clock: Clock) -> None:
    old = await keys.create(OURS, name="ci")
    new = await keys.rotate(old.key.id, overlap=60)
    assert (new.key.id, new.key.name) == (old.key.id, "ci")
    assert new.secret != old.secret
    for issued in (old, new):
        assert (await keys.authenticate(issued.secret)).principal == f"key:{old.key.id}"
    clock.now += 60
    await keys.authenticate(new.secret)
    assert await refused(keys, old.secret) == "the key is not known"
    newest = await keys.rotate(old.key.id)
    assert await refused(keys, new.secret) == "the key is not known"
    await keys.authenticate(newest.secret)


async def test_a_tenant_reaches_only_its_own(keys: Keys) -> None:
    issued = await keys.create(OURS)
    for act in (keys.revoke, keys.rotate):
        for key_id, tenant in ((issued.key.id, "other"), ("none", "acme"), ("none", None)):
            with pytest.raises(NotFound):
                await act(key_id, tenant=tenant)
    assert [key.id for key in await keys.list("acme")] == [issued.key.id]
    assert list(await keys.list("other")) == []
    await keys.authenticate((await keys.rotate(issued.key.id, tenant="acme")).secret)


async def test_a_checked_key_is_remembered_for_a_moment(keys: Keys, store: KeysInMemory) -> None:
    issued = await keys.create(OURS)
    for _ in range(100):
        await keys.authenticate(issued.secret)
        assert await keys.key(issued.key.id) == store.keys[issued.key.id] or store.touched
    assert store.found == 1
    await asyncio.sleep(0.06)
    await keys.authenticate(issued.secret)
    assert store.found == 2
    del store.keys[issued.key.id]
    await asyncio.sleep(0.06)
    await refused(keys, issued.secret)
    assert await keys.key(issued.key.id) is None


async def test_the_last_use_is_noted_once_a_minute(keys: Keys, store: KeysInMemory, clock: Clock) -> None:
    issued = await keys.create(OURS)
    for seconds in (0, 1, 58, 1, 30):
        clock.now += seconds
        await keys.authenticate(issued.secret)
        await asyncio.sleep(0.06)
    await keys.close()
    assert store.touched == [{issued.key.id: 1e9}, {issued.key.id: 1e9 + 60}]


async def test_nobody_is_turned_away_because_the_last_use_could_not_be_noted(
    keys: Keys, store: KeysInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    issued = await keys.create(OURS)
    store.broken = True
    with caplog.at_level(logging.WARNING):
        await keys.authenticate(issued.secret)
        await keys.close()
    assert "the disk is full" in caplog.text
    assert issued.secret.rpartition("_")[2] not in caplog.text


async def test_many_keys_are_forgotten_rather_than_kept_forever(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.govern.keys._REMEMBERED", 3)
    made: list[Issued] = [await keys.create(OURS) for _ in range(8)]
    for issued in made:
        await keys.authenticate(issued.secret)
    assert len(keys._seen) <= 3
    await keys.close()


@pytest.mark.parametrize(
    "wrong", [{"scopes": frozenset({"infer", "root"})}, {"scopes": frozenset[str]()}, {"user": ""}, {"user": "a\nb"}]
)
async def test_a_key_that_makes_no_sense_is_not_made(keys: Keys, store: KeysInMemory, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        await keys.create(OURS, **wrong)
    assert not store.keys


def test_models_are_allowed_by_name_and_pattern() -> None:
    assert permits(None, "any/thing")
    assert permits(("openai/*", "mine/large"), "openai/gpt-4o")
    assert permits(("mine/large",), "mine/large")
    for model in ("openai", "mine/large2", "MINE/large", "x/openai/gpt"):
        assert not permits(("openai/*", "mine/large"), model)
    assert not permits((), "mine/large")
