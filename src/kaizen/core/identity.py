"""Who calls, as a credential proves it; the keys that are such credentials; what callers may use, and who counts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Final, Literal, Protocol, TypeAlias

from kaizen.core.protocols import Need
from kaizen.core.quick.values import quick
from kaizen.core.scope import Scope

INFER: Final = "infer"
TRACE: Final = "trace"
"""What callers do that is counted: asking a model, and sending traces of their own."""
SCOPES: Final = frozenset({INFER, "metrics", "admin"})


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


def permits(models: Sequence[str] | None, ref: str) -> bool:
    """Whether a list of refs and patterns, such as ``openai/*``, has a model; None has all."""
    return models is None or any(fnmatchcase(ref, pattern) for pattern in models)


class Authenticator(Protocol):
    """Tells who a credential belongs to."""

    async def authenticate(self, credential: str, /) -> Identity:
        """The caller.

        Raises:
            Unauthenticated: the credential is not known, expired or revoked.
        """
        ...


# -- what callers may use -------------------------------------------------------------------------

NANO: Final = 1_000_000_000
MOST_USD: Final = 9_000_000
"""The largest budget: in nano-dollars it is still a whole number for every store (a double holds 53 bits)."""

Limit: TypeAlias = Literal["requests_per_minute", "tokens_per_minute", "concurrent", "usd_per_day", "usd_per_month"]
BUDGETS: Final[frozenset[Limit]] = frozenset({"usd_per_day", "usd_per_month"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one account may use. None is no limit.

    Args:
        requests_per_minute, tokens_per_minute: refilled all the time; a whole minute's allowance may be used at once.
        concurrent: calls in the air.
        usd_per_day, usd_per_month: nano-dollars in a calendar day and month, UTC.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    usd_per_day: int | None = None
    usd_per_month: int | None = None

    def over(self, other: Limits) -> Limits:
        """These, and the other's where nothing is said here."""
        return Limits(
            **{
                field.name: getattr(other, field.name) if (own := getattr(self, field.name)) is None else own
                for field in fields(self)
            }
        )

    @property
    def budgeted(self) -> bool:
        """Whether dollars are limited."""
        return self.usd_per_day is not None or self.usd_per_month is not None


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Claim:
    """An account that a call counts against, and what it may use: ``key:<id>``, ``user:<name>`` or ``tenant``."""

    account: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Amount:
    """What a call uses: whole numbers, so that sums are exact. Money in nano-dollars."""

    calls: int = 0
    tokens: int = 0
    usd: int = 0


@quick
@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken for one call.

    Args:
        id: unlike any other's.
        scope: whose.
        claims: the accounts it was taken from.
        amount: how much.
        day, month: the periods it was charged to: days and months since 1970.
    """

    id: str
    scope: Scope
    claims: tuple[Claim, ...]
    amount: Amount
    day: int
    month: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was taken.

    Args:
        account: the one that has not enough left.
        limit: of what.
        retry_after: seconds until the same call may pass; infinite where it asks for more than is ever allowed.
    """

    account: str
    limit: Limit
    retry_after: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands. Money in nano-dollars; what is reserved counts as used."""

    account: str
    usd_day: int = 0
    usd_month: int = 0
    calls: int = 0


class Quota(Protocol):
    """Counts what accounts use, for all workers that share it.

    An account is a tenant's: another tenant's of the same name is another one. A tenant's environments share its
    accounts, since they share its money.
    """

    async def take(self, scope: Scope, claims: Sequence[Claim], amount: Amount, /) -> Taken | Refused:
        """Take the amount from every account, or nothing from any, in one step.

        Whoever is cancelled meanwhile has taken nothing.

        Raises:
            StoreError: it can't be counted, so it must not be used.
        """
        ...

    async def settle(self, taken: Taken, used: Amount, /) -> None:
        """Put what was used in the place of what was taken, in every account at once.

        It may be counted a few milliseconds later; later takes of this process see it. What is never settled stays
        charged; its place among the calls in the air, and what ``wait`` marked, is given back some time after
        the process died.
        """
        ...

    async def wait(self, taken: Taken, /) -> None:
        """Note that the call has not been sent yet: if the process dies now, all of it is given back."""
        ...

    async def sent(self, taken: Taken, /) -> None:
        """Note that the call is about to be sent: from here on it is charged even if nobody learns what it used."""
        ...

    async def standing(self, scope: Scope, accounts: Sequence[str], /) -> Sequence[Standing]:
        """How these accounts stand, in order."""
        ...

    async def close(self) -> None:
        """Count what is settled, and let go."""
        ...


def nano_usd(usd: float) -> int:
    """The nano-dollars nearest to dollars as they are written."""
    return round(usd * NANO)


def bound_of(need: Need) -> Amount:
    """A need in whole numbers, never less than it.

    An unknown price counts nothing here: who has a budget must look at it first.
    """
    above, below = (need.usd or 0.0).as_integer_ratio()
    return Amount(need.calls, need.tokens, -(-above * NANO // below))


# -- keys -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What is kept of an API key: everything but its secret. Times are Unix seconds.

    Args:
        id: public; part of the key itself.
        scope: the tenant and environment it is for.
        digest: of the whole key.
        previous: of the key before the last rotation, good until ``previous_until``.
        name: what people call it.
        user: who it was given to, whose limits its calls count against too.
        scopes, models, exact: see Identity.
        limits: what its calls may use.
        created_at, expires_at, revoked_at, last_used_at: None where it never is or was.
    """

    id: str
    scope: Scope
    digest: bytes = field(repr=False)
    previous: bytes | None = field(default=None, repr=False)
    previous_until: float | None = None
    name: str = ""
    user: str | None = None
    scopes: frozenset[str] = frozenset({INFER})
    models: tuple[str, ...] | None = None
    exact: bool = True
    limits: Limits = NO_LIMITS
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    def live(self, now: float) -> bool:
        """Whether it is neither expired nor revoked."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyStore(Protocol):
    """Where keys lie. A key is found by its id alone: the tenant is what it tells."""

    async def add(self, key: Key, /) -> None:
        """Keep a new key.

        Raises:
            Conflict: its id is taken.
        """
        ...

    async def find(self, key_id: str, /) -> Key | None:
        """One key."""
        ...

    async def list(self, tenant: str | None, /) -> Sequence[Key]:
        """A tenant's keys, or everybody's for None, oldest first."""
        ...

    async def revoke(self, key_id: str, at: float, /) -> bool:
        """Note that it is good no longer; whether it was until now."""
        ...

    async def rotate(self, key_id: str, old: bytes, new: bytes, previous_until: float, /) -> bool:
        """Put a digest in another's place, which stays good until then; whether ``old`` was its digest and it lives."""
        ...

    async def touch(self, used: Mapping[str, float], /) -> None:
        """Note when keys were used last, where that is later than what is noted."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...
