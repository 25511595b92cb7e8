"""Recorded calls, as they can be asked or replayed again: those whose contents are still kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from kaizen.app import App
from kaizen.core.message import Message
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Decoding, Options, OutputSchema, Reply, Request, ToolSpec
from kaizen.core.scope import Scope
from kaizen.inference.advise.recorded import Recorded
from kaizen.ledger.costs import model_calls
from kaizen.ledger.requests import shared_address


async def recorded(app: App, scope: Scope, query: RecordQuery) -> AsyncIterator[Recorded]:
    """Model calls that a model answered, in the query's order, ``query.limit`` at most; its kind is not used."""
    left = query.limit
    async for record in model_calls(app.ledger.store, scope, query):
        if left == 0:
            return
        if record.status != "ok" or record.cache_tier != "model":
            continue
        left = None if left is None else left - 1
        request, reply = await request_of(app, record), await _reply(app, record)
        if request is not None and reply is not None:
            yield Recorded(record, request, reply)


async def request_of(app: App, record: Record) -> Request | None:
    """What was asked; None where it is not kept."""
    if record.input_digest is None:
        return None
    own = await app.ledger.store.payload(record.scope, record.input_digest)
    whole = await app.ledger.payload(record.scope, record.input_digest)
    if own is None or whole is None:
        return None
    address = shared_address(own)
    shared = await app.ledger.store.payload(record.scope, address) if address else None
    fields: dict[str, Any] = from_json(whole)
    if "messages" not in fields:  # texts that were embedded
        return None
    for name, adapter in _adapters().items():
        fields[name] = adapter.validate_python(fields[name])
    return Request(
        **fields,
        scope=record.scope,
        stable=len(from_json(shared)["messages"]) if shared else 0,
        options=Options(task=_named_task(record)),
    )


async def _reply(app: App, record: Record) -> Reply | None:
    data = await app.ledger.payload(record.scope, record.output_digest) if record.output_digest else None
    return None if data is None else _replies().validate_json(data)


def _named_task(record: Record) -> str | None:
    """The type of task that the caller named; one that a layer below found is not known where prompts are shortened."""
    return None if any("task" in stage.note for stage in record.stages) else record.task


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    """By field of a request, what reads it; all others are plain values."""
    return {
        "messages": TypeAdapter(tuple[Message, ...]),
        "output": TypeAdapter(OutputSchema | None),
        "tools": TypeAdapter(tuple[ToolSpec, ...]),
        "decoding": TypeAdapter(Decoding),
    }


@cache
def _replies() -> TypeAdapter[Reply]:
    return TypeAdapter(Reply)
