"""Whose data it is (scope) and who acts (principal): two things that must not merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenant and its environment: the first argument of every storage seam."""

    tenant: str = "local"
    environment: str = "dev"

    def __str__(self) -> str:
        return f"{self.tenant}/{self.environment}"


LOCAL: Final = Scope()
