"""Answers that wait for a person's score, oldest first."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic_core import from_json

from kaizen.core.identity import Identity
from kaizen.core.record import Record, RecordQuery
from kaizen.learn.data.curate import OWN
from kaizen.learn.feed import id_at
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.scores import FEEDBACK
from kaizen.ledger.views import as_json
from kaizen.serve.http.entering import ADMIN, Caller, shown
from kaizen.serve.http.learn.inputs import Name
from kaizen.serve.http.learn.seams import Learning

_OURS: Final = "kaizen."
_ANSWERS: Final = frozenset({"program", "model"})
_WEEK_S: Final = 7 * 86_400
_READ: Final = 2_000
"""Records that one request looks at."""
_SHOWN: Final = 64 * 1024


def queue_routes(learning: Learning) -> APIRouter:
    """The queue. A score goes to ``POST /api/v1/records/{id}/score``."""
    routes = APIRouter(prefix="/api/v1/queue", tags=["learn"])

    @routes.get("")
    async def list_unscored(
        who: Caller,
        program: Annotated[Name | None, Query(description="only answers of this program, by its whole name")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        seconds: Annotated[float, Query(ge=1, le=366 * 86_400, description="how far back")] = _WEEK_S,
        after: Annotated[str, Query(max_length=64, description="go on from here: `after` of the answer before")] = "",
    ) -> Response:
        """Answers that nobody has scored, with what went in and came out.

        A key with the scope ``admin`` sees all of its tenant, another one its own. Where there is ``more`` to look at,
        ``after`` says where to go on, though none may be among what was looked at.
        """
        start = max(after, id_at(time.time() - seconds))
        found, last = await _unscored(learning.ledger, who, program, start, limit)
        contents = [await contents_of(learning.ledger, record) for record in found]
        listed = [{**as_json(record), **one} for record, one in zip(found, contents, strict=True)]
        return shown({"records": listed, "more": last is not None, "after": last})

    _ = list_unscored
    return routes


async def _unscored(
    ledger: Ledger, who: Identity, program: str | None, start: str, limit: int
) -> tuple[list[Record], str | None]:
    """So many of them, and the id up to which was looked where there may be more."""
    found: list[Record] = []
    read, last = 0, start
    query = RecordQuery(root_only=True, status="ok", after=start, ref=program, limit=_READ)
    async for record in ledger.records(who.scope, query):
        read += 1
        theirs = ADMIN in who.scopes or record.principal == who.principal
        if theirs and _is_answer(record) and not await _is_scored(ledger, record):
            if len(found) == limit:
                return found, last
            found.append(record)
        last = record.id
    return found, last if read == _READ else None


async def _is_scored(ledger: Ledger, record: Record) -> bool:
    """Whether a person has scored it: found by index."""
    query = RecordQuery(kind="score", ref=FEEDBACK, about=record.id, limit=1)
    return bool([score async for score in ledger.records(record.scope, query)])


def _is_answer(record: Record) -> bool:
    """Whether it answers somebody: tests, searches and steps of loops do not."""
    return record.kind in _ANSWERS and not record.principal.startswith(OWN) and not record.ref.startswith(_OURS)


async def contents_of(ledger: Ledger, record: Record) -> dict[str, Any]:
    """What went in and came out; null where it is not kept or erased, and cut where it is long."""
    made: dict[str, Any] = {}
    for name, address in (("input", record.input_digest), ("output", record.output_digest)):
        data = await ledger.payload(record.scope, address)
        if data is not None and len(data) > _SHOWN:
            made[name] = f"{data[:_SHOWN].decode(errors='replace')}… ({len(data)} bytes)"
            continue
        try:
            made[name] = None if data is None else from_json(data)
        except ValueError:  # what another application sent need not be JSON
            made[name] = data.decode(errors="replace") if data is not None else None
    return made
