"""What the caches and the token optimisation know by themselves, beside what the records say of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from kaizen.app import App
from kaizen.app.compression import make_evidence
from kaizen.app.semantic import make_book
from kaizen.app.storage import counts_folder
from kaizen.core.scope import Scope
from kaizen.serve.http.metrics import layer_counts

# Of the semantic cache's stats, what lies in the cache; the rest is counted where calls are answered.
_KEPT: Final = ("budget", "sampling", "evidence", "tasks")


async def known(app: App, scope: Scope) -> Mapping[str, Any]:
    """By layer: ``counts`` of all gateways of this home, since each was started, of all tenants; and what is known.

    ``semantic`` has the sampling rate, the budget of false hits, and by type of task the evidence and the bound that it
    proves now; ``compress`` by model, type of task and level the agreements and the bound of the risk.
    """
    found: dict[str, dict[str, Any]] = {}
    own = app.settings.inference
    for folder in counts_folder(app.settings).glob("*"):
        for layer, events in layer_counts(folder).items():
            counts = found.setdefault(layer, {}).setdefault("counts", {})
            for event, count in events.items():
                counts[event] = counts.get(event, 0) + count
    if own.semantic.enabled or find_spec("wordllama") is not None:
        stats = await make_book(app.settings, app.cache).stats(scope)
        if own.semantic.enabled or stats["evidence"]:
            found.setdefault("semantic", {}).update({name: stats[name] for name in _KEPT})
    if find_spec("numpy") is not None:
        rows = make_evidence(app.settings).rows(scope)
        if own.compress.enabled or rows:
            found["compress"] = {"limit": own.compress.risk, "sampling": own.compress.sample, "agreements": rows}
    return found
