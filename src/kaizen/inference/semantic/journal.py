"""What a scope's index is rebuilt from: pages of the questions that were kept, in the cache beside the answers.

Each process writes pages of its own, so that none overwrites another's, and names them in one list. It reads those of
the others now and then. A page or a list that is lost costs hits and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pydantic_core import from_json, to_json

from kaizen.core.ids import new_id
from kaizen.core.protocols import Cache
from kaizen.core.scope import Scope

_LIST: Final = "semantic:pages"
_PAGE: Final = 256
_READ_EVERY_S: Final = 10.0
_LISTED: Final = 4096

Line: TypeAlias = tuple[str, str, str]


@dataclass(slots=True)
class _Own:
    """What this process knows of one scope's pages."""

    name: str = ""
    lines: list[Line] = field(default_factory=list[Line])
    full: dict[str, int] = field(default_factory=dict[str, int])  # lines read of each page of others
    read_at: float = -1e9


class Journal:
    """The questions kept, by scope: key, space and text.

    Args:
        cache: where the pages lie.
        ttl: seconds that a page is kept after its last line.
    """

    def __init__(self, cache: Cache, ttl: float) -> None:
        self._cache, self._ttl = cache, ttl
        self._own: dict[Scope, _Own] = {}

    async def add(self, scope: Scope, line: Line, ttl: float) -> None:
        """Write a line."""
        own = self._own.setdefault(scope, _Own())
        begun = not own.name or len(own.lines) >= _PAGE
        if begun:
            own.full[own.name] = _PAGE  # written by us, so nothing to read
            own.name, own.lines = f"semantic:page:{new_id()}", []
        own.lines.append(line)
        name, data = own.name, to_json(own.lines)
        await self._cache.put(scope, name, data, ttl=max(self._ttl, ttl))
        if begun:
            listed = await self._listed(scope)
            await self._cache.put(scope, _LIST, to_json([*listed, name][-_LISTED:]))

    async def news(self, scope: Scope) -> Sequence[Line]:
        """The lines that others have written since the last time; read every ten seconds at most."""
        own = self._own.setdefault(scope, _Own())
        now = time.monotonic()
        if now - own.read_at < _READ_EVERY_S:
            return ()
        own.read_at = now
        found: list[Line] = []
        for name in await self._listed(scope):
            known = own.full.get(name, 0)
            if name == own.name or known >= _PAGE:
                continue
            lines = _parsed(await self._cache.get(scope, name))
            found += [(str(key), str(space), str(text)) for key, space, text in lines[known:]]
            own.full[name] = len(lines)
        return found

    async def _listed(self, scope: Scope) -> list[str]:
        return [str(name) for name in _parsed(await self._cache.get(scope, _LIST))]


def _parsed(data: bytes | None) -> list[Any]:
    return [] if data is None else from_json(data)
