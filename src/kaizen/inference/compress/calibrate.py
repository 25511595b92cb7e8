"""Measures the risk beforehand: recorded calls are asked again, whole and shortened, and their answers compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from kaizen.core.errors import InvalidInput, NotFound, ProviderError
from kaizen.core.message import Message
from kaizen.core.request import Reply, Request
from kaizen.inference.compress.compressor import Compressor, Level
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
    budget: int | None = None,
    told: Callable[[int, int], None] = lambda calls, prompts: None,
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
        budget: calls at most; None is as many as it takes.
        told: told the calls made and the requests done, after each of those.

    Raises:
        KaizenError: a call may not be made, as where a budget is spent; what was measured by then is kept.
    """
    found = Calibration()
    rows: dict[tuple[str, str, int], Measured] = {}
    gate = asyncio.Semaphore(at_once)
    done = 0

    async def asked(request: Request) -> Reply | None:
        if budget is not None and found.asked >= budget:
            return None
        found.asked += 1
        try:
            return await ask(request)
        except (ProviderError, NotFound, InvalidInput):  # its model is gone, or takes no such call any more
            found.failed += 1
            return None

    async def one(request: Request) -> None:
        nonlocal done
        async with gate:
            # a whole prompt alone says nothing
            if budget is None or found.asked + 2 <= budget:
                await _compare(asked, request, compressor, evidence, rows)
        done += 1
        told(found.asked, done)

    try:
        async with asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(one(request))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None  # such as a spent budget: one is as good as all
    found.measured = [rows[key] for key in sorted(rows)]
    return found


async def _compare(
    asked: Callable[[Request], Awaitable[Reply | None]],
    request: Request,
    compressor: Compressor,
    evidence: Evidence,
    rows: dict[tuple[str, str, int], Measured],
) -> None:
    task = task_of(request)
    shorter = [(number, level, await compressor.shorten(request, level)) for number, level in _stronger(compressor)]
    shorter = [one for one in shorter if one[2].request is not request]
    whole = await asked(request) if shorter else None
    if whole is None:
        return
    answers: dict[tuple[Message, ...], Reply | None] = {request.messages: whole}
    for number, level, short in shorter:
        key = short.request.messages
        if key not in answers:
            answers[key] = await asked(short.request)
        other = answers[key]
        if other is None or other.model != whole.model:  # two models may differ whatever they were sent
            continue
        agreed = agree(whole, other)
        await asyncio.to_thread(evidence.add, request.scope, request.model, task, number, agreed=agreed)
        row = rows.setdefault((task, request.model, number), Measured(task, request.model, level.name))
        row.agreement = Agreement(row.agreement.compared + 1, row.agreement.differed + (not agreed))
        row.before += whole.usage.tokens_in
        row.after += other.usage.tokens_in


def _stronger(compressor: Compressor) -> Iterator[tuple[int, Level]]:
    """The levels above the one that loses nothing."""
    return enumerate(compressor.levels[1:], 1)
