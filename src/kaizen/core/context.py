"""What reaches a program at a call: whose it is, its place in the run, its limits, and the way to call others.

Program, Runtime and Context name each other, so they stand in one file; ``core.protocols`` shows the
seams together.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeAlias, TypeVar, overload

from kaizen.core.answer import Answer
from kaizen.core.artifact import Released
from kaizen.core.errors import BudgetExceeded, Timeout
from kaizen.core.message import Message
from kaizen.core.params import NOTHING, Params
from kaizen.core.quick.values import quick
from kaizen.core.record import Record, Score
from kaizen.core.request import (
    NO_OPTIONS,
    Allowance,
    Chunk,
    Decoding,
    Embeddings,
    Options,
    OutputSchema,
    Reply,
    Request,
    Tier,
    ToolSpec,
)
from kaizen.core.scope import Scope
from kaizen.core.spec import Spec

A = TypeVar("A", bound=Answer)

EVERY: Final = "*"
"""The name under which overrides hold for every program."""


Ask: TypeAlias = Callable[[Request], Awaitable[Reply]]
Through: TypeAlias = Callable[[Ask, Request], Awaitable[Reply]]


class Program(Protocol):
    """Anything that can be run: a contract and a call. Kept as narrow as this.

    Whoever holds a Context calls it through ``ctx.call(program, ...)``, which validates, decides,
    replays and records around it; a Program itself only does the work.
    """

    @property
    def spec(self) -> Spec:
        """The contract."""
        ...

    def __call__(self, ctx: Context, /, **inputs: Any) -> Awaitable[Answer]:
        """Do the work on inputs that fit the contract; written ``async def``."""
        ...


class Runtime(Protocol):
    """What stands behind a Context: the runner. Programs never see it."""

    def run(self, ctx: Context, program: Program, inputs: Mapping[str, Any], /) -> Coroutine[Any, Any, Answer]:
        """See ``Context.call``."""
        ...

    def complete(self, ctx: Context, request: Request, through: Through | None = None, /) -> Coroutine[Any, Any, Reply]:
        """See ``Context.complete``."""
        ...

    def stream(self, ctx: Context, request: Request, /) -> AsyncIterator[Chunk]:
        """See ``Context.stream``."""
        ...

    def score(self, ctx: Context, name: str, about: Record, value: float, /) -> Coroutine[Any, Any, None]:
        """See ``Context.score``."""
        ...

    def scores(self, ctx: Context, scores: Sequence[Score], /) -> Coroutine[Any, Any, None]:
        """See ``Context.scores``."""
        ...

    def scored(self, ctx: Context, /) -> Coroutine[Any, Any, frozenset[tuple[str, str]]]:
        """See ``Context.scored``."""
        ...

    def params(self, ctx: Context, spec: Spec, own: Params, /) -> Params:
        """See ``Context.params``."""
        ...

    async def recall(self, ctx: Context, key: str, /) -> Kept:
        """See ``Context.recall``."""
        ...

    async def keep(
        self, ctx: Context, key: str, value: bytes, tags: Sequence[str], ttl: float | None, since: int | None, /
    ) -> None:
        """See ``Context.keep``."""
        ...

    async def embed(self, ctx: Context, texts: Sequence[str], /) -> Embeddings:
        """See ``Context.embed``."""
        ...


class Releases(Protocol):
    """Which versions of programs run, as things stood at one moment."""

    def resolve(self, name: str, subject: str, /) -> Released | None:
        """The version of a program that a subject gets; None where the params in the code run.

        Args:
            name: the program's.
            subject: whom the run is for: the same one always gets the same arm of an experiment.
        """
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """What was found in the cache, None where nothing was, and the cache's epoch at that time."""

    value: bytes | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """Outputs as far as they are written.

    Args:
        ref: the program that is writing.
        step: its place in the run.
        outputs: typed values by field name; fields not begun are absent.
    """

    ref: str
    step: str
    outputs: Mapping[str, Any]


class Budget:
    """What a run may spend, shared by everything below it. None is no limit.

    Checked before each model call against what is spent so far: calls in the air at once can pass it
    by what they cost themselves.
    """

    __slots__ = ("calls", "calls_limit", "tokens", "tokens_limit", "usd", "usd_limit")

    def __init__(self, *, usd: float | None = None, tokens: int | None = None, calls: int | None = None) -> None:
        self.usd_limit, self.tokens_limit, self.calls_limit = usd, tokens, calls
        self.usd, self.tokens, self.calls = 0.0, 0, 0

    def take_call(self) -> None:
        """Count one model call, or raise BudgetExceeded."""
        for name, spent, limit in (
            ("usd", self.usd, self.usd_limit),
            ("tokens", self.tokens, self.tokens_limit),
            ("calls", self.calls, self.calls_limit),
        ):
            if limit is not None and spent >= limit:
                raise BudgetExceeded(f"the run's budget of {limit} {name} is spent ({spent})")
        self.calls += 1

    def spend(self, reply: Reply) -> None:
        """Add what a reply cost; an unknown price adds nothing, its tokens count."""
        self.tokens += reply.usage.tokens_in + reply.usage.tokens_out
        self.usd += reply.cost_usd or 0.0


class Tally:
    """Sums over the model calls below one program call, for its record."""

    __slots__ = (
        "attempts",
        "cost_usd",
        "estimated",
        "experiment",
        "first_token_ms",
        "model",
        "model_calls",
        "params",
        "priced",
        "saved_usd",
        "tags",
        "tier",
        "tokens_cached",
        "tokens_in",
        "tokens_out",
        "version",
        "versions",
        "waiting",
    )

    def __init__(self) -> None:
        self.tokens_in = self.tokens_out = self.tokens_cached = self.attempts = self.model_calls = 0
        self.cost_usd = 0.0
        self.saved_usd: float | None = 0.0
        self.priced = True
        self.estimated = False
        self.model: str | None = None
        self.params: str | None = None
        self.version: str | None = None
        self.experiment: str | None = None
        # which versions ran, by program, here and below: what was made with them goes stale with a release
        self.versions: dict[str, str] = {}
        self.tier: Tier = "model"
        self.first_token_ms: float | None = None
        self.tags: frozenset[str] = frozenset()
        # what a call below waits with; the program above can't end well before it
        self.waiting: BaseException | None = None

    def add_reply(self, reply: Reply) -> None:
        """Count one model call."""
        usage = reply.usage
        self.tokens_in += usage.tokens_in
        self.tokens_out += usage.tokens_out
        self.tokens_cached += usage.tokens_cached
        self.estimated |= usage.estimated
        self.attempts += reply.attempts
        self.model_calls += 1
        self._cost(reply.cost_usd)
        if reply.stages:
            self._save(reply.saved_usd)
        self.model, self.tier = reply.model, reply.tier
        if self.first_token_ms is None:
            self.first_token_ms = reply.first_token_ms

    def add_failure(self, attempts: int) -> None:
        """Count one model call that gave no answer."""
        self.model_calls += 1
        self.attempts += attempts

    def add(self, other: Tally) -> None:
        """Count everything below a child call."""
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        self.tokens_cached += other.tokens_cached
        self.estimated |= other.estimated
        self.attempts += other.attempts
        self.model_calls += other.model_calls
        self.priced &= other.priced
        self.cost_usd += other.cost_usd
        self._save(other.saved_usd)
        self.tags |= other.tags
        self.versions |= other.versions
        if other.model is not None:
            self.model, self.tier = other.model, other.tier
        self.waiting = self.waiting or other.waiting

    def add_kept(self, model: str | None, saved_usd: float | None) -> None:
        """Count an answer that was kept from an earlier call: it costs nothing."""
        self.model, self.tier = model, "step"
        self._save(saved_usd)

    def _save(self, usd: float | None) -> None:
        self.saved_usd = None if usd is None or self.saved_usd is None else self.saved_usd + usd

    def _cost(self, usd: float | None) -> None:
        if usd is None:
            self.priced = False
        else:
            self.cost_usd += usd

    @property
    def cost(self) -> float | None:
        """Dollars, or None where any price below is unknown or no model answered."""
        return self.cost_usd if self.priced and self.model is not None else None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What all calls of one run share.

    Args:
        runtime: the runner.
        scope: whose data.
        run_id: the run.
        principal: who acts.
        deadline: ``time.monotonic()`` by which the caller wants the answer, or None.
        budget: what the run may still spend.
        emit: where partial outputs go, if somebody reads them.
        overrides: params by program name (or ``EVERY``) that come before all others: an optimizer's candidate.
        replay: earlier records of this run by step, when it is resumed.
        lone: whether it is a single model call outside any program. Its (first) record has the run's id, so that
            whoever answers a stream can name the record before the stream ends.
        subject: whom the run is for: all runs of one subject get the same arm of an experiment. Empty takes the
            principal, else the run stands for itself.
        releases: which versions of its programs run, fixed when it begins; None before.
        allowance: what each request that is sent to a provider is taken from; see ``Allowance``.
    """

    runtime: Runtime
    scope: Scope
    run_id: str
    principal: str = ""
    deadline: float | None = None
    budget: Budget | None = None
    emit: Callable[[Partial], None] | None = None
    overrides: Mapping[str, Params] | None = None
    replay: Mapping[str, Record] | None = None
    lone: bool = False
    subject: str = ""
    releases: Releases | None = None
    allowance: Allowance | None = None

    @property
    def stands_for(self) -> str:
        """Whom the run is for: its subject, else who acts, else itself."""
        return self.subject or self.principal or self.run_id

    def released(self, name: str) -> Released | None:
        """The version of a program that this run gets; None for the params in the code."""
        return None if self.releases is None else self.releases.resolve(name, self.stands_for)


class Context:
    """One program call's surroundings. Made by the runner, passed first to every Program.

    Attributes:
        run: what it shares with all calls of its run.
        step: this call's path in the run, such as ``0.2.1``. An outside effect takes it, with the run id, as
            its idempotency key: effects happen at least once.
        record_id: this call's record to be; None outside any program.
        tally: sums over the model calls below this program call.
        above: the caller's tally.
    """

    __slots__ = ("_next", "above", "record_id", "run", "step", "tally")

    def __init__(
        self,
        run: Run,
        *,
        step: str = "",
        record_id: str | None = None,
        tally: Tally | None = None,
        above: Tally | None = None,
    ) -> None:
        self.run, self.step, self.record_id = run, step, record_id
        self.tally = tally or Tally()
        self.above = above
        self._next = 0

    @property
    def scope(self) -> Scope:
        """Whose data."""
        return self.run.scope

    @property
    def budget(self) -> Budget | None:
        """What the run may still spend."""
        return self.run.budget

    # -- calling others ---------------------------------------------------------------------------

    @overload
    def call(self, program: type[A], /, **inputs: Any) -> Coroutine[Any, Any, A]: ...
    @overload
    def call(self, program: Program, /, **inputs: Any) -> Coroutine[Any, Any, Answer]: ...
    def call(self, program: Any, /, **inputs: Any) -> Coroutine[Any, Any, Any]:
        """Run another program as a step of this one.

        The step's number is taken now, not when it is awaited, so steps keep program order however they
        are scheduled. Branches that make several calls each take ``fork()`` first.
        """
        return self.run.runtime.run(self._child(), program, inputs)

    def complete(self, request: Request, *, through: Through | None = None) -> Coroutine[Any, Any, Reply]:
        """Ask a model; the call is recorded as a step of this program call.

        Args:
            request: what is asked.
            through: how it is asked, instead of just so: it is given the way to the model and the request, as policy
                left it, and gives the Reply that is recorded. A call may so be answered together with others.
        """
        return self.run.runtime.complete(self._part(), request, through)

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Ask a model and read the answer as it is written; the last chunk holds the whole."""
        return self.run.runtime.stream(self._part(), request)

    def score(self, name: str, about: Answer, value: float) -> Coroutine[Any, Any, None]:
        """Keep a score about an answer, such as a metric's word on it."""
        return self.run.runtime.score(self, name, about.record, value)

    def scores(self, scores: Sequence[Score]) -> Coroutine[Any, Any, None]:
        """Keep several scores at once: a test's, which say nothing about how a model does in service."""
        return self.run.runtime.scores(self, scores)

    def scored(self) -> Coroutine[Any, Any, frozenset[tuple[str, str]]]:
        """The scores that this run has kept already: the record each is about, and its name."""
        return self.run.runtime.scored(self)

    def fork(
        self,
        *,
        emit: Callable[[Partial], None] | None = None,
        overrides: Mapping[str, Params] | None = None,
    ) -> Context:
        """A branch of this call with a path of its own, for calls made side by side.

        Args:
            emit: where the branch's partial outputs go instead.
            overrides: params by program name (or ``EVERY``) that come before those of this call.
        """
        run = self.run
        if emit is not None:
            run = replace(run, emit=emit)
        if overrides is not None:
            known = run.overrides or {}
            merged = {name: params.over(known.get(name, NOTHING)) for name, params in overrides.items()}
            run = replace(run, overrides={**known, **merged})
        return Context(run, step=self._number(), record_id=self.record_id, tally=self.tally)

    # -- what is kept from call to call ----------------------------------------------------------

    def recall(self, key: str) -> Awaitable[Kept]:
        """What an earlier call of this scope kept under ``key``, if it is still there and there is a cache at all."""
        return self.run.runtime.recall(self, key)

    def keep(
        self,
        key: str,
        value: bytes,
        *,
        tags: Sequence[str] = (),
        ttl: float | None = None,
        since: int | None = None,
    ) -> Awaitable[None]:
        """Keep a value for later calls, until ``ttl`` seconds have passed or one of its tags is invalidated.

        ``since`` is that of the ``Kept`` that was found wanting: where a tag was invalidated after it, nothing is kept.
        """
        return self.run.runtime.keep(self, key, value, tags, ttl, since)

    def depends_on(self, *tags: str) -> None:
        """This call's answer depends on these, such as ``document:7f``; so do the answers of the calls above it."""
        self.tally.tags |= frozenset(tags)

    # -- likeness ---------------------------------------------------------------------------------

    def embed(self, texts: Sequence[str]) -> Awaitable[Embeddings]:
        """A point for each text: what means the same lies near.

        Raises:
            ConfigError: where the process has no embedder.
        """
        return self.run.runtime.embed(self, texts)

    # -- what a program reads ---------------------------------------------------------------------

    def params(self, spec: Spec, own: Params) -> Params:
        """The params to run ``spec`` with: override, then the program's own, then the released ones and the defaults.

        An override under the program's name stands in the place of a released version.
        """
        return self.run.runtime.params(self, spec, own)

    @property
    def streaming(self) -> bool:
        """Whether somebody reads partial outputs."""
        return self.run.emit is not None

    def emit(self, ref: str, outputs: Mapping[str, Any]) -> None:
        """Show outputs as far as they are written to whoever reads the stream."""
        if self.run.emit is not None:
            self.run.emit(Partial(ref, self.step, outputs))

    def request(
        self,
        model: str,
        messages: tuple[Message, ...],
        *,
        stable: int = 0,
        output: OutputSchema | None = None,
        tools: tuple[ToolSpec, ...] = (),
        decoding: Decoding | None = None,
        top_logprobs: int | None = None,
        options: Options | None = None,
    ) -> Request:
        """A Request with this call's scope and deadline."""
        return Request(
            scope=self.scope,
            model=model,
            messages=messages,
            stable=stable,
            output=output,
            tools=tools,
            decoding=decoding or Decoding(),
            top_logprobs=top_logprobs,
            deadline=self.run.deadline,
            options=options or NO_OPTIONS,
        )

    def check_deadline(self) -> None:
        """Raise Timeout when the deadline has passed."""
        deadline = self.run.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise Timeout("the run's deadline has passed")

    # -- inside -----------------------------------------------------------------------------------

    def _number(self) -> str:
        number = self._next
        self._next += 1
        return f"{self.step}.{number}" if self.step else str(number)

    def _child(self) -> Context:
        """For a program call below this one: it sums for itself, then into this one."""
        return Context(self.run, step=self._number(), record_id=self.record_id, above=self.tally)

    def _part(self) -> Context:
        """For a model call of this program."""
        return Context(self.run, step=self._number(), record_id=self.record_id, tally=self.tally)
