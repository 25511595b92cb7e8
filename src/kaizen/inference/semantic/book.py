"""The evidence of all scopes, kept in the cache so that a restart and the other processes have it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.protocols import Cache
from kaizen.core.scope import Scope
from kaizen.inference.semantic.evidence import Evidence, Sample
from kaizen.inference.semantic.likeness import FEATURES

_KEY: Final = "semantic:evidence"
# Evidence of other marks of likeness can't be compared.
_MARK: Final = "1 " + " ".join(FEATURES)


@dataclass(slots=True)
class Counts:
    """What the layer did for one scope in this process.

    Args:
        hits: questions answered from an earlier one.
        explored: would-be hits that were asked anew, to learn.
        unproven: would-be hits that were asked anew because their bound was not within the budget.
        too_costly: the same, because a wrong answer would cost more than is saved.
        misses: questions without an earlier one that lies near and passes the gate.
        gated: near questions that the gate turned away, by what they differ in.
        failures: times a cache, an index or an embedder failed; the call went on without.
    """

    hits: int = 0
    explored: int = 0
    unproven: int = 0
    too_costly: int = 0
    misses: int = 0
    gated: dict[str, int] = field(default_factory=dict[str, int])
    failures: int = 0


@dataclass(slots=True)
class _Page:
    evidence: Evidence
    counts: Counts = field(default_factory=Counts)
    unsaved: list[Sample] = field(default_factory=list[Sample])
    loaded: bool = False


class EvidenceBook:
    """Evidence by scope, loaded at the first need and saved as it grows. Nothing of one scope reaches another.

    Args:
        cache: where it is kept, under a key of the layer's own.
        budget: the share of false hits that is allowed; shown in the stats.
        explore: the share of would-be hits that are asked anew.
    """

    def __init__(self, cache: Cache, *, budget: float = 0.01, explore: float = 0.05) -> None:
        self._cache, self._budget, self._explore = cache, budget, explore
        self._pages: dict[Scope, _Page] = {}

    async def evidence(self, scope: Scope) -> Evidence:
        """A scope's evidence."""
        page = self._page(scope)
        if not page.loaded:
            found = _decoded(await self._cache.get(scope, _KEY))
            if not page.loaded:  # another call may have been faster
                page.evidence = Evidence([*found, *page.evidence.samples])
                page.loaded = True
        return page.evidence

    def counts(self, scope: Scope) -> Counts:
        """What was done for a scope."""
        return self._page(scope).counts

    def totals(self) -> Mapping[str, int]:
        """What was done for all scopes together; what the gate turned away as one number."""
        totals: dict[str, int] = {}
        for page in self._pages.copy().values():
            for name in Counts.__slots__:
                done = getattr(page.counts, name)
                totals[name] = totals.get(name, 0) + (done if isinstance(done, int) else sum(done.values()))
        return totals

    async def add(self, scope: Scope, sample: Sample) -> None:
        """Take in a piece of evidence. It is saved with the next few; the more there is, the more wait."""
        evidence = await self.evidence(scope)
        evidence.add(sample)
        page = self._page(scope)
        page.unsaved.append(sample)
        if len(page.unsaved) > len(evidence) // 50:
            await self.save(scope)

    async def save(self, scope: Scope) -> None:
        """Write what is not yet written, joined with what other processes wrote meanwhile."""
        page = self._page(scope)
        unsaved, page.unsaved = page.unsaved, []
        try:
            joined = Evidence([*_decoded(await self._cache.get(scope, _KEY)), *unsaved])
            # one that another process wrote at this moment may be lost: that costs a few pieces
            await self._cache.put(scope, _KEY, _encoded(joined))
        except BaseException:
            page.unsaved = [*unsaved, *page.unsaved]
            raise
        for sample in joined.samples:
            if not page.evidence.has(sample.pair):
                page.evidence.add(sample)

    async def stats(self, scope: Scope) -> Mapping[str, Any]:
        """The budget, the sampling rate, what was done, and by type of task the evidence and the bound it proves."""
        evidence = await self.evidence(scope)
        counts = self._page(scope).counts
        return {
            "budget": self._budget,
            "sampling": self._explore,
            "evidence": len(evidence),
            "tasks": evidence.stats(self._budget),
            "hits": counts.hits,
            "explored": counts.explored,
            "unproven": counts.unproven,
            "too_costly": counts.too_costly,
            "misses": counts.misses,
            "gated": dict(counts.gated),
            "failures": counts.failures,
        }

    def _page(self, scope: Scope) -> _Page:
        page = self._pages.get(scope)
        if page is None:
            page = self._pages[scope] = _Page(Evidence())
        return page


def _encoded(evidence: Evidence) -> bytes:
    rows = [
        [one.pair, one.entry, one.task, [round(value, 5) for value in one.features], one.agreed]
        for one in evidence.samples
    ]
    return to_json({"mark": _MARK, "samples": rows})


def _decoded(data: bytes | None) -> list[Sample]:
    """The evidence that was kept; none where another version of Kaizen kept it."""
    if data is None:
        return []
    kept = from_json(data)
    if kept.get("mark") != _MARK:
        return []
    return [
        Sample(pair, entry, task, tuple(features), agreed) for pair, entry, task, features, agreed in kept["samples"]
    ]
