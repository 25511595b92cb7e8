"""A program call and a model call on their way: what their records will say, and what was reserved for them."""

from __future__ import annotations

import asyncio
import time
from typing import Final, assert_never, cast

from kaizen.core.context import Context
from kaizen.core.errors import Denied, KaizenError, ProviderError, Timeout
from kaizen.core.ids import new_id
from kaizen.core.protocols import Allow, Ask, Deny, Lease, Need, Policy
from kaizen.core.record import Payload, Record, Status
from kaizen.core.request import Reply, Request
from kaizen.core.spec import Spec
from kaizen.programs.together import foremost


class Suspension(BaseException):
    """Unwinds a run that has to wait for somebody's word.

    Not an Exception, so that a program's own ``except Exception`` can't take a pending approval for a
    failure and go on without it. The runner turns it into a ``Suspended`` result.
    """

    def __init__(self, step: str, question: str) -> None:
        super().__init__(question)
        self.step, self.question = step, question


async def leased(
    policy: Policy | None, ctx: Context, action: str, target: str, need: Need | None = None
) -> Lease | None:
    """What policy reserves for an action; None where it reserves nothing, or there is none.

    Raises:
        Denied: policy says no. LimitReached, BudgetExceeded: not now, or not any more.
        Suspension: policy asks for somebody's word.
    """
    if policy is None:
        return None
    decision = await policy.decide(ctx, action, target, need)
    match decision:
        case Allow(lease):
            return lease
        case Deny(reason):
            raise Denied(f"{target}: {reason}")
        case Ask(question):
            raise Suspension(ctx.step, question)
        case _:
            assert_never(decision)


class ProgramCall:
    """A program call on its way."""

    __slots__ = ("clock", "ctx", "id", "input", "output", "parent_id", "spec", "started_at")

    def __init__(self, ctx: Context, spec: Spec) -> None:
        self.ctx, self.spec = ctx, spec
        self.parent_id = ctx.record_id
        self.id = ctx.record_id = new_id()
        self.input: Payload | None = None
        self.output: Payload | None = None
        self.started_at, self.clock = time.time(), time.perf_counter()

    def record(self, error: BaseException | None) -> Record:
        """The call's record, as it ends now."""
        ctx, tally = self.ctx, self.ctx.tally
        status, code, message = ending(error)
        return Record(
            id=self.id,
            kind="program",
            ref=self.spec.name,
            run_id=ctx.run.run_id,
            scope=ctx.scope,
            started_at=self.started_at,
            parent_id=self.parent_id,
            step=ctx.step,
            principal=ctx.run.principal,
            status=status,
            latency_ms=(time.perf_counter() - self.clock) * 1000,
            model=tally.model,
            params=tally.params,
            version=tally.version,
            experiment=tally.experiment,
            subject=ctx.run.subject,
            contract=self.spec.contract,
            tokens_in=tally.tokens_in,
            tokens_out=tally.tokens_out,
            tokens_cached=tally.tokens_cached,
            tokens_estimated=tally.estimated,
            cost_usd=tally.cost,
            cache_tier=tally.tier,
            attempts=tally.attempts,
            model_calls=tally.model_calls,
            first_token_ms=tally.first_token_ms,
            saved_usd=tally.saved_usd,
            input_digest=self.input.digest if self.input else None,
            output_digest=self.output.digest if self.output else None,
            error_code=code,
            error=message,
        )


class ModelCall:
    """A model call on its way."""

    __slots__ = ("begun", "clock", "ctx", "id", "lease", "need", "request", "started_at")

    def __init__(self, ctx: Context, request: Request) -> None:
        self.ctx, self.request = ctx, request
        self.id = ctx.run.run_id if ctx.run.lone and ctx.step == "0" else new_id()
        self.started_at, self.clock = time.time(), time.perf_counter()
        self.need = Need()
        self.lease: Lease | None = None
        self.begun = False  # whether a piece of a stream was passed on

    async def settle(self, reply: Reply | None, error: BaseException | None) -> None:
        """Put what was used in the place of what was reserved; all of it where nobody can tell."""
        lease, self.lease = self.lease, None
        if lease is None:
            return
        if reply is not None:
            usage = reply.usage
            asked = reply.tier == "model"
            used = Need(1, usage.tokens_in + usage.tokens_out if asked else 0, reply.cost_usd)
        elif maybe_billed(error, begun=self.begun):
            used = self.need
        else:
            used = Need(1)
        await lease.settle(used)

    def record(self, reply: Reply | None, error: BaseException | None, sent: str, got: str | None) -> Record:
        """The call's record, as it ends now, with the addresses of what was sent and what came."""
        ctx = self.ctx
        status, code, message = ending(error) if error is not None else _WELL
        answered = reply or Reply(model=self.request.model, attempts=0)
        usage = answered.usage
        return Record(
            id=self.id,
            kind="model",
            ref=self.request.model,
            run_id=ctx.run.run_id,
            scope=ctx.scope,
            started_at=self.started_at,
            parent_id=ctx.record_id,
            step=ctx.step,
            principal=ctx.run.principal,
            status=status,
            latency_ms=(time.perf_counter() - self.clock) * 1000,
            model=answered.model,
            params=ctx.tally.params,
            version=ctx.tally.version,
            experiment=ctx.tally.experiment,
            subject=ctx.run.subject,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            tokens_cached=usage.tokens_cached,
            tokens_estimated=usage.estimated,
            cost_usd=answered.cost_usd,
            cache_tier=answered.tier,
            attempts=attempts_of(error) if reply is None else reply.attempts,
            model_calls=1,
            first_token_ms=answered.first_token_ms,
            input_digest=sent,
            output_digest=got,
            error_code=code,
            error=message,
            task=self.request.options.task or _task(answered),
            saved_usd=answered.saved_usd,
            stages=answered.stages,
        )


_WELL: Final[tuple[Status, None, None]] = ("ok", None, None)


def _task(reply: Reply) -> str | None:
    """The type of task that a layer found."""
    for stage in reply.stages:
        if "task" in stage.note:
            return stage.note["task"]
    return None


def maybe_billed(error: BaseException | None, *, begun: bool = False) -> bool:
    """Whether a provider may have worked, and billed, for a call that ended with this.

    A layer that knows says so in ``detail["billed"]``: that one answer was had, where it asked more than once and
    another was not; or that nothing is owed, where another call's failure is shared. Where ``detail["attempts"]`` is 0
    nobody was asked for this call: it waited for another's, which owes it all.

    Args:
        error: what the call ended with.
        begun: whether a piece of its answer came.
    """
    if isinstance(error, KaizenError) and (billed := error.detail.get("billed")) is not None:
        return bool(billed)
    if isinstance(error, ProviderError) and error.detail.get("attempts") == 0:
        return False
    return begun or isinstance(error, Timeout | asyncio.CancelledError | GeneratorExit)


def attempts_of(error: BaseException | None) -> int:
    """How often a provider was asked before this error; 0 where nobody can tell."""
    attempts = error.detail.get("attempts", 1) if isinstance(error, ProviderError) else 0
    return attempts if isinstance(attempts, int) else 1


def ending(error: BaseException | None) -> tuple[Status, str | None, str | None]:
    """Status, code and message of how a call ended. A foreign exception keeps its type only: its text may hold data."""
    match error:
        case None:
            return "ok", None, None
        case KaizenError():
            return "error", error.code, error.kept[:500]
        case Suspension():
            return "suspended", None, error.question
        case asyncio.CancelledError() | GeneratorExit():
            return "cancelled", None, None
        case BaseExceptionGroup() if (waits := error.split(Suspension))[1] is None and waits[0] is not None:
            return "suspended", None, cast("Suspension", foremost(waits[0])).question
        case _:
            return "error", "exception", type(error).__name__
