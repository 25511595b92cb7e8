"""``POST /api/v1/records/{id}/score``: a caller's word on an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from pydantic_core import to_json

from kaizen.core.errors import InvalidInput, NotFound
from kaizen.core.identity import INFER, TRACE, Identity
from kaizen.core.protocols import Need, Policy
from kaizen.core.record import Record
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.scores import keep_feedback, value_of
from kaizen.programs.calls import leased
from kaizen.serve.http.backend import Contexts
from kaizen.serve.http.call import JSON, Call
from kaizen.serve.http.door import Door

PATH: Final = "/api/v1/records/"
_END: Final = "/score"
_LONGEST: Final = 64 * 1024
_NEED: Final = Need(1, 0, 0.0)


class ScoreBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A word on an answer: ``score``, ``stars`` or ``thumbs``, and what should have come out."""

    score: float | None = None
    stars: float | None = None
    thumbs: str | None = None
    comment: str = ""
    correct: dict[str, Any] | None = None


class Scores:
    """Takes scores about records of the caller's tenant.

    Args:
        ledger: the records.
        door: lets callers in, those that may ask models.
        contexts: surroundings for calls.
        policy: asked before each: a score counts as a call, of no tokens and no cost.
        told: hears the model, the value and the answer's record of each.
    """

    def __init__(
        self,
        ledger: Ledger,
        door: Door,
        *,
        contexts: Contexts,
        policy: Policy | None = None,
        told: Callable[[Record, float], None] | None = None,
    ) -> None:
        self._ledger, self._door, self._contexts, self._policy, self._told = ledger, door, contexts, policy, told

    async def take(self, call: Call) -> None:
        """Keep a score; the answer names its record."""
        identity = await self._door.enter(call, INFER)
        lease = await leased(self._policy, self._contexts(identity), TRACE, "scores", _NEED)
        try:
            kept = await self._kept(call, identity)
        finally:
            if lease is not None:
                await lease.settle(_NEED)
        await call.answer(201, to_json({"id": kept.id, "about": kept.about, "score": kept.value}), (JSON,))

    async def _kept(self, call: Call, identity: Identity) -> Record:
        record_id = call.path.removeprefix(PATH).removesuffix(_END)
        if not call.path.endswith(_END) or not record_id or "/" in record_id:
            raise NotFound(f"there is nothing at {call.path}; a score goes to {PATH}<id>{_END}")
        body = _read(await call.body(_LONGEST))
        value = value_of(body.score, stars=body.stars, thumbs=body.thumbs, correct=body.correct)
        about = await self._ledger.record(identity.scope, record_id)
        kept = await keep_feedback(
            self._ledger, about, value, comment=body.comment, correct=body.correct, by=identity.principal
        )
        if self._told is not None:
            self._told(about, value)
        return kept


def _read(data: bytes) -> ScoreBody:
    try:
        return msgspec.json.decode(data, type=ScoreBody)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the body is no score: {error}") from None
