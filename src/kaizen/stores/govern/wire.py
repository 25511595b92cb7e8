"""Batches as JSON, for stores that do the arithmetic themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.identity import Amount, Limit, Refused
from kaizen.stores.govern.book import Batch, Charged, SettleOp, TakeOp

_LIMITS: Final[Sequence[Limit]] = (
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent",
    "usd_per_day",
    "usd_per_month",
)
NEVER_MS: Final = 10**15
"""A wait without an end."""


def packed(op: SettleOp) -> bytes:
    """What a call that waits gives back if nobody sends it."""
    whole = op.whole
    return to_json([op.tenant, op.accounts, whole.calls, whole.tokens, whole.usd, op.day, op.month])


def unpacked(data: bytes | str) -> SettleOp:
    """The same read again."""
    tenant, accounts, calls, tokens, usd, day, month = from_json(data)
    whole = Amount(calls, tokens, usd)
    return SettleOp(tenant, tuple(accounts), whole, day, month, None, whole)


def accounts_of(batch: Batch) -> list[tuple[str, str]]:
    """Tenant and name of every account of a batch, in the one order in which all lock them."""
    found = set(batch.air)
    for op in (*batch.settles, *(wait.back for wait in batch.waits)):
        found.update((op.tenant, account) for account in op.accounts)
    for take in batch.takes:
        found.update((take.tenant, claim.account) for claim in take.claims)
    return sorted(found)


def batch_json(batch: Batch, accounts: Sequence[tuple[str, str]]) -> bytes:
    """A batch, its accounts numbered from 1 as they stand in ``accounts``.

    Its members:

    * ``settles``: [accounts, calls, tokens, usd, day, month, mark, calls, tokens, usd], the last three where the mark
      was there and is gone;
    * ``waits``: [mark, what it gives back, as text];
    * ``takes``: [calls, tokens, usd, [[account, requests, tokens, concurrent, usd a day, usd a month], ...]];
    * ``air``: [account, calls].
    """
    place = {account: number for number, account in enumerate(accounts, 1)}
    tree: Mapping[str, Any] = {
        "settles": [_settle(op, place) for op in (*batch.settles, *(_sent(op.back) for op in batch.waits if op.sent))],
        "waits": [[wait.back.waiting, packed(wait.back).decode()] for wait in batch.waits if not wait.sent],
        "takes": [_take(take, place) for take in batch.takes],
        "air": [[place[account], calls] for account, calls in batch.air.items()],
    }
    return to_json(tree)


def _settle(op: SettleOp, place: Mapping[tuple[str, str], int]) -> list[Any]:
    less, whole = op.less, op.whole
    lost = (less.calls - whole.calls, less.tokens - whole.tokens, less.usd - whole.usd) if op.waiting else ()
    accounts = [place[op.tenant, account] for account in op.accounts]
    return [accounts, less.calls, less.tokens, less.usd, op.day, op.month, op.waiting, *lost]


def _sent(back: SettleOp) -> SettleOp:
    """Nothing is given back; where the mark is gone, all was, and is taken again."""
    return replace(back, less=Amount())


def _take(take: TakeOp, place: Mapping[tuple[str, str], int]) -> list[Any]:
    amount = take.amount
    claims = [
        [place[take.tenant, claim.account], *(getattr(claim.limits, limit) for limit in _LIMITS)]
        for claim in take.claims
    ]
    return [amount.calls, amount.tokens, amount.usd, claims]


def outcomes(batch: Batch, found: Sequence[Sequence[int]]) -> list[Charged | Refused]:
    """What became of the takes: [day, month] for one that passed, else [claim, limit, milliseconds], from 0."""
    read: list[Charged | Refused] = []
    for take, one in zip(batch.takes, found, strict=True):
        if len(one) == 2:
            read.append(Charged(int(one[0]), int(one[1])))
            continue
        claim, limit, ms = (int(number) for number in one)
        wait = float("inf") if ms >= NEVER_MS else ms / 1000
        read.append(Refused(take.claims[claim].account, _LIMITS[limit], wait))
    return read
