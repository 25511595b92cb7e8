"""Keys as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.identity import Key, Limits
from kaizen.core.scope import Scope

COLUMNS: Final = (
    "id, tenant, environment, digest, previous, previous_until, created_at, expires_at, revoked_at, last_used_at, about"
)


def key_row(key: Key) -> tuple[Any, ...]:
    """A key's values, in the order of ``COLUMNS``."""
    limits = {name: value for name, value in asdict(key.limits).items() if value is not None}
    about = {
        "name": key.name,
        "user": key.user,
        "scopes": sorted(key.scopes),
        "models": key.models,
        "exact": key.exact,
        "limits": limits,
    }
    return (
        key.id,
        key.scope.tenant,
        key.scope.environment,
        key.digest,
        key.previous,
        key.previous_until,
        key.created_at,
        key.expires_at,
        key.revoked_at,
        key.last_used_at,
        to_json(about).decode(),
    )


def to_key(row: Sequence[Any]) -> Key:
    """A row's key."""
    key_id, tenant, environment, digest, previous, previous_until, created, expires, revoked, used, about = row
    more = from_json(about)
    return Key(
        id=key_id,
        scope=Scope(tenant, environment),
        digest=digest,
        previous=previous,
        previous_until=previous_until,
        name=more["name"],
        user=more["user"],
        scopes=frozenset(more["scopes"]),
        models=None if more["models"] is None else tuple(more["models"]),
        exact=more["exact"],
        limits=Limits(**more["limits"]),
        created_at=created,
        expires_at=expires,
        revoked_at=revoked,
        last_used_at=used,
    )
