"""What model calls cost and what the layers saved, by model, key, tier or day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeAlias, assert_never

from kaizen.core.protocols import Store
from kaizen.core.record import Record, RecordQuery
from kaizen.core.scope import Scope
from kaizen.ledger.views import is_unpriced

CostsBy: TypeAlias = Literal["model", "key", "tier", "day", "task"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Sums over one group of model calls.

    Args:
        group: the model, who asked, the layer that answered, the UTC day, or the type of task.
        calls: how many.
        kept: how many of them a cache answered.
        tokens_in, tokens_out: tokens that were billed: those of answers from a cache are not among them.
        cost_usd: dollars of the calls whose price is known.
        saved_usd: dollars that the layers saved, where they can tell.
        unpriced: calls whose price is not known.
        untold: calls of which a layer can't tell what it saved.
    """

    group: str
    calls: int = 0
    kept: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    unpriced: int = 0
    untold: int = 0

    def plus(self, record: Record) -> Cost:
        """With one more call."""
        asked = record.cache_tier == "model"
        return Cost(
            self.group,
            self.calls + 1,
            self.kept + (not asked),
            self.tokens_in + (record.tokens_in if asked else 0),
            self.tokens_out + (record.tokens_out if asked else 0),
            self.cost_usd + (record.cost_usd or 0.0),
            self.saved_usd + (record.saved_usd or 0.0),
            self.unpriced + is_unpriced(record),
            self.untold + (record.saved_usd is None),
        )


async def model_calls(store: Store, scope: Scope, query: RecordQuery) -> AsyncIterator[Record]:
    """The model calls that a query is about, in its order; its ``kind`` is not used.

    A ref is a model's, or a program's: then those are meant that the program made itself.
    """
    made = frozenset[str]()
    if query.ref is not None:
        programs = store.records(scope, RecordQuery(kind="program", ref=query.ref))
        made = frozenset([program.id async for program in programs])
    async for record in store.records(scope, replace(query, kind="model", ref=None, limit=None)):
        if query.ref is None or record.ref == query.ref or record.parent_id in made:
            yield record


async def costs(store: Store, scope: Scope, by: CostsBy, query: RecordQuery | None = None) -> list[Cost]:
    """Costs by group, the dearest first; days in their order. One pass over the scope's model calls.

    Args:
        store: where the records lie.
        scope: whose.
        by: what to group by.
        query: which calls to count; its ``kind`` and order are not used.
    """
    sums: dict[str, Cost] = {}
    async for record in model_calls(store, scope, replace(query or RecordQuery(), newest_first=False)):
        group = _group(record, by)
        sums[group] = sums.get(group, Cost(group)).plus(record)
    if by == "day":
        return [sums[group] for group in sorted(sums)]
    return sorted(sums.values(), key=lambda cost: (-cost.cost_usd, -cost.calls, cost.group))


def _group(record: Record, by: CostsBy) -> str:
    match by:
        case "model":
            return record.model or record.ref
        case "key":
            return record.principal or "-"
        case "tier":
            return record.cache_tier
        case "day":
            return datetime.fromtimestamp(record.started_at, UTC).date().isoformat()
        case "task":
            return record.task or "-"
        case _:
            assert_never(by)
