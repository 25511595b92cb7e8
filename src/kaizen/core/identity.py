"""Who calls, as a credential proves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from kaizen.core.scope import Scope


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose credential was checked. Whose data it is comes from here, never from what the call says.

    Args:
        scope: the tenant and environment the credential is for.
        principal: who acts, as records keep it: ``key:<id>`` or ``user:<subject>``.
        scopes: what it may do: "infer", "metrics", "admin".
        models: refs and patterns such as ``openai/*`` that it may ask; None allows all.
        exact: whether its calls may be answered from the exact cache.
    """

    scope: Scope
    principal: str
    scopes: frozenset[str] = field(default_factory=frozenset[str])
    models: tuple[str, ...] | None = None
    exact: bool = True


class Authenticator(Protocol):
    """Tells who a credential belongs to."""

    async def authenticate(self, credential: str, /) -> Identity:
        """The caller.

        Raises:
            Unauthenticated: the credential is not known, expired or revoked.
        """
        ...
