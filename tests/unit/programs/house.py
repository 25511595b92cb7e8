"""Programs run as they do outside: through the App, its runner and a ledger in memory; only the model is scripted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kaizen.app
from kaizen.app import App
from kaizen.core.record import Payload, Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.settings import load_settings
from kaizen.stores.memory import MemoryStore
from kaizen.testing.scripted import ScriptedProvider

MODEL = "test/model"


class House:
    """An App with a scripted model, set up as the process's own."""

    def __init__(self, app: App, model: ScriptedProvider, store: MemoryStore) -> None:
        self.app, self.model, self.store = app, model, store

    @property
    def calls(self) -> int:
        """How many times the model was asked."""
        return self.model.count

    async def records(self, **query: Any) -> list[Record]:
        """What was kept, oldest first."""
        return [record async for record in self.app.ledger.records(self.app.scope, RecordQuery(**query))]

    async def kept(self, digest: str | None) -> bytes | None:
        """A payload."""
        return await self.app.ledger.payload(self.app.scope, digest)


def open_house(
    home: Path,
    replies: Any = (),
    *,
    mode: str = "json",
    repairs: int = 1,
    store: MemoryStore | None = None,
    policy: Any = None,
    provider: Any = None,
    piece: int = 4,
    cache: Any = None,
) -> House:
    """An App at ``home`` whose model gives ``replies`` (or is ``provider``)."""
    model = provider or ScriptedProvider(replies, piece=piece)
    store = store or MemoryStore()
    tree = {"model": MODEL, "home": str(home), "defaults": {"output_mode": mode, "repairs": repairs}}
    app = kaizen.app.build(load_settings(home, {}, tree), provider=model, store=store, policy=policy, cache=cache)
    return House(app, model, store)


Open = Callable[..., House]


class SlowStore(MemoryStore):
    """A store whose appends wait for ``gate``, once it is set up with one."""

    gate: Any = None
    batches: list[Sequence[Record]]

    def __init__(self) -> None:
        super().__init__()
        self.batches = []

    async def append(self, scope: Scope, records: Sequence[Record], payloads: Sequence[Payload], /) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.batches.append(records)
        await super().append(scope, records, payloads)
