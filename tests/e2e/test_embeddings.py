"""Embeddings of a remote model from end to end: how many calls a real server got, and the rows that share them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaizen.app import App, build
from kaizen.app.batches import Embedders
from kaizen.core.identity import Identity
from kaizen.core.protocols import Embeddings
from kaizen.core.record import RecordQuery
from kaizen.programs.embed import Embedding
from kaizen.settings import load_settings
from kaizen.testing.batch_server import BatchServer

Make = Callable[..., App]


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as running:
        running.embed_delay = 0.05
        yield running


@pytest.fixture
async def app(server: BatchServer, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[App] = []

    def make(**batch: Any) -> App:
        providers = {"mine": {"kind": "openai", "base_url": server.base_url, "api_key": "k"}}
        tree = {"home": str(tmp_path), "providers": providers, "inference": {"batch": batch}}
        made.append(build(load_settings(tmp_path, {}, tree)))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def embed(app: App, texts: list[str]) -> list[Embeddings]:
    making = Embedding(Embedders(app.settings, {}), ledger=app.ledger, policy=None, cost=lambda *_: None)
    identity = Identity(app.scope, "key:1")
    return await asyncio.gather(*(making(app.context(identity), "mine/small", [text]) for text in texts))


TEXTS = ["one", "three", "fourteen", "nine"]


@pytest.mark.parametrize(("enabled", "calls"), [(False, [1, 1, 1, 1]), (True, [1, 3])])
async def test_calls_at_once_go_together_only_where_batching_is_on(
    app: Make, server: BatchServer, enabled: bool, calls: list[int]
) -> None:
    here = app(enabled=enabled, embed_wait_ms=1000.0)
    made = await embed(here, TEXTS)
    assert server.embedded == calls
    assert [one.usage.tokens_in for one in made] == [len(text) for text in TEXTS]
    rows = [one async for one in here.ledger.records(here.scope, RecordQuery(kind="model"))]
    assert sum(row.tokens_in for row in rows) == sum(map(len, TEXTS))
    assert {row.ref for row in rows} == {"mine/small"}


def test_only_what_speaks_the_wire_can_be_asked() -> None:
    known = Embedders(load_settings(Path(), {}, {}), {"embedded/here": lambda: None})  # type: ignore[dict-item, return-value] - never made
    assert list(known) == ["embedded/here"]
    assert len(known) == 1
    assert "embedded/here" in known
    assert "openai/text-embedding-3-small" in known
    assert not any(ref in known for ref in ("anthropic/large", "embedded/other", "nobody/large", "openai", ""))
