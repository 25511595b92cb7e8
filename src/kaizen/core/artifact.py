"""The artifact: an immutable, content-addressed version of anything a program is made of."""

from __future__ import annotations

from dataclasses import dataclass

from kaizen.core.ids import digest


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
