"""The artifact: an immutable, content-addressed version of anything a program is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kaizen.core.ids import digest
from kaizen.core.params import Params


@dataclass(frozen=True, slots=True)
class Artifact:
    """``kind/name@version``: the version is the digest of the body, so equal bodies are one version.

    Args:
        kind: what it is, such as ``params`` or ``dataset``.
        name: which one, such as a program's name.
        body: canonical JSON bytes.
        parents: refs of the artifacts it was made from.
    """

    kind: str
    name: str
    body: bytes
    parents: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The content address of the body."""
        return digest(self.body)

    @property
    def ref(self) -> str:
        """``kind/name@version``."""
        return f"{self.kind}/{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Version:
    """An artifact as the registry holds it.

    Args:
        number: 1 for the first of its kind and name, then upwards; never used again.
        artifact: what it is.
        author: who made it, such as ``human:ada``, ``optimizer:instructions`` or ``import``.
        reason: why, in their words.
        at: Unix seconds.
    """

    number: int
    artifact: Artifact
    author: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Head:
    """A version without its body: what a list shows.

    Args:
        number, author, reason, at: as of the version.
        kind, name, version, parents: as of its artifact.
        size: bytes of the body.
    """

    number: int
    kind: str
    name: str
    version: str
    parents: tuple[str, ...]
    author: str
    reason: str
    at: float
    size: int

    @property
    def ref(self) -> str:
        """``kind/name@version``."""
        return f"{self.kind}/{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Arm:
    """What a label shows to a share of the subjects.

    Args:
        version: content address of an artifact, or ``base`` for the params in the code.
        weight: its share; the weights of a label's arms sum to 1.
    """

    version: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Move:
    """A label's move: from here on ``kind/name@label`` means these arms. Moves are only ever added.

    Args:
        id: time-ordered.
        kind, name, label: what moves; ``prod``, ``canary``.
        arms: one, or several with weights while an experiment runs.
        actor: who moved it.
        reason: why, with the numbers that spoke for it.
        at: Unix seconds.
        undoes: the move that a rollback took back; empty for any other.
    """

    id: str
    kind: str
    name: str
    label: str
    arms: tuple[Arm, ...]
    actor: str
    reason: str
    at: float
    undoes: str = ""


BASE: Final = "base"
"""The version that is the code itself: always there, never kept."""


@dataclass(frozen=True, slots=True)
class Released:
    """Which version of a program's params a run gets, and by what.

    Args:
        params: what they say; nothing for ``base``.
        version: content address, or ``base``.
        number: the version's; 0 for ``base``.
        name: whose params they are.
        label: what showed it: ``prod``, or what was asked for instead.
        experiment: id of the move that split the label, where several arms are shown.
        arm: which of them, from 0.
    """

    params: Params
    version: str
    number: int
    name: str
    label: str
    experiment: str | None = None
    arm: int = 0

    @property
    def ref(self) -> str:
        """``params/name@version``: what an artifact made with it has as its parent."""
        return f"params/{self.name}@{self.version}"
