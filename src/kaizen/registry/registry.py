"""The one registry: put, get, label, roll back. Creating a version never activates it; moves are only ever added."""

from __future__ import annotations

import difflib
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kaizen.core.artifact import BASE, Arm, Artifact, Head, Move, Version
from kaizen.core.errors import Conflict, InvalidInput, NotFound
from kaizen.core.ids import new_id
from kaizen.core.protocols import Archive
from kaizen.core.scope import Scope

LATEST: Final = "latest"
PROD: Final = "prod"
PARAMS: Final = "params"

_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_PREFIX: Final = re.compile(r"[0-9a-f]{6,32}")
_EVEN: Final = 1e-9


class Registry:
    """Versions and labels of one archive, for every scope.

    Attributes:
        changes: how many versions and moves were added through this very object: whoever keeps a view looks again.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.changes = 0

    # -- versions ---------------------------------------------------------------------------------

    async def put(self, scope: Scope, artifact: Artifact, *, author: str, reason: str) -> Version:
        """Keep an artifact as the next version of its kind and name; no label moves.

        A body that is there already is the version there is, with the author and reason it came with.

        Args:
            scope: whose.
            artifact: what to keep.
            author: who made it, such as ``human:ada``, ``optimizer:instructions`` or ``import``.
            reason: why.

        Raises:
            InvalidInput: its kind or name can't be one.
        """
        if not _KIND.fullmatch(artifact.kind):
            raise InvalidInput(f"{artifact.kind!r} is no kind: it should be lower-case letters, digits, '-' and '_'")
        if not artifact.name or not artifact.name.isprintable() or "@" in artifact.name or artifact.name[0] == "/":
            raise InvalidInput(f"{artifact.name!r} is no name: it should be printable, without '@'")
        version = await self.archive.put(scope, artifact, author=author, reason=reason, at=time.time())
        self.changes += 1
        return version

    async def version(self, scope: Scope, kind: str, name: str, which: int | str = LATEST) -> Version:
        """One version, whole.

        Args:
            scope: whose.
            kind: of what.
            name: of which one.
            which: its number, its content address or an unambiguous beginning of one, a label, or ``latest``.

        Raises:
            NotFound: there is no such version; says what there is.
            Conflict: a label that shows several while an experiment runs, or a beginning that several have.
            StoreError: its body is not what was kept.
        """
        heads = await self.heads(scope, kind, name)
        if not heads:
            raise await self._no_name(scope, kind, name)
        head = _head(heads, str(which))
        if head is None:
            arms = await self.arms(scope, kind, name, str(which))
            if arms is None:
                raise NotFound(await self._no_version(scope, heads, str(which)))
            arm, *others = arms
            if others:
                shown = " and ".join(_shown(heads, arm) for arm in arms)
                raise Conflict(f"{kind}/{name}@{which} is split by an experiment, {shown}: name one of them")
            if arm.version == BASE:
                raise NotFound(f"{kind}/{name}@{which} shows {BASE}, the params in the code: there is nothing kept")
            head = _head(heads, arm.version)
        found = None if head is None else await self.archive.find(scope, kind, name, head.version)
        if found is None:
            raise NotFound(f"{kind}/{name}@{which}: the version it shows is not there")
        return found

    async def versions(self, scope: Scope, kind: str, name: str) -> Sequence[Version]:
        """All of a kind and name, whole, by number."""
        found = [
            await self.archive.find(scope, kind, name, head.version) for head in await self.heads(scope, kind, name)
        ]
        return [version for version in found if version is not None]

    async def heads(self, scope: Scope, kind: str | None = None, name: str | None = None) -> Sequence[Head]:
        """What there is, without the bodies."""
        return await self.archive.heads(scope, kind, name)

    async def names(self, scope: Scope, kind: str | None = None) -> Sequence[tuple[str, str]]:
        """Which kinds and names there are, in order."""
        return list(dict.fromkeys((head.kind, head.name) for head in await self.heads(scope, kind)))

    async def children(self, scope: Scope, ref: str, kind: str | None = None) -> Sequence[Version]:
        """What was made from an artifact, in the order it came."""
        return await self.archive.children(scope, ref, kind)

    # -- labels -----------------------------------------------------------------------------------

    async def label(
        self,
        scope: Scope,
        kind: str,
        name: str,
        label: str,
        arms: Sequence[Arm],
        *,
        actor: str,
        reason: str,
        since: str | None = None,
    ) -> Move:
        """Have a label show a version, or several by weight.

        Args:
            scope: whose.
            kind: of what.
            name: of which one.
            label: such as ``prod``.
            arms: content addresses (or ``base``, of params) and weights that sum to 1.
            actor: who moves it.
            reason: why, with the numbers that speak for it.
            since: id of the move the caller saw last, empty for none: refused where somebody has moved it since.

        Raises:
            InvalidInput: the label or the arms can't be.
            NotFound: there is no such version.
            Conflict: the label has moved since.
        """
        _check_label(label)
        _check_arms(kind, arms)
        known = {head.version for head in await self.heads(scope, kind, name)}
        for arm in arms:
            if arm.version not in known and arm.version != BASE:
                raise NotFound(f"{kind}/{name} has no version {arm.version}")
        if not known and not await self.history(scope, kind, name, label):
            raise await self._no_name(scope, kind, name)
        return await self._move(
            scope, Move(new_id(), kind, name, label, tuple(arms), actor, reason, time.time()), since
        )

    async def rollback(
        self, scope: Scope, kind: str, name: str, label: str, *, actor: str, reason: str, since: str | None = None
    ) -> Move:
        """Have a label show what it showed before what it shows now; another one goes back one further.

        The split of an experiment is passed over, and so is a move that showed the same version, such as the one that
        an experiment without a winner ends with: what it shows then is one version, another one. Before the first move
        of a program's params stands ``base``.

        Args:
            scope: whose.
            kind: of what.
            name: of which one.
            label: what to roll back.
            actor: who does.
            reason: why.
            since: as for ``label``.

        Raises:
            NotFound: there is no such label.
            Conflict: there is nothing before, or the label has moved since.
        """
        moves = await self.history(scope, kind, name, label)
        if not moves:
            raise NotFound(await self._no_label(scope, kind, name, label))
        standing = standing_moves(moves)
        earlier = [move for move in standing[:-1] if len(move.arms) == 1 and move.arms != standing[-1].arms]
        if earlier:
            arms = earlier[-1].arms
        elif standing and kind == PARAMS and standing[-1].arms != (Arm(BASE),):
            arms = (Arm(BASE),)
        else:
            raise Conflict(f"{kind}/{name}@{label} shows what it showed first: there is nothing to roll back to")
        undone = standing[standing.index(earlier[-1]) + 1] if earlier else standing[0]
        move = Move(new_id(), kind, name, label, arms, actor, reason, time.time(), undoes=undone.id)
        return await self._move(scope, move, moves[-1].id if since is None else since)

    async def history(self, scope: Scope, kind: str, name: str, label: str | None = None) -> Sequence[Move]:
        """The moves of a label, or of all labels of a name, oldest first."""
        moves = await self.archive.moves(scope, kind, name)
        return [move for move in moves if label in (None, move.label)]

    async def labels(self, scope: Scope, kind: str, name: str) -> Mapping[str, tuple[Arm, ...]]:
        """What each label of a name shows."""
        return {move.label: move.arms for move in await self.history(scope, kind, name)}

    async def arms(self, scope: Scope, kind: str, name: str, label: str) -> tuple[Arm, ...] | None:
        """What a label shows; None where there is no such label."""
        return (await self.labels(scope, kind, name)).get(label)

    async def close(self) -> None:
        """Let go of the archive."""
        await self.archive.close()

    # -- inside -----------------------------------------------------------------------------------

    async def _move(self, scope: Scope, move: Move, since: str | None) -> Move:
        await self.archive.move(scope, move, since=since)
        self.changes += 1
        return move

    async def _no_name(self, scope: Scope, kind: str, name: str) -> NotFound:
        names = [known for _, known in await self.names(scope, kind)]
        return NotFound(f"there is no {kind}/{name}{_near(name, names)}")

    async def _no_version(self, scope: Scope, heads: Sequence[Head], which: str) -> str:
        kind, name = heads[0].kind, heads[0].name
        labels = await self.labels(scope, kind, name)
        count = f"1 to {heads[-1].number}" if len(heads) > 1 else "1"
        known = f"its versions are {count}" + (
            f", its labels {', '.join(labels)}" if labels else ", and it has no label"
        )
        return f"{kind}/{name} has no version {which}: {known}"

    async def _no_label(self, scope: Scope, kind: str, name: str, label: str) -> str:
        labels = await self.labels(scope, kind, name)
        return f"{kind}/{name} has no label {label}{_near(label, labels) if labels else ', and no other'}"


def standing_moves(moves: Iterable[Move]) -> list[Move]:
    """A label's moves without those that were rolled back, and without the rollbacks: the last is what it shows.

    A rollback to before the first move leaves none.
    """
    standing: list[Move] = []
    for move in moves:
        if not move.undoes:
            standing.append(move)
            continue
        place = next((at for at, one in enumerate(standing) if one.id == move.undoes), len(standing))
        del standing[place:]
    return standing


def _head(heads: Sequence[Head], which: str) -> Head | None:
    if which == LATEST:
        return heads[-1]
    if which.isdecimal() and (found := [head for head in heads if head.number == int(which)]):
        return found[0]
    if not _PREFIX.fullmatch(which):
        return None
    found = [head for head in heads if head.version.startswith(which)]
    if len(found) > 1:
        raise Conflict(f"{len(found)} versions of {heads[0].name} begin with {which}: write more of it")
    return found[0] if found else None


def _shown(heads: Sequence[Head], arm: Arm) -> str:
    number = next((f"{head.number}" for head in heads if head.version == arm.version), arm.version)
    return f"{arm.weight:.0%} {number}"


def _near(word: str, known: Iterable[str]) -> str:
    names = list(known)
    if not names:
        return ", nor anything else of its kind"
    if found := difflib.get_close_matches(word, names, n=1):
        return f"; did you mean {found[0]}?"
    return f"; there is {', '.join(names[:5])}" + (", ..." if len(names) > 5 else "")


def _check_label(label: str) -> None:
    if not _LABEL.fullmatch(label) or label in (BASE, LATEST) or _PREFIX.fullmatch(label):
        raise InvalidInput(
            f"{label!r} can't be a label: it should be lower-case letters, digits, '-' and '_', "
            f"not {BASE}, {LATEST} or what could be a content address"
        )


def _check_arms(kind: str, arms: Sequence[Arm]) -> None:
    if not arms:
        raise InvalidInput("a label has to show something: there are no arms")
    if any(not math.isfinite(arm.weight) or arm.weight <= 0 for arm in arms):
        raise InvalidInput("the weights of arms should be above 0")
    total = math.fsum(arm.weight for arm in arms)
    if abs(total - 1) > _EVEN:
        raise InvalidInput(f"the weights of arms should sum to 1, not to {total:g}")
    if len({arm.version for arm in arms}) < len(arms):
        raise InvalidInput("two arms show the same version")
    if kind != PARAMS and any(arm.version == BASE for arm in arms):
        raise InvalidInput(f"only params have a version {BASE}, not a {kind}")
