"""A call that is passed on to its provider as it came: decided, counted and recorded, but no layer acts on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

from pydantic_core import from_json, to_json

from kaizen.core.context import Context
from kaizen.core.protocols import Lease, Need, Policy
from kaizen.core.record import Record
from kaizen.core.request import Reply, Usage
from kaizen.inference.prices import Price
from kaizen.ledger.ledger import Ledger
from kaizen.programs.calls import attempts_of, ending, leased, maybe_billed

_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
# Answers longer than this are not kept with their record: an image or an hour of speech is the caller's to keep.
_KEPT: Final = 1024 * 1024
# The end of an event stream, where its usage stands.
_TAIL: Final = 64 * 1024
_COUNT: Final = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What is passed on.

    Args:
        ref: the model's ref.
        path: what follows the provider's base URL, such as ``/audio/speech``.
        body: what is posted, with the provider's own name for the model in it.
        content_type: what the body is.
        stream: whether the answer may come bit by bit.
        repeatable: whether its answer comes of the request alone, so that it may be asked for twice.
        shown: what the record keeps of it, as JSON-able values.
        tokens: how many its text has at most.
    """

    ref: str
    path: str
    body: bytes = field(repr=False)
    content_type: str = _JSON
    stream: bool = False
    repeatable: bool = False
    shown: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    tokens: int = 0


class Answering(Protocol):
    """A provider's answer as it comes; its status is 200."""

    @property
    def attempts(self) -> int:
        """How often the provider was asked for it."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By names in lower case."""
        ...

    async def read(self) -> bytes:
        """The whole body."""
        ...

    async def pieces(self) -> bytes | None:
        """What has come of the body since the last call; None at its end."""
        ...


class Send(Protocol):
    """Posts a call to its provider."""

    def __call__(self, posted: Posted, deadline: float | None) -> AbstractAsyncContextManager[Answering]:
        """The answer, for as long as the block lasts.

        Raises:
            ProviderError: there is none, or one of another status than 200.
        """
        ...


class Passing:
    """One call on its way, once the provider has begun to answer.

    Attributes:
        content_type: of the answer.
        streams: whether the answer should be handed on as it comes: it is sound, or a stream of events.
    """

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self.content_type = answer.headers.get("content-type", "application/octet-stream")
        self.kind = self.content_type.partition(";")[0].strip().lower()
        self.streams = self.kind == _EVENTS or self.kind.startswith(("audio/", "video/"))
        self.size = 0
        self.whole = b""
        self.ended = False

    async def read(self) -> bytes:
        """All of the answer."""
        self.whole = await self._answer.read()
        self.size, self.ended = len(self.whole), True
        return self.whole

    async def piece(self) -> bytes | None:
        """What has come of the answer since the last call; None at its end."""
        piece = await self._answer.pieces()
        if piece is None:
            self.ended = True
        else:
            self.size += len(piece)
            if self.kind == _EVENTS:
                self.whole = (self.whole + piece)[-_TAIL:]
        return piece

    def usage(self) -> Usage | None:
        """The tokens that the provider counted; None where it does not say."""
        if self.kind == _EVENTS:
            lines = [line[5:] for line in self.whole.split(b"\n") if line.startswith(b"data:")]
            return next((usage for line in reversed(lines) if (usage := _usage(line)) is not None), None)
        return _usage(self.whole) if self.kind == _JSON else None

    def shown(self) -> dict[str, Any]:
        """What the record keeps of the answer: what can be read, if it is not long."""
        about = {"content_type": self.content_type, "bytes": self.size}
        if self.size <= _KEPT and self.whole and self.kind != _EVENTS:
            if self.kind == _JSON and (found := _parsed(self.whole)) is not None:
                return {**about, "answer": found}
            if self.kind.startswith("text/"):
                return {**about, "answer": self.whole.decode(errors="replace")}
        return about


@dataclass(slots=True)
class _Made:
    """What is known of a call so far."""

    started: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.perf_counter)
    lease: Lease | None = None
    attempts: int = 0
    passing: Passing | None = None


class Forwarding:
    """Passes calls on for whoever a context says.

    A call's price is that of the settings: its ``usd_per_call``, and its tokens where the answer counts them. The
    vendors' lists are not asked, as they price sound and images otherwise than text.

    Args:
        send: posts.
        ledger: where records go.
        policy: asked before each call; None allows all.
        prices: by ref.
    """

    def __init__(self, send: Send, *, ledger: Ledger, policy: Policy | None, prices: Mapping[str, Price]) -> None:
        self._send, self._ledger, self._policy, self._prices = send, ledger, policy, prices

    @asynccontextmanager
    async def __call__(self, ctx: Context, posted: Posted) -> AsyncGenerator[Passing]:
        """Pass a call on. It is settled, and its record kept, when the block ends.

        Args:
            ctx: who asks. The record has its run's id.
            posted: what is asked.

        Raises:
            Denied, LimitReached, BudgetExceeded: as policy says.
            ProviderError: the provider gave no answer.
        """
        made = _Made()
        need = Need(1, posted.tokens, self._ceiling(posted.ref))
        failure: BaseException | None = None
        try:
            made.lease = await leased(self._policy, ctx, "infer", posted.ref, need)
            made.attempts = 1
            async with self._send(posted, ctx.run.deadline) as answer:
                made.attempts, made.passing = answer.attempts, Passing(answer)
                yield made.passing
        except BaseException as error:
            failure = error
            made.attempts = max(made.attempts, attempts_of(error)) if made.attempts else 0
            raise
        finally:
            # shielded: whoever cancels this call must not cancel the keeping of it
            await asyncio.shield(asyncio.ensure_future(self._keep(ctx, posted, made, need, failure)))

    def reply(self, posted: Posted, passing: Passing, record_id: str) -> Reply:
        """What came of a call that is over, as a model's reply has it."""
        usage = passing.usage()
        cost = self._cost(posted.ref, usage)
        return Reply(model=posted.ref, usage=usage or Usage(), cost_usd=cost, record_id=record_id)

    def _ceiling(self, ref: str) -> float | None:
        """What a call costs at most; None where that depends on tokens, whose number nobody knows before."""
        price = self._prices.get(ref)
        if price is None or price.rates.input or price.rates.output:
            return None
        return price.rates.call

    def _cost(self, ref: str, usage: Usage | None) -> float | None:
        price = self._prices.get(ref)
        if price is None or usage is None:
            return self._ceiling(ref)
        return price.cost(usage)

    async def _keep(self, ctx: Context, posted: Posted, made: _Made, need: Need, failure: BaseException | None) -> None:
        passing = made.passing
        whole = passing is not None and passing.ended  # the answer came, whatever became of it on its way to the caller
        usage = passing.usage() if passing is not None and whole else None
        tokens = usage or Usage()
        cost = self._cost(posted.ref, usage) if whole else None
        if made.lease is not None:
            if whole:
                used = Need(1, tokens.tokens_in + tokens.tokens_out, cost)
            else:
                used = need if passing is not None or maybe_billed(failure) else Need(1)
            await made.lease.settle(used)
        sent = self._ledger.seal(ctx.scope, to_json({"path": posted.path, "model": posted.ref, **posted.shown}))
        payloads = [sent]
        if passing is not None and whole:
            payloads.append(self._ledger.seal(ctx.scope, to_json(passing.shown(), inf_nan_mode="null")))
        status, code, message = ending(failure)
        record = Record(
            id=ctx.run.run_id,
            kind="model",
            ref=posted.ref,
            run_id=ctx.run.run_id,
            scope=ctx.scope,
            started_at=made.started,
            principal=ctx.run.principal,
            status=status,
            latency_ms=(time.perf_counter() - made.clock) * 1000,
            model=posted.ref if passing is not None else None,
            tokens_in=tokens.tokens_in,
            tokens_out=tokens.tokens_out,
            cost_usd=cost,
            attempts=made.attempts,
            model_calls=1,
            input_digest=sent.digest,
            output_digest=payloads[1].digest if len(payloads) > 1 else None,
            error_code=code,
            error=message,
            task=posted.path.strip("/"),
        )
        await self._ledger.append(ctx.scope, [record], payloads)


def _parsed(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError:
        return None


def _usage(data: bytes) -> Usage | None:
    """The ``usage`` of an answer, by any of the names that providers give its counts."""
    tree: Any = _parsed(data) if b'"usage"' in data else None
    found: Any = cast("Any", tree).get("usage") if isinstance(tree, dict) else None
    if not isinstance(found, dict):
        return None
    counts = cast("Mapping[str, Any]", found)
    out = _count(counts, "output_tokens", "completion_tokens") or 0
    into = _count(counts, "input_tokens", "prompt_tokens")
    if into is None:
        total = _count(counts, "total_tokens")
        if total is None:
            return None  # seconds of sound, say
        into = max(0, total - out)
    return Usage(tokens_in=into, tokens_out=out)


def _count(counts: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = counts.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _COUNT:
            return value
    return None


Forward = Callable[[Context, Posted], AbstractAsyncContextManager[Passing]]
