"""Who may call and how much: keys, tokens and limits, joined with the storage that the settings name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaizen.core.identity import Authenticator, KeyStore, Limits, Quota, nano_usd
from kaizen.core.protocols import Policy
from kaizen.govern.keys import Keys
from kaizen.govern.policy import Govern, Rules
from kaizen.settings import Settings, resolve_secret
from kaizen.settings.govern import JwtSettings, LimitTable


@dataclass(frozen=True, slots=True)
class Governance:
    """What the ways in need, to know a caller and to hold them to their limits.

    Args:
        keys: makes, lists, revokes and rotates keys.
        authenticator: tells who a credential belongs to, key or token.
        policy: for ``build(policy=...)``.
        quota: counts.
    """

    keys: Keys
    authenticator: Authenticator
    policy: Policy
    quota: Quota

    async def close(self) -> None:
        """Count what is settled, and let go of the storage."""
        await self.quota.close()
        await self.keys.close()


def make_govern(settings: Settings, environ: Mapping[str, str] | None = None) -> Governance:
    """Join it. Nothing is opened before the first call.

    Keys lie in PostgreSQL where ``storage.database_url`` is set, else in ``govern.db`` under ``home``. What callers use
    is counted in Redis where ``storage.redis_url`` is set, else in PostgreSQL, else in that file.

    Args:
        settings: as ``kaizen.settings`` reads them.
        environ: the environment's variables, for the secret of tokens; the process's own for None.

    Raises:
        ConfigError: tokens are to be taken, and the key to check them with is missing or unfit.
    """
    keys = make_keys(settings)
    authenticator: Authenticator = keys
    if settings.auth.jwt.enabled:
        authenticator = _either_kind(keys, settings, environ)
    quota = _quota(settings)
    policy = Govern(keys=keys, quota=quota, rules=_rules(settings))
    return Governance(keys, authenticator, policy, quota)


def make_keys(settings: Settings) -> Keys:
    """The keys alone: for who administers them."""
    return Keys(_key_store(settings), recheck=settings.auth.recheck)


def _key_store(settings: Settings) -> KeyStore:
    if settings.storage.database_url is not None:
        from kaizen.stores.govern.postgres_keys import PostgresKeys

        return PostgresKeys(settings.storage.database_url.get_secret_value())
    from kaizen.stores.govern.sqlite_keys import SqliteKeys

    return SqliteKeys(_file(settings))


def _quota(settings: Settings) -> Quota:
    lease, storage = settings.limits.lease, settings.storage
    if storage.redis_url is not None:
        from kaizen.stores.govern.redis_quota import RedisQuota

        return RedisQuota(storage.redis_url.get_secret_value(), lease=lease)
    if storage.database_url is not None:
        from kaizen.stores.govern.postgres_quota import PostgresQuota

        return PostgresQuota(storage.database_url.get_secret_value(), lease=lease)
    from kaizen.stores.govern.sqlite_quota import SqliteQuota

    return SqliteQuota(_file(settings), lease=lease)


def _file(settings: Settings) -> Path:
    return settings.home.absolute() / "govern.db"


def _rules(settings: Settings) -> Rules:
    own = settings.limits
    return Rules(
        key=limits_of(own.key),
        user=limits_of(own.user),
        tenant=limits_of(own.tenant),
        tenants={name: limits_of(table) for name, table in own.tenants.items()},
        user_models=settings.auth.jwt.models,
    )


def limits_of(table: LimitTable) -> Limits:
    """A table's limits, in whole nano-dollars."""
    return Limits(
        requests_per_minute=table.requests_per_minute,
        tokens_per_minute=table.tokens_per_minute,
        concurrent=table.concurrent,
        usd_per_day=None if table.usd_per_day is None else nano_usd(table.usd_per_day),
        usd_per_month=None if table.usd_per_month is None else nano_usd(table.usd_per_month),
    )


def _either_kind(keys: Keys, settings: Settings, environ: Mapping[str, str] | None) -> Authenticator:
    from kaizen.govern.tokens import WITH_FILE, WITH_SECRET, EitherKind, TokenRules, Tokens

    own: JwtSettings = settings.auth.jwt
    secret = None if own.secret_env is None else resolve_secret(own.secret_env, "auth.jwt.secret_env", environ)
    rules = TokenRules(
        issuer=own.issuer or "",
        audience=own.audience or "",
        algorithms=own.algorithms or (WITH_SECRET if secret is not None else WITH_FILE),
        jwks_file=own.jwks_file,
        secret=None if secret is None else secret.get_secret_value().encode(),
        tenant_claim=own.tenant_claim,
        environment_claim=own.environment_claim,
        environment=settings.environment,
        scopes=frozenset(own.scopes),
        models=own.models,
        leeway=own.leeway,
    )
    return EitherKind(keys, Tokens(rules, recheck=settings.auth.recheck))
