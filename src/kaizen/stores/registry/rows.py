"""Versions and moves as rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.artifact import Arm, Artifact, Head, Move, Version
from kaizen.core.errors import Conflict, StoreError
from kaizen.core.ids import digest

HEAD: Final = "number, kind, name, version, parents, author, reason, at, size"
VERSION: Final = "number, kind, name, version, parents, author, reason, at, body"
MOVE: Final = "id, kind, name, label, arms, actor, reason, at, undoes"


def to_head(row: Sequence[Any]) -> Head:
    """A row's head, its columns as in ``HEAD``."""
    number, kind, name, version, parents, author, reason, at, size = row
    return Head(number, kind, name, version, to_parents(parents), author, reason, at, size)


def to_version(row: Sequence[Any]) -> Version:
    """A row's version, its columns as in ``VERSION``.

    Raises:
        StoreError: the body is not what was kept.
    """
    number, kind, name, version, parents, author, reason, at, body = row
    if not isinstance(body, bytes) or digest(body) != version:
        error = StoreError(
            f"version {number} of {kind}/{name} is damaged: its body has not the content address {version} any more"
        )
        error.retryable = False
        raise error
    return Version(number, Artifact(kind, name, body, to_parents(parents)), author, reason, at)


def move_row(move: Move) -> tuple[Any, ...]:
    """A move's values, in the order of ``MOVE``."""
    arms = to_json([asdict(arm) for arm in move.arms]).decode()
    return (move.id, move.kind, move.name, move.label, arms, move.actor, move.reason, move.at, move.undoes)


def to_move(row: Sequence[Any]) -> Move:
    """A row's move."""
    move_id, kind, name, label, arms, actor, reason, at, undoes = row
    shown = tuple(Arm(**arm) for arm in from_json(arms))
    return Move(move_id, kind, name, label, shown, actor, reason, at, undoes)


def parents_text(artifact: Artifact) -> str:
    """An artifact's parents, as a column has them."""
    return to_json(artifact.parents).decode()


def to_parents(text: str) -> tuple[str, ...]:
    """The parents in a column."""
    return tuple(from_json(text))


def moved_since(move: Move) -> Conflict:
    """For who moves a label that is not where they saw it."""
    return Conflict(f"{move.kind}/{move.name}@{move.label} was moved meanwhile: look at its history, and try again")
