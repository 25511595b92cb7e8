"""Recorded calls asked again, whole and shortened: how often their answers agree is what may be risked later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from kaizen.app import App
from kaizen.app.compression import make_compressor, make_evidence
from kaizen.app.measured.recorded import request_of
from kaizen.core.identity import Identity
from kaizen.core.record import RecordQuery
from kaizen.core.request import Options, Reply, Request
from kaizen.inference.compress.calibrate import Calibration
from kaizen.inference.compress.calibrate import calibrate as measure
from kaizen.serve.doors import Calibrating

# Asked of the model itself: no layer may answer, shorten or send it elsewhere.
_PLAIN: Final = Options(exact=False, semantic=False, compress=False, batch=False, routing="explicit")
_OURS: Final = "calibrate"


async def calibrate(app: App, wanted: Calibrating) -> Calibration:
    """Ask recorded calls again, newest first, whole and at each level, and keep how often the answers agreed.

    Each is asked up to once a level and once whole, past all caches; it is paid, counted against the policy and
    recorded like any other.

    Args:
        app: through which they are asked.
        wanted: which, and how many calls it may take.

    Raises:
        ConfigError: what it needs is not installed.
    """
    context = app.context(Identity(wanted.scope, _OURS))

    async def ask(request: Request) -> Reply:
        return await context.complete(replace(request, options=replace(_PLAIN, task=request.options.task)))

    return await measure(
        ask,
        [one async for one in _recorded(app, wanted)],
        make_compressor(app.settings),
        make_evidence(app.settings),
        budget=wanted.calls,
        told=wanted.told,
    )


async def _recorded(app: App, wanted: Calibrating) -> AsyncIterator[Request]:
    """Different recorded calls whose contents are still kept, newest first; no more than the budget is good for."""
    seen: set[str] = set()
    async for record in app.ledger.records(wanted.scope, RecordQuery(kind="model", status="ok", newest_first=True)):
        if (wanted.task and record.task != wanted.task) or record.principal == _OURS:
            continue
        if 2 * len(seen) >= wanted.calls:  # each takes two calls at least
            return
        if record.input_digest in seen:
            continue
        request = await request_of(app, record)
        if request is not None:
            seen.add(record.input_digest or "")
            yield request if wanted.model is None else replace(request, model=wanted.model)
