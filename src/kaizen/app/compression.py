"""Fewer tokens, as the settings want it, and the measuring that allows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from kaizen.core.errors import ConfigError
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Options, Reply, Request
from kaizen.inference.onion import Layers
from kaizen.inference.prices import PriceTable
from kaizen.ledger.requests import shared_address
from kaizen.settings import Settings, data_home

if TYPE_CHECKING:
    from kaizen.app import App
    from kaizen.inference.compress.calibrate import Calibration
    from kaizen.inference.compress.compressor import Compressor
    from kaizen.inference.compress.evidence import Evidence
    from kaizen.inference.compress.surprisal import Surprisal

_READER = "smollm2-135m"
# Asked of the model itself: no layer may answer, shorten or send it elsewhere.
_PLAIN = Options(exact=False, semantic=False, compress=False, batch=False, routing="explicit")


def with_compress(layers: Layers, settings: Settings, prices: PriceTable) -> Layers:
    """The layers with the one that shortens prompts, if it is on.

    Raises:
        ConfigError: if what it needs is not installed.
    """
    own = settings.inference.compress
    if not own.enabled:
        return layers
    if find_spec("numpy") is None:
        raise ConfigError(
            'inference.compress needs numpy, which is not installed: pip install "kaizen-engine[semantic]"'
        )
    from kaizen.inference.compress.layer import Compress, Risk
    from kaizen.inference.compress.prefix import Prefixes

    layer = partial(
        Compress,
        compressor=make_compressor(settings),
        evidence=make_evidence(settings),
        prices=prices,
        risk=Risk(limit=own.risk, sample=own.sample),
        prefixes=Prefixes() if own.prompt_cache else None,
    )
    return replace(layers, compress=layer)


def make_compressor(settings: Settings) -> Compressor:
    """What shortens prompts."""
    from kaizen.inference.compress.compressor import Compressor
    from kaizen.providers.embed.wordllama import WordLlamaEmbedder

    own = settings.inference.compress
    return Compressor(WordLlamaEmbedder(), _reads(settings), window=own.history, demos=own.demos)


def _reads(settings: Settings) -> Surprisal | None:
    """The embedded model as a reader, where that is wanted.

    Raises:
        ConfigError: if its weights are missing.
    """
    if not settings.inference.compress.surprisal:
        return None
    from kaizen.providers.llama import default_threads
    from kaizen.providers.surprisal.reading import LlamaSurprisal
    from kaizen.providers.weights import find_weights, missing_weights

    path = find_weights(_READER, data_home())
    if path is None:
        raise missing_weights(f"embedded/{_READER}")
    return LlamaSurprisal(path, default_threads())


def make_evidence(settings: Settings) -> Evidence:
    """What is known of the risk; it lies under ``home`` and all processes there share it."""
    from kaizen.inference.compress.evidence import Evidence

    return Evidence(settings.home.absolute() / "compress" / "evidence.jsonl")


async def calibrate(app: App, *, task: str | None = None, model: str | None = None, most: int = 100) -> Calibration:
    """Ask recorded calls again, whole and at each level, and keep how often the answers agreed.

    Each call is asked up to once a level and once whole, past all caches; it is paid, counted against the policy and
    recorded like any other.

    Args:
        app: whose calls, of its own scope, and through which they are asked.
        task: only calls of this type of task.
        model: only calls of this model.
        most: the most calls to ask again, newest first.
    """
    from kaizen.core.identity import Identity
    from kaizen.inference.compress.calibrate import calibrate as measure

    context = app.context(Identity(app.scope, "calibrate"))
    requests = [one async for one in _recorded(app, task, model, most)]

    async def ask(request: Request) -> Reply:
        return await context.complete(replace(request, options=replace(_PLAIN, task=request.options.task)))

    return await measure(ask, requests, make_compressor(app.settings), make_evidence(app.settings))


async def _recorded(app: App, task: str | None, model: str | None, most: int) -> AsyncIterator[Request]:
    """Recorded calls whose contents are still kept, newest first."""
    found = 0
    async for record in app.ledger.records(app.scope, RecordQuery(kind="model", status="ok", newest_first=True)):
        if (task and record.task != task) or (model and record.ref != model) or record.principal == "calibrate":
            continue
        if found >= most:
            return
        if (request := await _request(app, record)) is not None:
            found += 1
            yield request


async def _request(app: App, record: Record) -> Request | None:
    if record.input_digest is None:
        return None
    own = await app.ledger.store.payload(app.scope, record.input_digest)
    whole = await app.ledger.payload(app.scope, record.input_digest)
    if own is None or whole is None:
        return None
    address = shared_address(own)
    shared = await app.ledger.store.payload(app.scope, address) if address else None
    fields: dict[str, Any] = from_json(whole)
    fields["stable"] = len(from_json(shared)["messages"]) if shared else 0
    fields["options"] = {"task": _named_task(record)}
    return _requests().validate_python({**fields, "scope": app.scope})


def _named_task(record: Record) -> str | None:
    """The type of task that the caller named; one that a layer below found is not known where prompts are shortened."""
    return None if any("task" in stage.note for stage in record.stages) else record.task


@cache
def _requests() -> TypeAdapter[Request]:
    return TypeAdapter(Request)
