"""API keys: made, checked, revoked, rotated. Of a key only a digest is kept."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from kaizen.core.errors import Conflict, InvalidInput, KaizenError, NotFound, Unauthenticated
from kaizen.core.identity import INFER, NO_LIMITS, SCOPES, Identity, Key, KeyStore, Limits
from kaizen.core.scope import Scope

_logger = logging.getLogger(__name__)

PREFIX: Final = "kz"
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BITS: Final = 256
_SECRET_LENGTH: Final = 43  # digits of that alphabet in 256 bits
_REMEMBERED: Final = 10_000
_LONGEST_USER: Final = 256
_TOUCH_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Issued:
    """A key that was just made. ``secret`` is the whole key, shown this once and kept nowhere."""

    key: Key
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A key as it was found, good for a moment."""

    key: Key
    identity: Identity
    until: float


class Keys:
    """The keys, and the Authenticator of those who show one.

    A key reads ``kz_<id>_<secret>``: the id finds it, the secret has 256 random bits, so a plain SHA-256 is all that
    guessing it leaves to be done. What was found is remembered for ``recheck`` seconds: a key that is revoked anywhere
    stops working everywhere within that time. When a key was used last is noted at most once a minute.

    Args:
        store: where they lie.
        recheck: seconds.
        clock: Unix seconds.
    """

    def __init__(self, store: KeyStore, *, recheck: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        self._store, self._recheck, self._clock = store, recheck, clock
        self._seen: dict[str, _Seen] = {}
        self._touched: dict[str, float] = {}
        self._touching: set[asyncio.Task[None]] = set()

    # -- those who show one -------------------------------------------------------------------------

    async def authenticate(self, credential: str, /) -> Identity:
        """Whose key it is.

        Raises:
            Unauthenticated: it is none, or not good (any more).
            StoreError: nobody can tell, so it is not good now.
        """
        prefix, _, rest = credential.partition("_")
        key_id, _, secret = rest.partition("_")
        # bounded before it goes anywhere
        if prefix != PREFIX or len(secret) != _SECRET_LENGTH or not 0 < len(key_id) <= 32 or not key_id.isalnum():
            raise Unauthenticated("the credential is no key of ours")
        seen = self._at_hand(key_id) or await self._find(key_id)
        if seen is None or not _fits(seen.key, _digest(credential), now := self._clock()):
            raise Unauthenticated("the key is not known")
        if not seen.key.live(now):
            raise Unauthenticated("the key is revoked" if seen.key.revoked_at is not None else "the key has expired")
        self._touch(seen.key, now)
        return seen.identity

    async def key(self, key_id: str) -> Key | None:
        """A key as it is now, or was at most ``recheck`` seconds ago; None where there is none."""
        seen = self._at_hand(key_id) or await self._find(key_id)
        return None if seen is None else seen.key

    def good(self, key: Key) -> bool:
        """Whether a key is neither expired nor revoked."""
        return key.live(self._clock())

    def _at_hand(self, key_id: str) -> _Seen | None:
        seen = self._seen.get(key_id)
        return seen if seen is not None and time.monotonic() < seen.until else None

    async def _find(self, key_id: str) -> _Seen | None:
        seen, now = self._seen.get(key_id), time.monotonic()
        key = await self._store.find(key_id)
        if key is None:
            self._seen.pop(key_id, None)
            return None
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        if seen is not None and seen.key == key:
            key = seen.key  # the same object, so that what was made of it stays good
        identity = Identity(key.scope, f"key:{key.id}", key.scopes, key.models, key.exact)
        found = self._seen[key_id] = _Seen(key, identity, now + self._recheck)
        return found

    def _touch(self, key: Key, now: float) -> None:
        last = max(self._touched.get(key.id, 0.0), key.last_used_at or 0.0)
        if now - last < _TOUCH_EVERY_S:
            return
        if len(self._touched) >= _REMEMBERED:
            self._touched.clear()
        self._touched[key.id] = now
        task = asyncio.get_running_loop().create_task(self._note(key.id, now))
        self._touching.add(task)
        task.add_done_callback(self._touching.discard)

    async def _note(self, key_id: str, now: float) -> None:
        try:
            await self._store.touch({key_id: now})
        except KaizenError as error:  # nobody's call fails for it
            _logger.warning("when key %s was used last could not be noted: %s", key_id, error)

    # -- those who administer them ------------------------------------------------------------------

    async def create(
        self,
        scope: Scope,
        *,
        name: str = "",
        user: str | None = None,
        scopes: frozenset[str] = frozenset({INFER}),
        models: Sequence[str] | None = None,
        limits: Limits = NO_LIMITS,
        expires_at: float | None = None,
        exact: bool = True,
    ) -> Issued:
        """Make a key; see ``Key`` for what it has.

        Raises:
            InvalidInput: for a scope that there is not, or no scope; for a user whose name can't be one.
        """
        if user is not None and not (0 < len(user) <= _LONGEST_USER and user.isprintable()):
            raise InvalidInput("a user should be named by 1 to 256 printable characters")
        if unknown := sorted(scopes - SCOPES) or (not scopes and [""]):
            raise InvalidInput(f"{unknown[0]!r} is no scope: give some of {', '.join(sorted(SCOPES))}")
        key_id = secrets.token_hex(8)
        secret = _new_secret(key_id)
        key = Key(
            id=key_id,
            scope=scope,
            digest=_digest(secret),
            name=name,
            user=user,
            scopes=scopes,
            models=None if models is None else tuple(models),
            exact=exact,
            limits=limits,
            created_at=self._clock(),
            expires_at=expires_at,
        )
        await self._store.add(key)
        return Issued(key, secret)

    async def list(self, tenant: str | None = None) -> Sequence[Key]:
        """A tenant's keys, or everybody's for None, oldest first."""
        return await self._store.list(tenant)

    async def revoke(self, key_id: str, *, tenant: str | None = None) -> Key:
        """Make a key useless for good; one that is revoked stays so.

        Args:
            key_id: which.
            tenant: whose it has to be; None takes anybody's.

        Raises:
            NotFound: there is none.
        """
        key = await self._own(key_id, tenant)
        await self._store.revoke(key_id, self._clock())
        self._seen.pop(key_id, None)
        return await self._own(key.id, tenant)

    async def rotate(self, key_id: str, *, overlap: float = 0.0, tenant: str | None = None) -> Issued:
        """Give a key a new secret.

        Args:
            key_id: which.
            overlap: seconds for which the old one stays good, so that nobody who uses it has to be quick.
            tenant: whose it has to be; None takes anybody's.

        Raises:
            NotFound: there is none.
            Conflict: it is revoked, or somebody else has just rotated it.
        """
        key = await self._own(key_id, tenant)
        secret, until = _new_secret(key_id), self._clock() + overlap
        if not await self._store.rotate(key_id, key.digest, _digest(secret), until):
            raise Conflict(f"key {key_id} is revoked, or was rotated just now")
        self._seen.pop(key_id, None)
        return Issued(replace(key, digest=_digest(secret), previous=key.digest, previous_until=until), secret)

    async def close(self) -> None:
        """Note what is to be noted, and let go."""
        here = asyncio.get_running_loop()
        own = [task for task in self._touching if task.get_loop() is here]
        if own:
            await asyncio.wait(own)
        await self._store.close()

    async def _own(self, key_id: str, tenant: str | None) -> Key:
        key = await self._store.find(key_id)
        if key is None or tenant not in (None, key.scope.tenant):
            raise NotFound(f"there is no key {key_id}")
        return key


def _new_secret(key_id: str) -> str:
    number, digits = secrets.randbits(_SECRET_BITS), list[str]()
    for _ in range(_SECRET_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return f"{PREFIX}_{key_id}_{''.join(digits)}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _fits(key: Key, digest: bytes, now: float) -> bool:
    if hmac.compare_digest(key.digest, digest):
        return True
    if key.previous is None or key.previous_until is None or now >= key.previous_until:
        return False
    return hmac.compare_digest(key.previous, digest)
