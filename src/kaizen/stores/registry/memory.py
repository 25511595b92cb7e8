"""An archive in memory, for tests and for Apps that keep nothing."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from kaizen.core.artifact import Artifact, Head, Move, Version
from kaizen.core.scope import Scope
from kaizen.stores.registry.rows import moved_since


class MemoryArchive:
    """Versions and moves in lists."""

    def __init__(self) -> None:
        self._versions: defaultdict[Scope, list[Version]] = defaultdict(list[Version])
        self._moves: defaultdict[Scope, list[Move]] = defaultdict(list[Move])
        self._changing = threading.Lock()  # an App may run on several loops, each in a thread of its own

    async def put(self, scope: Scope, artifact: Artifact, /, *, author: str, reason: str, at: float) -> Version:
        """Keep an artifact, unless it is there already."""
        with self._changing:
            alike = [one for one in self._versions[scope] if _key(one) == (artifact.kind, artifact.name)]
            known = next((one for one in alike if one.artifact.body == artifact.body), None)
            if known is not None:
                return known
            kept = replace(artifact, parents=tuple(artifact.parents))
            version = Version(len(alike) + 1, kept, author, reason, at)
            self._versions[scope].append(version)
            return version

    async def heads(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Head]:
        """What there is."""
        found = [
            _head(one)
            for one in tuple(self._versions[scope])
            if kind in (None, one.artifact.kind) and name in (None, one.artifact.name)
        ]
        return sorted(found, key=lambda head: (head.kind, head.name, head.number))

    async def find(self, scope: Scope, kind: str, name: str, version: str, /) -> Version | None:
        """One by its content address."""
        return next(
            (
                one
                for one in tuple(self._versions[scope])
                if _key(one) == (kind, name) and one.artifact.version == version
            ),
            None,
        )

    async def children(self, scope: Scope, ref: str, kind: str | None = None, /) -> Sequence[Version]:
        """Those that have it as a parent."""
        return [
            one
            for one in tuple(self._versions[scope])
            if ref in one.artifact.parents and kind in (None, one.artifact.kind)
        ]

    async def move(self, scope: Scope, move: Move, /, *, since: str | None = None) -> None:
        """Keep a move."""
        with self._changing:
            moves = self._moves[scope]
            if since is not None:
                whose = (move.kind, move.name, move.label)
                last = next((one.id for one in reversed(moves) if (one.kind, one.name, one.label) == whose), "")
                if last != since:
                    raise moved_since(move)
            moves.append(move)

    async def moves(self, scope: Scope, kind: str | None = None, name: str | None = None, /) -> Sequence[Move]:
        """The moves, oldest first."""
        return [move for move in tuple(self._moves[scope]) if kind in (None, move.kind) and name in (None, move.name)]

    async def state(self, scope: Scope, kind: str, /) -> int:
        """How many versions and moves of a kind there are."""
        versions = sum(one.artifact.kind == kind for one in tuple(self._versions[scope]))
        return versions + sum(move.kind == kind for move in tuple(self._moves[scope]))

    async def close(self) -> None:
        """There is nothing to let go of."""


def _key(version: Version) -> tuple[str, str]:
    return version.artifact.kind, version.artifact.name


def _head(version: Version) -> Head:
    one = version.artifact
    about = (version.author, version.reason, version.at)
    return Head(version.number, one.kind, one.name, one.version, one.parents, *about, len(one.body))
