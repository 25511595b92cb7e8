"""``kaizen keys create``, ``list``, ``revoke`` and ``rotate``."""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from kaizen.core.identity import INFER, MOST_USD, NANO, SCOPES, Key, Limits, nano_usd
from kaizen.core.scope import Scope
from kaizen.govern.keys import Issued, Keys
from kaizen.serve.arguments import Command, Parser, say, whole_number
from kaizen.serve.commands.tables import json_text, when, write_table
from kaizen.serve.doors import Doors
from kaizen.serve.errors import OK

T = TypeVar("T")

_SPAN: Final = re.compile(r"(\d+)([smhdw])")
_SECONDS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_COLUMNS: Final = ("id", "name", "tenant", "environment", "user", "scopes", "models", "limits", "last used", "state")


def _run(keys: Keys, work: Callable[[Keys], Awaitable[T]]) -> T:
    async def working() -> T:
        try:
            return await work(keys)
        finally:
            await keys.close()

    return asyncio.run(working())


# -- what the words mean --------------------------------------------------------------------------


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} should be letters, digits, '_', '.' and '-'")
    return text


def _dollars(text: str) -> int:
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if not 0 <= usd <= MOST_USD:
        raise argparse.ArgumentTypeError(f"should be dollars, from 0 to {MOST_USD:,}, not {text!r}")
    return nano_usd(usd)


def _scopes(text: str) -> frozenset[str]:
    found = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not found or found - SCOPES:
        raise argparse.ArgumentTypeError(f"{text!r} should be some of {', '.join(sorted(SCOPES))}, with commas")
    return found


def _span(text: str) -> float:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time: write 30m, 2h or 7d")
    return float(int(found[1]) * _SECONDS[found[2]])


def _end(text: str) -> float:
    if _SPAN.fullmatch(text):
        return time.time() + _span(text)
    try:
        end = datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 90d or 2031-05-28") from None
    if end <= time.time():
        raise argparse.ArgumentTypeError(f"{text} is past")
    return end


# -- create ---------------------------------------------------------------------------------------


def _create_arguments(parser: Parser) -> None:
    parser.add_argument("--tenant", type=_name, metavar="NAME", help="whose calls it makes (default: the settings')")
    parser.add_argument(
        "--environment", type=_name, metavar="NAME", help="in which environment (default: the settings')"
    )
    parser.add_argument("--name", default="", metavar="TEXT", help="what people call it")
    parser.add_argument("--user", metavar="NAME", help="who gets it: the limits of that user hold too")
    parser.add_argument(
        "--scopes", type=_scopes, metavar="LIST", help=f"what it may do: {', '.join(sorted(SCOPES))} (default: {INFER})"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="REF",
        help="a model it may ask, or a pattern such as 'openai/*'; repeatable",
    )
    parser.add_argument("--expires", type=_end, metavar="WHEN", help="when it ends: 90d, or 2031-05-28")
    parser.add_argument(
        "--requests-per-minute", type=whole_number, metavar="N", help="a whole minute's at once, if need be"
    )
    parser.add_argument("--tokens-per-minute", type=whole_number, metavar="N", help="prompt and answer")
    parser.add_argument("--concurrent", type=whole_number, metavar="N", help="calls in the air")
    parser.add_argument("--budget-usd-per-day", type=_dollars, metavar="USD", help="from midnight to midnight, UTC")
    parser.add_argument("--budget-usd-per-month", type=_dollars, metavar="USD", help="a calendar month, UTC")
    parser.add_argument("--no-exact", action="store_true", help="its calls are never answered from the exact cache")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the key in it")


def _create(args: argparse.Namespace, doors: Doors) -> int:
    keys, here = doors.keys()
    scope = Scope(args.tenant or here.tenant, args.environment or here.environment)
    limits = Limits(
        requests_per_minute=args.requests_per_minute,
        tokens_per_minute=args.tokens_per_minute,
        concurrent=args.concurrent,
        usd_per_day=args.budget_usd_per_day,
        usd_per_month=args.budget_usd_per_month,
    )
    issued = _run(
        keys,
        lambda keys: keys.create(
            scope,
            name=args.name,
            user=args.user,
            scopes=args.scopes or frozenset({INFER}),
            models=args.model,
            limits=limits,
            expires_at=args.expires,
            exact=not args.no_exact,
        ),
    )
    _hand_out(issued, as_json=args.json)
    return OK


def _hand_out(issued: Issued, *, as_json: bool) -> None:
    """Print a key, once and alone, so that a script can take the last line."""
    if as_json:
        sys.stdout.write(f"{json_text({'key': issued.secret, **_shown(issued.key)})}\n")
        return
    key = issued.key
    say(f"key {key.id} of {key.scope}: {_limits(key.limits) or 'no limits of its own'}")
    say("it is shown this once; only its digest is kept:")
    sys.stdout.write(f"{issued.secret}\n")


CREATE: Final = Command(
    _create_arguments,
    _create,
    (
        ("kaizen keys create", "for the tenant of the settings; the key is the last line"),
        ("kaizen keys create --tenant acme --requests-per-minute 600 --budget-usd-per-day 5", "with limits"),
        ("kaizen keys create --scopes metrics --name prometheus --expires 90d", "for reading /metrics alone"),
        ("kaizen keys create --model 'openai/*' --model embedded/smollm2-135m", "for some models"),
    ),
)


# -- list -----------------------------------------------------------------------------------------


def _list_arguments(parser: Parser) -> None:
    parser.add_argument("--tenant", type=_name, metavar="NAME", help="only of this tenant")
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def _list(args: argparse.Namespace, doors: Doors) -> int:
    keys, _ = doors.keys()
    found = _run(keys, lambda keys: keys.list(args.tenant))
    if args.json:
        sys.stdout.write(f"{json_text([_shown(key) for key in found])}\n")
    elif not found:
        say("no keys; kaizen keys create makes one")
    else:
        write_table(_COLUMNS, [_row(key) for key in found])
    return OK


def _row(key: Key) -> tuple[str, ...]:
    return (
        key.id,
        key.name or "-",
        key.scope.tenant,
        key.scope.environment,
        key.user or "-",
        ",".join(sorted(key.scopes)),
        "all" if key.models is None else ",".join(key.models) or "none",
        _limits(key.limits) or "-",
        "never" if key.last_used_at is None else when(key.last_used_at),
        _state(key),
    )


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return f"revoked {when(key.revoked_at)}"
    if key.expires_at is not None:
        return f"{'expires' if key.live(time.time()) else 'expired'} {when(key.expires_at)}"
    return "good"


def _limits(limits: Limits) -> str:
    parts = (
        (limits.requests_per_minute, "requests/min"),
        (limits.tokens_per_minute, "tokens/min"),
        (limits.concurrent, "at once"),
    )
    shown = [f"{value} {what}" for value, what in parts if value is not None]
    money = ((limits.usd_per_day, "day"), (limits.usd_per_month, "month"))
    return ", ".join([*shown, *(f"${value / NANO:g}/{what}" for value, what in money if value is not None)])


def _shown(key: Key) -> dict[str, Any]:
    """A key for a script: nothing that would open anything."""
    limits = key.limits
    return {
        "id": key.id,
        "tenant": key.scope.tenant,
        "environment": key.scope.environment,
        "name": key.name,
        "user": key.user,
        "scopes": sorted(key.scopes),
        "models": key.models,
        "exact": key.exact,
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrent": limits.concurrent,
        "budget_usd_per_day": None if limits.usd_per_day is None else limits.usd_per_day / NANO,
        "budget_usd_per_month": None if limits.usd_per_month is None else limits.usd_per_month / NANO,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


LIST: Final = Command(
    _list_arguments,
    _list,
    (("kaizen keys list", "all keys, oldest first"), ("kaizen keys list --tenant acme --json", "for a script")),
)


# -- revoke and rotate ----------------------------------------------------------------------------


def _one_key(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", help="the key's id, as the list has it: the part between the underscores")
    parser.add_argument("--tenant", type=_name, metavar="NAME", help="only if it is this tenant's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _revoke(args: argparse.Namespace, doors: Doors) -> int:
    keys, _ = doors.keys()
    key = _run(keys, lambda keys: keys.revoke(args.id, tenant=args.tenant))
    if args.json:
        sys.stdout.write(f"{json_text(_shown(key))}\n")
    else:
        sys.stdout.write(f"key {key.id} of {key.scope} opens nothing any more\n")
    return OK


REVOKE: Final = Command(
    _one_key,
    _revoke,
    (("kaizen keys revoke 3f9a1c2b4d5e6f70", "it stops working everywhere within a second or two"),),
)


def _rotate_arguments(parser: Parser) -> None:
    _one_key(parser)
    parser.add_argument(
        "--overlap",
        type=_span,
        default=0.0,
        metavar="SPAN",
        help="how long the old one stays good: 30m, 2h (default: not)",
    )


def _rotate(args: argparse.Namespace, doors: Doors) -> int:
    keys, _ = doors.keys()
    issued = _run(keys, lambda keys: keys.rotate(args.id, overlap=args.overlap, tenant=args.tenant))
    _hand_out(issued, as_json=args.json)
    return OK


ROTATE: Final = Command(
    _rotate_arguments,
    _rotate,
    (
        ("kaizen keys rotate 3f9a1c2b4d5e6f70", "a new secret; the old one is worth nothing from now on"),
        ("kaizen keys rotate 3f9a1c2b4d5e6f70 --overlap 2h", "both work for two hours"),
    ),
)
