"""What is asked about the gateway itself: its models, its health, its counts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Final

from kaizen.core.errors import NotFound
from kaizen.core.identity import INFER, permits
from kaizen.serve.http.backend import Backend, Model, Readiness
from kaizen.serve.http.call import Call
from kaizen.serve.http.door import Door, credential_of
from kaizen.serve.http.metrics import Metrics
from kaizen.serve.http.wires.wire import to_text

METRICS: Final = "metrics"
_TEXT: Final = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
_READY_FOR_S: Final = 5.0  # probes come often, and each asks the providers


class Status:
    """The routes that ask no model.

    Args:
        backend: what is behind the gateway.
        door: who comes in.
        metrics: the counts.
        local: whether the gateway listens on loopback only: then its counts and its state are open.
    """

    def __init__(self, backend: Backend, door: Door, metrics: Metrics, *, local: bool) -> None:
        self._backend, self._door, self._metrics, self._local = backend, door, metrics, local
        self._known: Readiness | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def live(self, call: Call) -> None:
        """``GET /health/live``: this process runs."""
        await call.answer(200, b'{"status":"ok"}')

    async def ready(self, call: Call) -> None:
        """``GET /health/ready``: whether stores and providers answer. Which do not is for those who may know.

        So is how each model does, as the worker that was asked saw it.
        """
        state = await self._readiness()
        body: dict[str, object] = {"status": "ok" if state.ready else "unavailable"}
        if self._local or await self._may_see(call):
            body["parts"] = dict(state.parts)
            body["worker"] = self._metrics.worker
            body["models"] = {ref: asdict(one) for ref, one in self._backend.conditions().items()}
        await call.answer(200 if state.ready else 503, to_text(body))

    async def counts(self, call: Call) -> None:
        """``GET /metrics``: open on loopback, else for keys with the scope ``metrics``."""
        if not self._local:
            await self._door.enter(call, METRICS)
        self._metrics.gather(self._backend.counts())
        await call.answer(200, await asyncio.to_thread(self._metrics.render), _TEXT)

    async def models(self, call: Call) -> None:
        """``GET /v1/models``: those that this caller may ask, in the shape of both vendors' lists."""
        identity = await self._door.enter(call, INFER)
        found = [
            shown for model in self._backend.models() if permits(identity.models, model.ref) for shown in _shown(model)
        ]
        ends = {"first_id": found[0]["id"] if found else None, "last_id": found[-1]["id"] if found else None}
        await call.answer(200, to_text({"object": "list", "data": found, "has_more": False, **ends}))

    async def model(self, call: Call) -> None:
        """``GET /v1/models/<id>``: one of them."""
        identity = await self._door.enter(call, INFER)
        name = call.path.removeprefix("/v1/models/")
        for model in self._backend.models():
            if permits(identity.models, model.ref):
                for shown in _shown(model):
                    if shown["id"] == name:
                        await call.answer(200, to_text(shown))
                        return
        raise NotFound(f"there is no model {name!r} that this key may ask")

    async def _readiness(self) -> Readiness:
        """What was found lately, or now; many probes at once ask once."""
        async with self._asking:
            if self._known is None or time.monotonic() >= self._until:
                self._known = await self._backend.ready()
                self._until = time.monotonic() + _READY_FOR_S
            return self._known

    async def _may_see(self, call: Call) -> bool:
        """Whether a call that needs no key has one with the scope; one that has none is let in all the same."""
        if credential_of(call) is None:
            return False
        await self._door.enter(call, METRICS)
        return True


def _shown(model: Model) -> list[dict[str, object]]:
    """A model under each of its names."""
    return [
        {
            "id": name,
            "object": "model",
            "type": "model",
            "display_name": name,
            "created": model.created,
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(model.created)),
            "owned_by": model.ref.partition("/")[0],
        }
        for name in (model.ref, *model.aliases)
    ]
