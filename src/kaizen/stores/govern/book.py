"""The arithmetic of accounts, without I/O. PostgreSQL and Redis do the same in their own languages.

All numbers are whole. A minute's allowance of N is a bucket that holds N and gains N a minute. Its level is kept in
``UNIT`` parts of a request or token, so that each millisecond adds exactly N parts and nothing is ever rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from kaizen.core.identity import Amount, Claim, Limit, Limits, Refused
from kaizen.core.quick.values import quick

UNIT: Final = 60_000
DAY_MS: Final = 86_400_000
# Whoever waits for another call to end can't know when that is.
BUSY_RETRY_S: Final = 1.0

_STRAY_MS: Final = 60_000


@dataclass(slots=True)
class Account:
    """How much an account has left and has spent, as a row of a table.

    Args:
        requests, tokens: levels of the buckets; None is a full one.
        at: when they were filled last, Unix milliseconds.
        day, usd_day, month, usd_month: the periods, and the nano-dollars charged in them.
    """

    requests: int | None = None
    tokens: int | None = None
    at: int = 0
    day: int = 0
    usd_day: int = 0
    month: int = 0
    usd_month: int = 0


@dataclass(frozen=True, slots=True)
class Now:
    """A moment: Unix milliseconds, and days and months since 1970, UTC."""

    ms: int
    day: int
    month: int


def moment(seconds: float) -> Now:
    """The moment of a Unix time."""
    ms = int(seconds * 1000)
    day = ms // DAY_MS
    return Now(ms, day, _months(day))


def next_day_ms(now: Now) -> int:
    """When the day ends."""
    return (now.day + 1) * DAY_MS


def next_month_ms(now: Now) -> int:
    """When the month ends."""
    year, month = divmod(now.month + 1, 12)
    return int(datetime(1970 + year, month + 1, 1, tzinfo=UTC).timestamp()) * 1000


_last_month = (-1, 0)


def _months(day: int) -> int:
    global _last_month
    if _last_month[0] != day:
        date = datetime.fromtimestamp(day * 86_400, UTC)
        _last_month = (day, (date.year - 1970) * 12 + date.month - 1)
    return _last_month[1]


def advance(account: Account, limits: Limits, now: Now) -> None:
    """Bring an account up to now: fill its buckets, begin new periods.

    Time never runs backwards here: a clock that is set back a little, over midnight, must not empty a budget's
    count twice. One that was far ahead is believed to have been wrong.
    """
    elapsed = now.ms - account.at
    if elapsed < 0 and elapsed >= -_STRAY_MS:
        elapsed = 0
    else:
        account.at = now.ms
        elapsed = max(0, min(elapsed, _STRAY_MS))
    account.requests = _filled(account.requests, limits.requests_per_minute, elapsed)
    account.tokens = _filled(account.tokens, limits.tokens_per_minute, elapsed)
    if now.day > account.day or account.day - now.day > 1:
        account.day, account.usd_day = now.day, 0
    if now.month > account.month or account.month - now.month > 1:
        account.month, account.usd_month = now.month, 0


def _filled(level: int | None, per_minute: int | None, elapsed: int) -> int | None:
    if per_minute is None:
        return None
    full = per_minute * UNIT
    return full if level is None else min(full, level + elapsed * per_minute)


def obstacle(account: Account, claim: Claim, amount: Amount, now: Now, in_air: int) -> Refused | None:
    """What stands in the way of an amount; of several things, the one that lasts longest. Budgets come first.

    Args:
        account: brought up to now.
        claim: what it may use.
        amount: what is asked for.
        now: the moment.
        in_air: its calls that are in the air.
    """
    limits, longest = claim.limits, 0.0
    limit: Limit = "concurrent"
    if amount.usd:
        day, month = limits.usd_per_day, limits.usd_per_month
        if month is not None and account.usd_month + amount.usd > month:
            return Refused(claim.account, "usd_per_month", (next_month_ms(now) - now.ms) / 1000)
        if day is not None and account.usd_day + amount.usd > day:
            return Refused(claim.account, "usd_per_day", (next_day_ms(now) - now.ms) / 1000)
    if limits.requests_per_minute is not None:
        wait = _wait(account.requests, limits.requests_per_minute, amount.calls)
        if wait > longest:
            limit, longest = "requests_per_minute", wait
    if limits.tokens_per_minute is not None:
        wait = _wait(account.tokens, limits.tokens_per_minute, amount.tokens)
        if wait > longest:
            limit, longest = "tokens_per_minute", wait
    if limits.concurrent is not None and in_air + amount.calls > limits.concurrent:
        wait = BUSY_RETRY_S if amount.calls <= limits.concurrent else float("inf")
        if wait > longest:
            limit, longest = "concurrent", wait
    return Refused(claim.account, limit, longest) if longest else None


def _wait(level: int | None, per_minute: int, wanted: int) -> float:
    """Seconds until a bucket holds enough, to the millisecond above; infinite where it never does."""
    if wanted > per_minute:
        return float("inf")
    missing = wanted * UNIT - (per_minute * UNIT if level is None else level)
    return -(-missing // per_minute) / 1000 if missing > 0 else 0.0


def charge(account: Account, amount: Amount) -> None:
    """Take an amount."""
    if account.requests is not None:
        account.requests -= amount.calls * UNIT
    if account.tokens is not None:
        account.tokens -= amount.tokens * UNIT
    account.usd_day += amount.usd
    account.usd_month += amount.usd


def correct(account: Account, less: Amount, day: int, month: int) -> None:
    """Give back what was taken and not used (or take what was used beyond it) in the periods it was charged to."""
    if account.requests is not None:
        account.requests += less.calls * UNIT
    if account.tokens is not None:
        account.tokens += less.tokens * UNIT
    if account.day == day:
        account.usd_day -= less.usd
    if account.month == month:
        account.usd_month -= less.usd


def minus(one: Amount, other: Amount) -> Amount:
    """What is left."""
    return Amount(one.calls - other.calls, one.tokens - other.tokens, one.usd - other.usd)


# -- a batch --------------------------------------------------------------------------------------


@dataclass(slots=True)
class TakeOp:
    """A call of ``take`` on its way to the store."""

    tenant: str
    claims: tuple[Claim, ...]
    amount: Amount


@quick
@dataclass(frozen=True, slots=True)
class SettleOp:
    """What one call gives back.

    Args:
        tenant, accounts: to whom.
        less: what was taken less what was used.
        day, month: the periods it was charged to.
        waiting: the mark of a call that was not sent, which goes with it.
        whole: what was taken. Where the mark is gone, all of it was given back before.
    """

    tenant: str
    accounts: tuple[str, ...]
    less: Amount
    day: int
    month: int
    waiting: str | None
    whole: Amount


@dataclass(frozen=True, slots=True)
class WaitOp:
    """A call that is not sent yet, or is about to be.

    Args:
        back: what it gives back if its process dies: all of it; ``waiting`` is its mark.
        sent: whether the mark goes. Where it is gone, all is taken once more.
    """

    back: SettleOp
    sent: bool


@quick
@dataclass(frozen=True, slots=True)
class Batch:
    """What one holder tells the store at once. Done in this order: settles, waits, takes.

    Args:
        holder: who; a loop of a process.
        hold_ms: how long its calls in the air, and what waits, count without another word of it.
        settles, waits, takes: see there.
        air: its calls in the air before the takes, by tenant and account, for accounts that limit them. The store
            puts it in the place of what it knew, so that nothing that was lost on the way stays counted.
        alive: tenant and mark of all that waits, where it lives on for another ``hold_ms``; None where nothing is
            said of that.
    """

    holder: str
    hold_ms: int
    settles: Sequence[SettleOp]
    waits: Sequence[WaitOp]
    takes: Sequence[TakeOp]
    air: Mapping[tuple[str, str], int]
    alive: Sequence[tuple[str, str]] | None


@dataclass(frozen=True, slots=True)
class Charged:
    """A take that passed, and the periods it was charged to."""

    day: int
    month: int


def work(
    takes: Sequence[TakeOp],
    now: Now,
    account_of: Callable[[str, str], Account],
    air_of: Callable[[str, str], int],
    add_air: Callable[[str, str, int], None],
) -> list[Charged | Refused]:
    """Do the takes of a batch, one after another.

    Args:
        takes: what is wanted.
        now: the moment.
        account_of: the account, to be changed in place.
        air_of: calls in the air of an account, everybody's.
        add_air: add this holder's.
    """
    outcomes: list[Charged | Refused] = []
    charged = Charged(now.day, now.month)
    for take in takes:
        tenant, amount, refused = take.tenant, take.amount, None
        accounts: list[Account] = []
        for claim in take.claims:
            account = account_of(tenant, claim.account)
            advance(account, claim.limits, now)
            accounts.append(account)
            in_air = 0 if claim.limits.concurrent is None else air_of(tenant, claim.account)
            found = obstacle(account, claim, amount, now, in_air)
            if found is not None:
                refused = heavier(refused, found)
        if refused is not None:
            outcomes.append(refused)
            continue
        for claim, account in zip(take.claims, accounts, strict=True):
            charge(account, amount)
            if claim.limits.concurrent is not None:
                add_air(tenant, claim.account, amount.calls)
        outcomes.append(charged)
    return outcomes


def heavier(one: Refused | None, other: Refused | None) -> Refused | None:
    """Of two obstacles the one to tell: a budget's before all others, then the one that lasts longer."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda refused: (refused.limit.startswith("usd"), refused.retry_after))
