"""Measures the risk beforehand: recorded calls are asked again, whole and shortened, and their answers compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from kaizen.core.errors import ProviderError
from kaizen.core.request import Reply, Request
from kaizen.inference.compress.compressor import Compressor
from kaizen.inference.compress.evidence import Agreement, Evidence, agree
from kaizen.inference.compress.layer import task_of


@dataclass(slots=True)
class Measured:
    """What was measured of one type of task on one model at one level.

    Args:
        task, model, level: of what; the level's name.
        agreement: how often the answers agreed.
        before, after: prompt tokens of all those calls, whole and shortened, as the provider counted them.
    """

    task: str
    model: str
    level: str
    agreement: Agreement = field(default_factory=Agreement)
    before: int = 0
    after: int = 0


@dataclass(slots=True)
class Calibration:
    """What a calibration found.

    Args:
        measured: by type of task, model and level.
        asked: calls that were made.
        failed: calls that ended with an error and count for nothing.
    """

    measured: list[Measured] = field(default_factory=list[Measured])
    asked: int = 0
    failed: int = 0


async def calibrate(
    ask: Callable[[Request], Awaitable[Reply]],
    requests: Sequence[Request],
    compressor: Compressor,
    evidence: Evidence,
    *,
    at_once: int = 4,
) -> Calibration:
    """Ask each request whole, then at each level that shortens it, and keep which answers agreed.

    A level that does to a prompt what a milder one did is not asked again: its answer is the same. One that leaves a
    prompt whole says nothing and is not counted.

    Args:
        ask: asks a model: below every cache and not through this layer, or there is nothing to compare.
        requests: a sample of what is really asked.
        compressor: shortens.
        evidence: where to keep the agreements.
        at_once: calls in the air.
    """
    found = Calibration()
    rows: dict[tuple[str, str, int], Measured] = {}
    gate = asyncio.Semaphore(at_once)

    async def one(request: Request) -> None:
        async with gate:
            await _compare(ask, request, compressor, evidence, found, rows)

    async with asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(one(request))
    found.measured = [rows[key] for key in sorted(rows)]
    return found


async def _compare(
    ask: Callable[[Request], Awaitable[Reply]],
    request: Request,
    compressor: Compressor,
    evidence: Evidence,
    found: Calibration,
    rows: dict[tuple[str, str, int], Measured],
) -> None:
    task = task_of(request)
    whole = await _asked(ask, request, found)
    if whole is None:
        return
    answers: dict[int, Reply | None] = {hash(request.messages): whole}
    for number, level in enumerate(compressor.levels[1:], 1):
        short = await compressor.shorten(request, level)
        if short.request is request:
            continue
        key = hash(short.request.messages)
        if key not in answers:
            answers[key] = await _asked(ask, short.request, found)
        other = answers[key]
        if other is None:
            continue
        agreed = agree(whole, other)
        await asyncio.to_thread(evidence.add, request.scope, request.model, task, number, agreed=agreed)
        row = rows.setdefault((task, request.model, number), Measured(task, request.model, level.name))
        row.agreement = Agreement(row.agreement.compared + 1, row.agreement.differed + (not agreed))
        row.before += whole.usage.tokens_in
        row.after += other.usage.tokens_in


async def _asked(ask: Callable[[Request], Awaitable[Reply]], request: Request, found: Calibration) -> Reply | None:
    found.asked += 1
    try:
        return await ask(request)
    except ProviderError:
        found.failed += 1
        return None
