"""The one loop: validate, decide, replay, do, record. Every program call and every model call passes here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from typing import Any, Final, cast

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from kaizen.core.answer import Answer
from kaizen.core.artifact import BASE, Released
from kaizen.core.context import EVERY, Context, Kept, Program, Releases, Run, Through
from kaizen.core.errors import (
    ConfigError,
    Conflict,
    InvalidInput,
    StoreError,
    Unavailable,
    note_record,
)
from kaizen.core.known.plain import reply_json
from kaizen.core.params import Params
from kaizen.core.protocols import Cache, Embedder, Need, Policy, Provider, Suspended
from kaizen.core.quick.values import changed
from kaizen.core.record import Payload, Record, RecordQuery, Score
from kaizen.core.request import Chunk, Embeddings, Reply, Request
from kaizen.core.scope import Scope
from kaizen.core.spec import Spec, dump
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.scores import keep_scores
from kaizen.programs.calls import ModelCall, ProgramCall, Suspension, attempts_of, leased
from kaizen.programs.runnable import running
from kaizen.programs.together import foremost

_logger = logging.getLogger(__name__)

_PARAMS_KEPT: Final = 1024
_NO_OVERRIDES: Final[Mapping[str, Params]] = {}


@dataclass(slots=True)
class _Pending:
    """Model-call records on their way: they go with the program's own record when that follows at once."""

    records: list[Record] = field(default_factory=list[Record])
    payloads: list[Payload] = field(default_factory=list[Payload])
    flush: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What programs and runs find besides the model. None is none.

    Args:
        cache: where steps keep their answers.
        scored: told the model, the metric and the value of each score about a model's answer.
        embedder: makes points of texts for programs that compare them.
        releases: which versions of programs run, for a run that begins now; without it, the params in the code.
    """

    cache: Cache | None = None
    scored: Callable[[str, str, float], None] | None = None
    embedder: Embedder | None = None
    releases: Callable[[Scope], Awaitable[Releases]] | None = None


class Runner:
    """Runs programs: the Runtime behind every Context.

    Args:
        provider: the onion.
        ledger: where records go.
        defaults: the params a program falls back to, by the model ref it names (None for none).
        policy: asked before every program call and every model call; None allows all.
        ceiling: what a request may use at most, for the policy; it may set bounds that the request left open.
        services: what programs and runs find besides the model.
    """

    def __init__(
        self,
        *,
        provider: Provider,
        ledger: Ledger,
        defaults: Callable[[str | None], Params],
        policy: Policy | None = None,
        ceiling: Callable[[Request], tuple[Request, Need]] | None = None,
        services: Services | None = None,
    ) -> None:
        self._provider, self._ledger, self._policy = provider, ledger, policy
        self._ceiling, self._defaults = ceiling or _uncounted, defaults
        services = services or Services()
        self._cache, self._scored = services.cache, services.scored
        self._embedder, self._releases = services.embedder, services.releases
        # by identity: Params hold mappings and can't be hashed
        self._resolved: dict[tuple[int, int, int, int, int], tuple[object, Params, str]] = {}
        self._pending: dict[str, _Pending] = {}

    # -- from outside -----------------------------------------------------------------------------

    async def start(self, run: Run, program: Program, inputs: Mapping[str, Any]) -> Answer | Suspended:
        """A run: one call from outside and everything below it.

        A run whose ``replay`` is given goes on from there: steps that have a record are not done again, and
        a step whose inputs differ from the recorded ones is a Conflict.
        """
        if run.releases is None and self._releases is not None:
            run = replace(run, releases=await self._releases(run.scope))
        try:
            return await Context(run).call(program, **inputs)
        except Suspension as wait:
            return Suspended(run.run_id, wait.step, wait.question)
        except BaseExceptionGroup as group:
            # branches in a TaskGroup: the group waits if all that went wrong is that some of them wait
            waits, failures = group.split(Suspension)
            if waits is None or failures is not None:
                raise
            wait = cast("Suspension", foremost(waits))
            return Suspended(run.run_id, wait.step, wait.question)

    # -- Runtime: program calls -------------------------------------------------------------------

    async def run(self, ctx: Context, program: Program, inputs: Mapping[str, Any]) -> Answer:
        """One program call. ``ctx`` was derived for it and is its own from here on."""
        call = ProgramCall(ctx, program.spec)
        token = running.set(_Here(ctx, asyncio.current_task()))
        try:
            values = call.spec.validate_inputs(inputs)
            call.input = self._ledger.seal(ctx.scope, _dumped(call.spec, values))
            if ctx.run.replay is not None and (kept := await self._replayed(call, values)) is not None:
                return kept
            if self._policy is not None:
                await leased(self._policy, ctx, "run", call.spec.name)
            answer = await program(ctx, **values)
            if ctx.tally.waiting is not None:
                # taken on the way, as gather(return_exceptions=True) does: nothing below may wait unseen
                raise ctx.tally.waiting
            call.output = self._ledger.seal(ctx.scope, dump(answer.outputs))
        except BaseException as error:
            note_record(error, await self._keep(call, error))
            raise
        finally:
            running.reset(token)
        return answer.stamped(await self._keep(call, None))

    async def _replayed(self, call: ProgramCall, values: Mapping[str, Any]) -> Answer | None:
        """The step's answer, if this run has it already."""
        ctx = call.ctx
        record = (ctx.run.replay or {}).get(ctx.step)
        if record is None or record.status != "ok" or record.kind != "program":
            return None
        same_program = record.ref == call.spec.name and record.contract == call.spec.contract
        if not same_program or call.input is None or record.input_digest != call.input.digest:
            raise Conflict(
                f"step {ctx.step} of run {ctx.run.run_id} was {record.ref} with other inputs or another contract: "
                "a resumed run has to make the same calls in the same order",
                detail={"run_id": ctx.run.run_id, "step": ctx.step},
            )
        data = await self._ledger.payload(ctx.scope, record.output_digest) if record.output_digest else None
        return None if data is None else call.spec.load_answer(data, values).stamped(record)

    async def _keep(self, call: ProgramCall, error: BaseException | None) -> Record:
        """Append the call's record, with the model calls still pending below it, before anything leaves."""
        ctx = call.ctx
        record = call.record(error)
        if ctx.above is not None:
            ctx.above.add(ctx.tally)
            if isinstance(error, Suspension):
                ctx.above.waiting = error
        pending = self._pending.pop(record.id, None) or _Pending()
        payloads = [*pending.payloads, *(p for p in (call.input, call.output) if p is not None)]
        await self._ledger.append(ctx.scope, [*pending.records, record], payloads)
        if pending.flush is not None:
            # shielded: whoever cancels this call must not cancel the keeping of calls already paid
            await asyncio.shield(pending.flush)
        return record

    # -- Runtime: model calls ---------------------------------------------------------------------

    async def complete(self, ctx: Context, request: Request, through: Through | None = None) -> Reply:
        """One model call, recorded."""
        if ctx.run.replay is not None and (kept := await self._kept_reply(ctx, request)) is not None:
            return kept
        call = await self._open_model_call(ctx, request)
        try:
            ask = self._provider.complete
            reply = await (ask(call.request) if through is None else through(ask, call.request))
        except BaseException as error:
            await call.settle(None, error)
            await self._close_model_call(call, None, error)
            raise
        if call.lease is not None:
            await call.settle(reply, None)
        if ctx.record_id is not None:
            self._defer(ctx, *self._ended(call, reply, None))
            return reply
        await self._close_model_call(call, reply, None)
        return changed(reply, record_id=call.id)

    async def stream(self, ctx: Context, request: Request) -> AsyncIterator[Chunk]:
        """One streamed model call, recorded when its last chunk came, it failed or the reader left."""
        if ctx.run.replay is not None and (kept := await self._kept_reply(ctx, request)) is not None:
            yield Chunk(kept.text)
            yield Chunk(reply=kept)
            return
        call = await self._open_model_call(ctx, request)
        reply: Reply | None = None
        chunks = self._provider.stream(call.request)
        try:
            async for chunk in chunks:
                if chunk.reply is not None:
                    reply = chunk.reply
                    await call.settle(reply, None)
                    await self._close_model_call(call, reply, None)
                    if ctx.record_id is None:
                        chunk = Chunk(chunk.text, changed(reply, record_id=call.id))
                call.begun = True
                yield chunk
            if reply is None:
                raise Unavailable("the stream ended before its answer was whole", model=request.model)
        except BaseException as error:
            if reply is None:
                await call.settle(None, error)
                await self._close_model_call(call, None, error)
            raise
        finally:
            if (close := getattr(chunks, "aclose", None)) is not None:
                await close()  # now, not when the garbage is collected: the call upstream ends with the reader

    async def _kept_reply(self, ctx: Context, request: Request) -> Reply | None:
        """What this run was answered at this step already, if it asked the very same.

        A request that differs is asked, not refused: prompt, model and settings may change from one try to the next,
        and since only the same request gets a kept reply, no two steps can be mixed up.
        """
        record = (ctx.run.replay or {}).get(ctx.step)
        if record is None or record.kind != "model" or record.output_digest is None:
            return None
        # on record is the request as it was sent: under a policy, with the bounds that the ceiling had set
        sent = (request,) if self._policy is None else (request, self._ceiling(request)[0])
        if all(record.input_digest != self._ledger.seal_request(ctx.scope, one)[0].digest for one in sent):
            return None
        data = await self._ledger.payload(ctx.scope, record.output_digest)
        if data is None:
            return None
        # its tokens were counted, and paid, by the try that has the record
        ctx.tally.model, ctx.tally.tier = record.model, "step"
        return replace(_replies().validate_json(data), tier="step")

    async def _open_model_call(self, ctx: Context, request: Request) -> ModelCall:
        ctx.check_deadline()
        if request.options.batch:  # it may outlive the process, and has to be known again by a run that is resumed
            request = replace(request, step=f"{ctx.run.run_id}:{ctx.step}")
        if ctx.run.allowance is not None:
            request = replace(request, allowance=ctx.run.allowance)
        call = ModelCall(ctx, request)
        if self._policy is not None:
            call.request, call.need = self._ceiling(request)
            try:
                call.lease = await leased(self._policy, ctx, "infer", request.model, call.need)
            except BaseException as error:
                await self._close_model_call(call, None, error)  # a refusal is a fact, too
                raise
        if ctx.budget is not None:
            try:
                ctx.budget.take_call()
            except BaseException as error:
                await call.settle(None, error)
                raise
        return call

    async def _close_model_call(self, call: ModelCall, reply: Reply | None, error: BaseException | None) -> None:
        """Have the record go with its program's; outside any program no later one takes it along: keep it now.

        A store goes on with what it was given when whoever waits for it is cancelled.
        """
        ctx = call.ctx
        record, payloads = self._ended(call, reply, error)
        if ctx.record_id is None:
            await self._ledger.append(ctx.scope, [record], payloads)
        else:
            self._defer(ctx, record, payloads)

    def _ended(
        self, call: ModelCall, reply: Reply | None, error: BaseException | None
    ) -> tuple[Record, Sequence[Payload]]:
        """Count a call that is over; its record and contents."""
        ctx = call.ctx
        sent = self._ledger.seal_request(ctx.scope, call.request)
        got = None
        if reply is not None:
            ctx.tally.add_reply(reply)
            if ctx.budget is not None:
                ctx.budget.spend(reply)
            got = self._ledger.seal(ctx.scope, reply_json(reply))
        else:
            ctx.tally.add_failure(attempts_of(error))
        record = call.record(reply, error, sent[0].digest, got.digest if got else None)
        return record, (sent if got is None else (*sent, got))

    def _defer(self, ctx: Context, record: Record, payloads: Sequence[Payload]) -> None:
        """Let the record go with its program's, in one append, if that comes before the loop turns; else alone.

        A leaf program parses the reply without yielding, so its model call and its own record are one
        transaction. Anything slower (a repair, an agent's tool) must not keep a paid call in memory only.
        """
        key = ctx.record_id or ""
        pending = self._pending.setdefault(key, _Pending())
        pending.records.append(record)
        pending.payloads.extend(payloads)
        asyncio.get_running_loop().call_soon(self._flush, ctx.scope, key, pending)

    def _flush(self, scope: Scope, key: str, pending: _Pending) -> None:
        if self._pending.get(key) is not pending or not pending.records:
            return
        records, payloads = pending.records, pending.payloads
        pending.records, pending.payloads = [], []
        earlier = pending.flush

        async def flush() -> None:
            if earlier is not None:
                await earlier
            await self._ledger.append(scope, records, payloads)
            if self._pending.get(key) is pending and not pending.records:
                del self._pending[key]

        pending.flush = asyncio.get_running_loop().create_task(flush())

    async def score(self, ctx: Context, name: str, about: Record, value: float) -> None:
        """Append a score record."""
        if self._scored is not None and about.model is not None:
            self._scored(about.model, name, value)
        await self.scores(ctx, [Score(name, about, value)])

    async def scores(self, ctx: Context, scores: Sequence[Score]) -> None:
        """Append score records, and what was said with them, in one go."""
        run = ctx.run
        await keep_scores(self._ledger, ctx.scope, scores, run_id=run.run_id, by=run.principal, above=ctx.record_id)

    async def scored(self, ctx: Context) -> frozenset[tuple[str, str]]:
        """The scores of the run, as they lie in the ledger."""
        query = RecordQuery(kind="score", run_id=ctx.run.run_id)
        return frozenset([(one.about or "", one.ref) async for one in self._ledger.records(ctx.scope, query)])

    # -- Runtime: the step cache ------------------------------------------------------------------

    async def recall(self, ctx: Context, key: str) -> Kept:
        """What was kept. A cache that fails has nothing."""
        if self._cache is None:
            return Kept()
        try:
            since = await self._cache.epoch(ctx.scope)
            return Kept(await self._cache.get(ctx.scope, f"step:{key}"), since)
        except StoreError as error:
            _logger.warning("the step cache can't be read: %s", error)
            return Kept()

    async def keep(
        self, ctx: Context, key: str, value: bytes, tags: Sequence[str], ttl: float | None, since: int | None
    ) -> None:
        """Keep it. A cache that fails loses nothing but time."""
        if self._cache is not None:
            try:
                await self._cache.put(ctx.scope, f"step:{key}", value, ttl=ttl, tags=tags, since=since)
            except StoreError as error:
                _logger.warning("the step cache can't be written: %s", error)

    # -- Runtime: likeness ------------------------------------------------------------------------

    async def embed(self, ctx: Context, texts: Sequence[str]) -> Embeddings:
        """A point for each text."""
        if self._embedder is None:
            raise ConfigError("comparing texts needs an embedder: pip install 'kaizen-engine[semantic]'")
        return await self._embedder.embed(ctx.scope, texts)

    # -- Runtime: params --------------------------------------------------------------------------

    def params(self, ctx: Context, spec: Spec, own: Params) -> Params:
        """Overrides, then own, then the released ones, then the defaults for the model.

        Which version it was, and the digest of it all, go on the call's record.
        """
        run, tally = ctx.run, ctx.tally
        overrides = run.overrides or _NO_OVERRIDES
        named, every = overrides.get(spec.name), overrides.get(EVERY)
        released: Released | None = None
        if named is None:
            released = run.released(spec.name)
            tally.version = tally.versions[spec.name] = BASE if released is None else released.version
            tally.experiment = None if released is None else released.experiment
        shown = None if released is None else released.params
        key = (id(spec), id(own), id(named), id(every), id(shown))
        known = self._resolved.get(key)
        if known is None:
            layers = [params for params in (named, every, own, shown) if params is not None]
            # the program's own digest is only worked out where there is one to compare it with
            if any(params.contract is not None and params.contract != spec.contract for params in layers):
                raise Conflict(_misfit(spec, released))
            stated = reduce(Params.over, layers)
            merged = stated.over(self._defaults(stated.model))
            if len(self._resolved) >= _PARAMS_KEPT:
                self._resolved.clear()
            # what the ids are of is kept with it, so that nothing else can take them over
            known = self._resolved[key] = ((spec, layers), merged, merged.version)
        tally.params = known[2]
        return known[1]


def _misfit(spec: Spec, released: Released | None) -> str:
    """What to do about params of another contract. A service must not go on in silence on others than were released."""
    if released is None or released.params.contract in (None, spec.contract):
        return (
            f"{spec.name}: these params were made for another contract than this program has: "
            "change them to fit its fields, and take their 'contract' out"
        )
    return (
        f"{spec.name}@{released.label} shows version {released.number}, made for another contract than it has now: "
        f"`kaizen registry rollback {spec.name} --label {released.label}` goes back to the version before, "
        f"`kaizen registry label {spec.name} {released.label} {BASE}` to the params in the code"
    )


@lru_cache(1)
def _replies() -> TypeAdapter[Reply]:
    return TypeAdapter(Reply)


def _dumped(spec: Spec, values: Mapping[str, Any]) -> bytes:
    """Inputs as records keep them.

    Raises:
        InvalidInput: if one is nested too deep, or holds half a character or an object that JSON has no form for.
    """
    try:
        return dump(values)
    except PydanticSerializationError as error:
        rule = f"an input can't be written as JSON: {error}"
        raise InvalidInput(f"{spec.name}: {rule}", rules=rule, detail={"program": spec.name}) from None


def _uncounted(request: Request) -> tuple[Request, Need]:
    """For an App without prices: a call is a call."""
    return request, Need(1)


class _Here:
    """Finds the call whose code runs. A task started inside it is a branch, with a path of its own.

    Steps are numbered in program order; those of two tasks that each make several calls would else be
    numbered as they happen to arrive, and a resumed run would find other inputs under its steps.
    """

    __slots__ = ("ctx", "task")

    def __init__(self, ctx: Context, task: asyncio.Task[Any] | None) -> None:
        self.ctx, self.task = ctx, task

    def __call__(self) -> Context:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # a plain function in a thread
            return self.ctx
        if task is None or task is self.task:
            return self.ctx
        branch = self.ctx.fork()
        running.set(_Here(branch, task))
        return branch
