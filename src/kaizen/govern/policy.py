"""The decision whether a caller may ask a model now: what its key allows, and what its limits leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import Final

from kaizen.core.context import Context
from kaizen.core.errors import BudgetExceeded, LimitReached
from kaizen.core.identity import (
    BUDGETS,
    INFER,
    NO_LIMITS,
    TRACE,
    Amount,
    Claim,
    Key,
    Limit,
    Limits,
    Quota,
    Refused,
    Taken,
    bound_of,
    nano_usd,
    permits,
)
from kaizen.core.protocols import Allow, Decision, Deny, Need
from kaizen.govern.keys import Keys

_KEY: Final = "key:"
_USER: Final = "user:"
TENANT: Final = "tenant"
_ALLOWED: Final = Allow()
_REMEMBERED: Final = 10_000
_WHAT: Final[Mapping[Limit, str]] = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "concurrent": "calls at once",
    "usd_per_day": "dollars a day",
    "usd_per_month": "dollars a month",
}
_MONEY_DIGITS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for everybody.

    Args:
        key, user, tenant: limits of every key (where it has none of its own), user and tenant.
        tenants: limits of single tenants, before ``tenant``.
        user_models: what callers without a key may ask, see Identity; None allows all.
    """

    key: Limits = NO_LIMITS
    user: Limits = NO_LIMITS
    tenant: Limits = NO_LIMITS
    tenants: Mapping[str, Limits] = field(default_factory=dict[str, Limits])
    user_models: tuple[str, ...] | None = None


class Held:
    """The Lease of one call."""

    __slots__ = ("_quota", "_taken")

    def __init__(self, quota: Quota, taken: Taken) -> None:
        self._quota, self._taken = quota, taken

    async def settle(self, used: Need, /) -> None:
        """Put what was used in the place of what was reserved; a cost that is not known is all that was reserved."""
        usd = self._taken.amount.usd if used.usd is None else nano_usd(used.usd)
        await self._quota.settle(self._taken, Amount(used.calls, used.tokens, usd))

    async def wait(self) -> None:
        """Note that the call waits to be sent: if this process dies before ``sent``, all is given back."""
        await self._quota.wait(self._taken)

    async def sent(self) -> None:
        """Note that the call that waited is about to be sent: from here on it is charged even if this process dies."""
        await self._quota.sent(self._taken)


class Govern:
    """The Policy of keys, limits and budgets.

    "infer" takes one call, the tokens and the dollars it needs at most from its key, its user and its tenant at once,
    and hands them out as a Lease; "trace" takes what it needs alike, and asks no model. All other actions are allowed.
    The caller is ``ctx.run.principal``: ``key:<id>`` is looked up, ``user:<name>`` has a user's limits, anything else
    acts for its tenant alone.

    Args:
        keys: what is known of a key.
        quota: counts.
        rules: what holds for everybody.
    """

    def __init__(self, *, keys: Keys, quota: Quota, rules: Rules) -> None:
        self._keys, self._quota, self._rules = keys, quota, rules
        self._claims: dict[tuple[str, str], tuple[Key | None, tuple[Claim, ...]]] = {}

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Decision:
        """May the caller do that?

        Raises:
            LimitReached: not now; ``retry_after`` says when.
            BudgetExceeded: a budget of dollars has not enough left for what it needs at most.
            StoreError: nobody can tell, so no.
        """
        if action not in (INFER, TRACE):
            return _ALLOWED
        principal, scope = ctx.run.principal, ctx.run.scope
        key, models = None, None
        if principal.startswith(_KEY):
            key = await self._keys.key(principal.removeprefix(_KEY))
            if (problem := self._problem(key, ctx)) is not None:
                return problem
            models = key.models if key is not None else None
        elif principal.startswith(_USER):
            models = self._rules.user_models
        if action == INFER and not permits(models, target):
            return Deny("this caller may not ask that model")
        claims = self._claims_of(scope.tenant, principal, key)
        if not claims:
            return _ALLOWED
        if need is None or need.usd is None:
            if any(claim.limits.budgeted for claim in claims):
                return Deny(
                    "its price is not known, and a budget of dollars is in force; "
                    f'give its prices under [models."{target}"]'
                )
            need = need or Need(1)
        found = await self._quota.take(scope, claims, bound_of(need))
        if isinstance(found, Taken):
            return Allow(Held(self._quota, found))
        return _refuse(found, claims, need)

    def _problem(self, key: Key | None, ctx: Context) -> Deny | None:
        """What is wrong with a key, or with what it is used for."""
        if key is None or not self._keys.good(key):
            return Deny("the key is not known, has expired or is revoked")
        if key.scope != ctx.run.scope:
            return Deny("the key is another tenant's or environment's")
        return None if INFER in key.scopes else Deny(f"the key has no scope {INFER}")

    def _claims_of(self, tenant: str, principal: str, key: Key | None) -> tuple[Claim, ...]:
        """The accounts that limit a caller."""
        kept = self._claims.get((tenant, principal))
        if kept is not None and kept[0] is key:
            return kept[1]
        rules = self._rules
        accounts: list[tuple[str, Limits]] = []
        if key is not None:
            accounts.append((principal, key.limits.over(rules.key)))
        user = key.user if key is not None else principal.removeprefix(_USER) if principal.startswith(_USER) else None
        if user is not None:
            accounts.append((f"{_USER}{user}", rules.user))
        accounts.append((TENANT, rules.tenants.get(tenant, NO_LIMITS).over(rules.tenant)))
        claims = tuple(Claim(account, limits) for account, limits in accounts if limits != NO_LIMITS)
        if len(self._claims) >= _REMEMBERED:
            self._claims.clear()
        self._claims[tenant, principal] = (key, claims)
        return claims


def _refuse(refused: Refused, claims: Sequence[Claim], need: Need) -> Deny:
    """Say what stands in the way.

    Returns:
        Deny, where no waiting and no spending less before would help: this call alone is more than is ever allowed.
    """
    limit, claim = refused.limit, next(claim for claim in claims if claim.account == refused.account)
    allowed: int = getattr(claim.limits, limit)
    whose = refused.account.partition(":")[0]
    detail = {"limit": limit, "account": refused.account}
    if limit in BUDGETS:
        dollars = f"{allowed / 10**_MONEY_DIGITS:.{_MONEY_DIGITS}f}".rstrip("0").rstrip(".")
        raise BudgetExceeded(
            f"the {whose}'s budget of {dollars} {_WHAT[limit]} has not enough left: this call may cost {need.usd:g}",
            detail=detail | {"resets_in": refused.retry_after},
        )
    if isinf(refused.retry_after):
        return Deny(f"it may need {_asked(limit, need)} and its {whose} is allowed {allowed} {_WHAT[limit]}")
    raise LimitReached(
        f"the {whose} is allowed {allowed} {_WHAT[limit]}", retry_after=refused.retry_after, detail=detail
    )


def _asked(limit: Limit, need: Need) -> str:
    return f"{need.tokens} tokens" if limit == "tokens_per_minute" else f"{need.calls} calls"
