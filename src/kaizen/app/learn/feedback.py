"""People's words on answers, kept as scores and told to whoever watches how the models do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kaizen.core.record import Record
from kaizen.ledger.scores import FEEDBACK, keep_feedback

if TYPE_CHECKING:
    from kaizen.app import App
    from kaizen.serve.portal import Portal


async def give(
    app: App, about: Record, value: float, comment: str = "", correct: Mapping[str, Any] | None = None, by: str = ""
) -> Record:
    """Keep a word on an answer; see ``keep_feedback``."""
    kept = await keep_feedback(app.ledger, about, value, comment=comment, correct=correct, by=by)
    if about.model is not None:
        app.health.score(about.model, FEEDBACK, value)
    return kept


def feedback(
    app: App, about: Record, value: float, comment: str, correct: Mapping[str, Any] | None, portal: Portal
) -> Awaitable[Record]:
    """``give``, at once where no event loop runs in this thread."""
    work = partial(give, app, about, value, comment, correct)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _Done(portal.call(work, "record.score"))
    return work()


class _Done:
    """A result that is there already, whoever awaits it."""

    def __init__(self, result: Record) -> None:
        self._result = result

    def __await__(self) -> Any:
        """It, without waiting."""
        return self._result
        yield
