"""Embedding as a model call like any other: decided, counted and recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic_core import to_json

from kaizen.core.context import Context
from kaizen.core.errors import NotFound
from kaizen.core.protocols import Embedder, Embeddings, Need, Policy
from kaizen.core.record import Record
from kaizen.core.request import Usage
from kaizen.ledger.ledger import Ledger
from kaizen.programs.calls import ending, leased, maybe_billed

_KEPT: Final = 256


class Embedding:
    """Makes points of texts for whoever a context says.

    Args:
        embedders: by ref, what makes its embedder; called at the first need.
        ledger: where records go.
        policy: asked before each call; None allows all.
        cost: dollars for a usage of a model; None where the price is not known.
    """

    def __init__(
        self,
        embedders: Mapping[str, Callable[[], Embedder]],
        *,
        ledger: Ledger,
        policy: Policy | None,
        cost: Callable[[str, Usage], float | None],
    ) -> None:
        self._factories, self._ledger, self._policy, self._cost = embedders, ledger, policy, cost
        self._made: dict[str, Embedder] = {}

    @property
    def refs(self) -> Sequence[str]:
        """The models there are."""
        return tuple(self._factories)

    async def __call__(self, ctx: Context, ref: str, texts: Sequence[str]) -> Embeddings:
        """A point for each text, in order. Its record has the run's id, and is kept before this returns.

        Raises:
            NotFound: there is no such embedder.
            Denied, LimitReached, BudgetExceeded: as policy says.
        """
        embedder = self._embedder(ref)
        # a byte is at least a token's share, as in inference.ceiling
        most = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
        need = Need(1, most, self._cost(ref, Usage(tokens_in=most)))
        lease = await leased(self._policy, ctx, "infer", ref, need)
        started, clock = time.time(), time.perf_counter()
        points: Embeddings | None = None
        failure: BaseException | None = None
        try:
            points = await embedder.embed(ctx.scope, texts)
            return points
        except BaseException as error:
            failure = error
            raise
        finally:
            usage = points.usage if points is not None else Usage()
            cost = None if points is None else self._cost(ref, usage)
            if lease is not None:
                used = need if maybe_billed(failure) else Need(1, usage.tokens_in, cost or 0.0)
                await asyncio.shield(asyncio.ensure_future(lease.settle(used)))
            sent = self._ledger.seal(ctx.scope, to_json({"model": ref, "texts": texts}))
            status, code, message = ending(failure)
            record = Record(
                id=ctx.run.run_id,
                kind="model",
                ref=ref,
                run_id=ctx.run.run_id,
                scope=ctx.scope,
                started_at=started,
                principal=ctx.run.principal,
                latency_ms=(time.perf_counter() - clock) * 1000,
                model=None if points is None else ref,
                tokens_in=usage.tokens_in,
                tokens_estimated=usage.estimated,
                cost_usd=cost,
                attempts=1,
                model_calls=1,
                input_digest=sent.digest,
                status=status,
                error_code=code,
                error=message,
            )
            # shielded: whoever cancels this call must not cancel the keeping of it
            await asyncio.shield(asyncio.ensure_future(self._ledger.append(ctx.scope, [record], [sent])))

    def _embedder(self, ref: str) -> Embedder:
        made = self._made.get(ref)
        if made is None:
            factory = self._factories.get(ref)
            if factory is None:
                known = ", ".join(self._factories) or "none"
                raise NotFound(f"no embedder is called {ref!r}; there are {known}", detail={"param": "model"})
            if len(self._made) >= _KEPT:  # callers may name models as they like
                self._made.clear()
            made = self._made[ref] = factory()
        return made
