"""The page, and what it shows of calls and costs: closed to all but keys with the scope ``admin``.

The files of the page hold no data, so they are open; what they show comes as JSON, for the tenant of the key alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from itertools import islice
from typing import Any, Final, get_args
from urllib.parse import parse_qsl

from pydantic_core import from_json, to_json

from kaizen.core.errors import InvalidInput, NotFound
from kaizen.core.identity import Identity
from kaizen.core.record import Record, RecordQuery
from kaizen.ledger.costs import CostsBy, costs
from kaizen.ledger.ledger import Ledger, Node
from kaizen.ledger.views import as_json
from kaizen.serve.http import page
from kaizen.serve.http.call import JSON, Call
from kaizen.serve.http.door import Door

ADMIN: Final = "admin"
_MOST: Final = 500
_WEEK_S: Final = 7 * 86_400
_YEAR_S: Final = 366 * 86_400
# Contents longer than this are cut in the trace: it is to be looked at; `kaizen runs export --payloads` has all.
_SHOWN: Final = 64 * 1024
_NODES: Final = 1000  # calls of one run
_SCORES: Final = 4

FILES: Final[Mapping[str, tuple[str, bytes]]] = {
    "/": ("page.html", b"text/html; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
    "/learn.js": ("learn.js", b"text/javascript; charset=utf-8"),
}
# The page loads its own two files, talks to its own server and can't be framed: what a model wrote could run nowhere.
_GUARDS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)
_DATA: Final = (JSON, (b"cache-control", b"no-store"))


class Page:
    """The page and what it shows.

    Args:
        ledger: the records.
        door: lets callers in.
    """

    def __init__(self, ledger: Ledger, door: Door) -> None:
        self._ledger, self._door = ledger, door

    async def file(self, call: Call) -> None:
        """One of the page's files."""
        name, kind = FILES[call.path]
        await call.answer(200, _file(name), ((b"content-type", kind), *_GUARDS))

    async def records(self, call: Call) -> None:
        """The latest calls from outside, newest first: ``?limit=50``."""
        identity, query = await self._enter(call, {"limit"})
        limit = int(_number(query, "limit", 50, _MOST))
        # more than are shown, since scores stand among them
        wanted = RecordQuery(root_only=True, newest_first=True, limit=limit * _SCORES)
        found = [as_json(one) async for one in self._ledger.records(identity.scope, wanted) if one.kind != "score"]
        await call.answer(200, to_json({"records": found[:limit]}, inf_nan_mode="null"), _DATA)

    async def run(self, call: Call) -> None:
        """A run's calls in program order, each with its depth: ``?id=``."""
        identity, query = await self._enter(call, {"id"})
        trees = await self._ledger.tree(identity.scope, query.get("id", ""))
        if not trees:
            raise NotFound("there is no such run")
        shown = [{**as_json(record), "depth": depth} for depth, record in islice(_flat(trees), _NODES + 1)]
        body = {"calls": shown[:_NODES], "more": len(shown) > _NODES}
        await call.answer(200, to_json(body, inf_nan_mode="null"), _DATA)

    async def contents(self, call: Call) -> None:
        """What went into a call and what came out, null where it is not kept: ``?id=`` of its record."""
        identity, query = await self._enter(call, {"id"})
        record = await self._ledger.record(identity.scope, query.get("id", ""))
        shown = {
            "input": _content(await self._ledger.payload(identity.scope, record.input_digest)),
            "output": _content(await self._ledger.payload(identity.scope, record.output_digest)),
        }
        await call.answer(200, to_json(shown, inf_nan_mode="null"), _DATA)

    async def costs(self, call: Call) -> None:
        """Costs by group: ``?by=model&seconds=604800``. One pass over the tenant's records of that time."""
        identity, query = await self._enter(call, {"by", "seconds"})
        by: CostsBy | None = next((known for known in get_args(CostsBy) if known == query.get("by", "model")), None)
        if by is None:
            raise InvalidInput(f"by should be one of {', '.join(get_args(CostsBy))}")
        since = time.time() - _number(query, "seconds", _WEEK_S, _YEAR_S)
        found = await costs(self._ledger.store, identity.scope, by, RecordQuery(since=since))
        await call.answer(200, to_json({"costs": [asdict(one) for one in found]}), _DATA)

    async def _enter(self, call: Call, known: set[str]) -> tuple[Identity, Mapping[str, str]]:
        identity = await self._door.enter(call, ADMIN)
        try:
            query = dict(parse_qsl(call.query.decode("ascii", "replace"), max_num_fields=16))
        except ValueError:
            raise InvalidInput("the query has too many parameters") from None
        if unknown := sorted(query.keys() - known):
            raise InvalidInput(f"{unknown[0]!r} is no parameter here; there are {', '.join(sorted(known))}")
        return identity, query


def _flat(trees: Sequence[Node]) -> Iterator[tuple[int, Record]]:
    """The calls as they are read, from the top. Without recursion: spans of others nest as deep as they like."""
    pending = [(0, node) for node in reversed(trees)]
    while pending:
        depth, node = pending.pop()
        yield depth, node.record
        pending += [(depth + 1, child) for child in reversed(node.children)]


def _content(data: bytes | None) -> Any:
    if data is None:
        return None
    if len(data) > _SHOWN:
        return f"{data[:_SHOWN].decode(errors='replace')}… ({len(data)} bytes)"
    try:
        return from_json(data)
    except ValueError:  # what another application sent need not be JSON
        return data.decode(errors="replace")


def _number(query: Mapping[str, str], name: str, usual: float, most: float) -> float:
    """A positive number of the query.

    Raises:
        InvalidInput: if it is none.
    """
    try:
        value = float(query.get(name, usual))
    except ValueError:
        value = math.nan
    if not 1 <= value <= most:
        raise InvalidInput(f"{name} should be a number from 1 to {most:g}")
    return value


@cache
def _file(name: str) -> bytes:
    return resources.files(page).joinpath(name).read_bytes()
