"""Keys and calls for the tests of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from kaizen.core.context import Context, Run, Runtime
from kaizen.core.errors import Conflict, StoreError
from kaizen.core.identity import Key
from kaizen.core.scope import Scope

OURS = Scope("acme", "prod")


class Clock:
    """Unix seconds that pass only when told."""

    def __init__(self, now: float = 1e9) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class KeysInMemory:
    """A KeyStore without a file, which counts how often it is asked."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.found = 0
        self.touched: list[dict[str, float]] = []
        self.broken = False

    async def add(self, key: Key, /) -> None:
        if key.id in self.keys:
            raise Conflict("there")
        self.keys[key.id] = key

    async def find(self, key_id: str, /) -> Key | None:
        self.found += 1
        return self.keys.get(key_id)

    async def list(self, tenant: str | None, /) -> Sequence[Key]:
        return [key for key in self.keys.values() if tenant in (None, key.scope.tenant)]

    async def revoke(self, key_id: str, at: float, /) -> bool:
        key = self.keys[key_id]
        self.keys[key_id] = replace(key, revoked_at=key.revoked_at or at)
        return key.revoked_at is None

    async def rotate(self, key_id: str, old: bytes, new: bytes, previous_until: float, /) -> bool:
        key = self.keys[key_id]
        if key.digest != old or key.revoked_at is not None:
            return False
        self.keys[key_id] = replace(key, digest=new, previous=old, previous_until=previous_until)
        return True

    async def touch(self, used: Mapping[str, float], /) -> None:
        if self.broken:
            raise StoreError("the disk is full")
        self.touched.append(dict(used))
        for key_id, at in used.items():
            self.keys[key_id] = replace(self.keys[key_id], last_used_at=at)

    async def close(self) -> None:
        return


def call(principal: str, scope: Scope = OURS) -> Context:
    """A call of somebody."""
    runtime: Any = object()
    return Context(Run(runtime=cast("Runtime", runtime), scope=scope, run_id="run", principal=principal))
