"""JSON web tokens (RFC 7519) of somebody else, checked against a key set (RFC 7517) or a shared secret."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import jwt

from kaizen.core.errors import ConfigError, Unauthenticated
from kaizen.core.identity import SCOPES, Identity
from kaizen.core.scope import Scope

WITH_FILE: Final = ("RS256", "ES256", "EdDSA")
WITH_SECRET: Final = ("HS256",)
# RFC 7518, 3.2: as long as the digest.
_SECRET_BYTES: Final[Mapping[str, int]] = {"HS256": 32, "HS384": 48, "HS512": 64}
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LONGEST: Final = 16 * 1024
_LONGEST_SUBJECT: Final = 256
_REMEMBERED: Final = 10_000
_NEEDED: Final = ("exp", "sub", "iss", "aud")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """How tokens are checked.

    Args:
        issuer, audience: what ``iss`` has to say and ``aud`` to name.
        algorithms: those that are taken; a token's own word on that counts for nothing.
        jwks_file: the public keys; or
        secret: a shared secret, at least as long as the algorithms' digests.
        tenant_claim: the claim that names the tenant.
        environment_claim: the claim that names the environment; None takes ``environment``.
        environment: where no claim says.
        scopes: of a token without the claim ``scope``.
        models: what tokens may ask; None allows all.
        leeway: seconds that the clocks may be apart.
    """

    issuer: str
    audience: str
    algorithms: Sequence[str]
    jwks_file: Path | None = None
    secret: bytes | None = field(default=None, repr=False)
    tenant_claim: str = "tenant"
    environment_claim: str | None = None
    environment: str = "dev"
    scopes: frozenset[str] = frozenset({"infer"})
    models: tuple[str, ...] | None = None
    leeway: float = 0.0


class Tokens:
    """The Authenticator of those who show a token.

    What was checked is remembered for ``recheck`` seconds, and not longer than the token is good. A key set that was
    replaced is read within that time.

    Args:
        rules: how they are checked.
        recheck: seconds.

    Raises:
        ConfigError: the secret is too short, or the file holds no key that could be used.
    """

    def __init__(self, rules: TokenRules, *, recheck: float = 1.0) -> None:
        if (rules.secret is None) == (rules.jwks_file is None):
            raise ConfigError("tokens are checked either with a key set or with a secret")
        needed = max((_SECRET_BYTES.get(name, 0) for name in rules.algorithms), default=0)
        if rules.secret is not None and len(rules.secret) < needed:
            raise ConfigError(f"the secret for tokens should have at least {needed} bytes")
        self._rules, self._recheck = rules, recheck
        self._seen: dict[bytes, tuple[Identity, float]] = {}
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._stamp: tuple[int, int] | None = None
        self._look_at = 0.0
        self._reading = threading.Lock()
        if rules.jwks_file is not None:
            self._read(rules.jwks_file)

    async def authenticate(self, credential: str, /) -> Identity:
        """Whose token it is.

        Raises:
            Unauthenticated: it is none, expired, not signed by a key we know, or says too little.
        """
        if len(credential) > _LONGEST or credential.count(".") != 2 or not credential.isascii():
            raise Unauthenticated("the credential is no token")
        digest, now = hashlib.sha256(credential.encode()).digest(), time.monotonic()
        seen = self._seen.get(digest)
        if seen is not None and now < seen[1]:
            return seen[0]
        claims = self._claims(credential)
        identity = self._identity(claims)
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        left = float(claims["exp"]) + self._rules.leeway - time.time()
        self._seen[digest] = (identity, now + min(self._recheck, left))
        return identity

    def _claims(self, credential: str) -> Mapping[str, Any]:
        rules = self._rules
        try:
            key = self._key(jwt.get_unverified_header(credential))
            return jwt.decode(
                credential,
                key,
                algorithms=list(rules.algorithms),
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=rules.leeway,
                options={"require": list(_NEEDED), "verify_signature": True, "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            problem = "the token has expired"
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            problem = f"the token is not good: {type(error).__name__}"  # its text may repeat what the token says
        raise Unauthenticated(problem)

    def _key(self, header: Mapping[str, Any]) -> jwt.PyJWK | bytes:
        """What a token has to be signed with: never what it says, only which of ours."""
        rules = self._rules
        if rules.secret is not None:
            return rules.secret
        if rules.jwks_file is not None and time.monotonic() >= self._look_at:
            self._read(rules.jwks_file)
        kid = header.get("kid")
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if not isinstance(kid, str) or kid not in self._keys:
            raise jwt.InvalidKeyError
        return self._keys[kid]

    def _read(self, file: Path) -> None:
        """Read the key set, where it has changed. One that can't be read now leaves the keys as they were."""
        with self._reading:
            self._look_at = time.monotonic() + self._recheck
            try:
                found = file.stat()
                stamp = (found.st_mtime_ns, found.st_size)
                if stamp == self._stamp:
                    return
                keys = _usable(json.loads(file.read_text("utf-8")), self._rules.algorithms)
            except (OSError, ValueError) as error:
                if self._keys:
                    return
                raise ConfigError(f"the key set {file} can't be read: {type(error).__name__}") from None
            if not keys and not self._keys:
                raise ConfigError(f"the key set {file} has no key for {', '.join(self._rules.algorithms)}")
            self._keys, self._stamp = keys, stamp
            self._seen.clear()

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        rules = self._rules
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise Unauthenticated("the token's subject is no name")
        tenant = _named(claims, rules.tenant_claim)
        environment = rules.environment
        if rules.environment_claim is not None:
            environment = _named(claims, rules.environment_claim)
        said = claims.get("scope")
        scopes = rules.scopes if said is None else SCOPES & set(said.split() if isinstance(said, str) else ())
        return Identity(Scope(tenant, environment), f"user:{subject}", frozenset(scopes), rules.models)


def _named(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Unauthenticated(f"the token's claim {claim} is missing or no name")
    return value


def _usable(tree: Any, algorithms: Sequence[str]) -> dict[str, jwt.PyJWK]:
    """The keys of a set that can be used with these algorithms, by their ids."""
    found: dict[str, jwt.PyJWK] = {}
    entries = cast("Mapping[str, Any]", tree).get("keys") if isinstance(tree, Mapping) else None
    for number, entry in enumerate(cast("list[Any]", entries) if isinstance(entries, list) else []):
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            continue  # a kind that we don't know
        # a shared secret in a file of public keys is a mistake, and would let its readers sign
        if key.key_type != "oct" and key.public_key_use in (None, "sig") and key.algorithm_name in algorithms:
            found[key.key_id or f"#{number}"] = key
    return found


class EitherKind:
    """An Authenticator of keys and of tokens: what looks like a token is one.

    Args:
        keys: checks keys.
        tokens: checks tokens.
    """

    def __init__(self, keys: Any, tokens: Tokens) -> None:
        self._keys, self._tokens = keys, tokens

    async def authenticate(self, credential: str, /) -> Identity:
        """Whose key or token it is.

        Raises:
            Unauthenticated: it is neither, or not good.
        """
        return await (self._tokens if "." in credential else self._keys).authenticate(credential)
