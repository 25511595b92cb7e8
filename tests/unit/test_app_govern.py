"""What the settings make of keys, tokens and limits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from kaizen.app.govern import Governance, make_govern
from kaizen.core.errors import ConfigError, Unauthenticated
from kaizen.core.identity import NANO, Limits
from kaizen.core.protocols import Allow
from kaizen.core.scope import Scope
from kaizen.settings import load_settings
from kaizen.stores.govern.postgres_keys import PostgresKeys
from kaizen.stores.govern.postgres_quota import PostgresQuota
from kaizen.stores.govern.redis_quota import RedisQuota
from kaizen.stores.govern.sqlite_keys import SqliteKeys
from kaizen.stores.govern.sqlite_quota import SqliteQuota
from tests.unit.govern.keys import call

SECRET = "a shared secret of 32 bytes or more"
JWT = {"secret_env": "JWT_SECRET", "issuer": "us", "audience": "kaizen"}


def governed(folder: Path, environ: dict[str, str] | None = None, **tree: Any) -> Governance:
    return make_govern(load_settings(folder, {}, {"home": str(folder / "home"), **tree}), environ or {})


@pytest.mark.parametrize(
    ("storage", "keys", "quota"),
    [
        ({}, SqliteKeys, SqliteQuota),
        ({"database_url": "postgresql://h/d"}, PostgresKeys, PostgresQuota),
        ({"redis_url": "redis://h"}, SqliteKeys, RedisQuota),
        ({"database_url": "postgresql://h/d", "redis_url": "redis://h"}, PostgresKeys, RedisQuota),
    ],
)
async def test_the_settings_say_where_it_lies(tmp_path: Path, storage: dict[str, str], keys: type, quota: type) -> None:
    govern = governed(tmp_path, storage=storage)
    assert type(govern.keys._store) is keys
    assert type(govern.quota) is quota
    assert not (tmp_path / "home").exists()  # nothing is opened before the first call
    await govern.close()


async def test_limits_come_from_the_settings(tmp_path: Path) -> None:
    govern = governed(
        tmp_path,
        limits={
            "key": {"requests_per_minute": 6},
            "user": {"tokens_per_minute": 100},
            "tenant": {"concurrent": 3, "usd_per_day": 0.1},
            "tenants": {"acme": {"usd_per_day": 0.3}},
        },
    )
    issued = await govern.keys.create(Scope("acme", "prod"), user="zoe")
    decision = await govern.policy.decide(call(f"key:{issued.key.id}"), "infer", "a/b", None)
    assert "price is not known" in str(decision)
    rules = govern.policy._rules  # type: ignore[attr-defined]
    assert (rules.key, rules.user) == (Limits(requests_per_minute=6), Limits(tokens_per_minute=100))
    assert rules.tenants["acme"].over(rules.tenant) == Limits(concurrent=3, usd_per_day=3 * NANO // 10)
    assert (tmp_path / "home" / "govern.db").stat().st_mode & 0o777 == 0o600
    await govern.close()


async def test_tokens_are_taken_where_the_settings_say_so(tmp_path: Path) -> None:
    claims = {"sub": "zoe", "tenant": "acme", "iss": "us", "aud": "kaizen", "exp": int(time.time()) + 60}
    token = jwt.encode(claims, SECRET, "HS256")
    closed = governed(tmp_path)
    with pytest.raises(Unauthenticated):
        await closed.authenticator.authenticate(token)
    taken = governed(
        tmp_path,
        {"JWT_SECRET": SECRET},
        environment="prod",
        auth={"jwt": JWT | {"models": ["mine/*"], "scopes": ["metrics"]}},
    )
    identity = await taken.authenticator.authenticate(token)
    assert (identity.scope, identity.principal) == (Scope("acme", "prod"), "user:zoe")
    assert (identity.models, identity.scopes) == (("mine/*",), {"metrics"})
    assert await taken.policy.decide(call("user:zoe"), "infer", "mine/a", None) == Allow()
    assert await taken.policy.decide(call("user:zoe"), "infer", "other/a", None) != Allow()
    issued = await taken.keys.create(Scope("acme", "prod"))
    assert (await taken.authenticator.authenticate(issued.secret)).principal == f"key:{issued.key.id}"
    await taken.close()
    await closed.close()


def test_tokens_without_a_way_to_check_them_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"JWT_SECRET is not set: auth\.jwt\.secret_env"):
        governed(tmp_path, auth={"jwt": JWT})
    with pytest.raises(ConfigError, match="32 bytes"):
        governed(tmp_path, {"JWT_SECRET": "short"}, auth={"jwt": JWT})
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        governed(tmp_path, auth={"jwt": {"jwks_file": "nowhere.json", "issuer": "us", "audience": "kaizen"}})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"issuer": None}, "an issuer and an audience"),
        ({"audience": None}, "an issuer and an audience"),
        ({"jwks_file": "keys.json"}, "not both"),
        ({"algorithms": ["HS256", "RS256"]}, "none of them with jwks_file"),
        ({"algorithms": ["HS256"], "secret_env": None, "jwks_file": "keys.json"}, "none of them with jwks_file"),
        ({"algorithms": ["none"]}, "algorithms"),
    ],
)
def test_settings_of_tokens_that_would_be_unsafe_are_mistakes(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        governed(tmp_path, {"JWT_SECRET": SECRET}, auth={"jwt": JWT | changes})
