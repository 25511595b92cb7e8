"""Keys over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from kaizen.core.identity import INFER, NANO, Key, Limits, nano_usd
from kaizen.govern.keys import Keys
from kaizen.serve.http.entering import Admin


class NewKey(BaseModel):
    """A key to be made. It is of the tenant of whoever asks."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=128)
    user: str | None = Field(None, min_length=1, max_length=128)
    scopes: Sequence[str] = (INFER,)
    models: Sequence[str] | None = None
    exact: bool = True
    expires_at: float | None = Field(None, gt=0, allow_inf_nan=False, description="Unix seconds")
    requests_per_minute: int | None = Field(None, ge=1, le=10**9)
    tokens_per_minute: int | None = Field(None, ge=1, le=10**12)
    concurrent: int | None = Field(None, ge=1, le=10**6)
    usd_per_day: float | None = Field(None, ge=0, le=10**6)
    usd_per_month: float | None = Field(None, ge=0, le=10**6)


class ShownKey(BaseModel):
    """A key without its secret."""

    id: str
    name: str
    user: str | None
    scopes: list[str]
    models: list[str] | None
    exact: bool
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent: int | None
    usd_per_day: float | None
    usd_per_month: float | None


class MadeKey(ShownKey):
    """A key with its secret, which is shown this once."""

    secret: str


class Rotation(BaseModel):
    """How a key is rotated."""

    model_config = ConfigDict(extra="forbid")

    overlap: float = Field(0.0, ge=0, le=30 * 86_400, description="seconds that the old secret stays good")


def key_routes(keys: Keys) -> APIRouter:
    """The keys of the caller's tenant."""
    routes = APIRouter(prefix="/api/v1/admin", tags=["keys"])

    @routes.get("/keys")
    async def list_keys(who: Admin) -> list[ShownKey]:
        """The tenant's keys, oldest first."""
        return [_shown(key) for key in await keys.list(who.scope.tenant)]

    @routes.post("/keys", status_code=201)
    async def create_key(new: NewKey, who: Admin) -> MadeKey:
        """Make a key."""
        made = await keys.create(
            who.scope,
            name=new.name,
            user=new.user,
            scopes=frozenset(new.scopes),
            models=new.models,
            limits=_limits(new),
            expires_at=new.expires_at,
            exact=new.exact,
        )
        return MadeKey(**_shown(made.key).model_dump(), secret=made.secret)

    @routes.delete("/keys/{key_id}")
    async def revoke_key(key_id: str, who: Admin) -> ShownKey:
        """Make a key useless for good."""
        return _shown(await keys.revoke(key_id, tenant=who.scope.tenant))

    @routes.post("/keys/{key_id}/rotate")
    async def rotate_key(key_id: str, how: Rotation, who: Admin) -> MadeKey:
        """Give a key another secret."""
        made = await keys.rotate(key_id, overlap=how.overlap, tenant=who.scope.tenant)
        return MadeKey(**_shown(made.key).model_dump(), secret=made.secret)

    _ = list_keys, create_key, revoke_key, rotate_key
    return routes


def _limits(new: NewKey) -> Limits:
    return Limits(
        requests_per_minute=new.requests_per_minute,
        tokens_per_minute=new.tokens_per_minute,
        concurrent=new.concurrent,
        usd_per_day=None if new.usd_per_day is None else nano_usd(new.usd_per_day),
        usd_per_month=None if new.usd_per_month is None else nano_usd(new.usd_per_month),
    )


def _shown(key: Key) -> ShownKey:
    limits = key.limits
    return ShownKey(
        id=key.id,
        name=key.name,
        user=key.user,
        scopes=sorted(key.scopes),
        models=None if key.models is None else list(key.models),
        exact=key.exact,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent=limits.concurrent,
        usd_per_day=None if limits.usd_per_day is None else limits.usd_per_day / NANO,
        usd_per_month=None if limits.usd_per_month is None else limits.usd_per_month / NANO,
    )
