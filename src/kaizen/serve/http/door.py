"""Who comes in: the credential of a call, and what its owner may ask."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from kaizen.core.errors import Denied, Unauthenticated
from kaizen.core.identity import Authenticator, Identity
from kaizen.core.request import Options
from kaizen.serve.http.call import Call

_BEARER: Final = b"bearer "
_LONGEST: Final = 16 * 1024  # of a credential: a token may carry a few claims


class Door:
    """Lets callers in by their key or token.

    Args:
        authenticator: tells who a credential belongs to.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def enter(self, call: Call, scope: str) -> Identity:
        """Who calls; noted on the call.

        Raises:
            Unauthenticated: there is no credential, or it is not known, expired or revoked.
            Denied: it may not do this.
        """
        credential = credential_of(call)
        if credential is None:
            raise Unauthenticated("there is no key: send it as `Authorization: Bearer <key>` or as `x-api-key`")
        identity = call.identity = await self._authenticator.authenticate(credential)
        if scope not in identity.scopes:
            raise Denied(f"this key has no scope {scope!r}")
        return identity


def credential_of(call: Call) -> str | None:
    """The key or token that came with a call, or None."""
    headers = call.headers
    given = headers.get(b"authorization")
    bears = given is not None and given[:7].lower() == _BEARER
    given = given[7:].strip() if bears and given is not None else headers.get(b"x-api-key")
    if not given or len(given) > _LONGEST or not given.isascii():
        return None
    return given.decode()


def options_of(identity: Identity, call: Call) -> Options:
    """What holds for every call of a caller, and what ``cache-control`` says of this one.

    ``no-store`` leaves the exact cache out of it; ``no-cache`` asks anew and keeps the new answer.
    """
    said = call.headers.get(b"cache-control")
    if said is None:
        return _options(identity.exact, False, identity.models)
    words = {word.strip() for word in said.lower().split(b",")}
    return _options(identity.exact and b"no-store" not in words, b"no-cache" in words, identity.models)


@lru_cache(maxsize=1024)
def _options(exact: bool, refresh: bool, models: tuple[str, ...] | None) -> Options:
    return Options(exact=exact, refresh=refresh, models=models)
