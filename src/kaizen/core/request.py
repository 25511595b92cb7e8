"""A call to a model, as every layer and adapter sees it: Request in, Reply (or Chunks, the last with the Reply) out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

from kaizen.core.message import Mark, Message, ToolCall
from kaizen.core.quick.values import quick
from kaizen.core.scope import Scope

JsonSchema: TypeAlias = Mapping[str, Any]
Finish: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
ToolChoice: TypeAlias = Literal["auto", "required", "none"]
Tier: TypeAlias = Literal["model", "exact", "semantic", "step"]
Routing: TypeAlias = Literal["explicit", "guided", "autopilot"]
Quality: TypeAlias = Literal["low", "medium", "high", "max"]
Pace: TypeAlias = Literal["slow", "normal", "fast", "instant"]
Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool offered to the model: its name, what it does, and the JSON schema of its arguments.

    ``strict`` has the provider hold the model to the schema, as it stands; None leaves the provider's default.
    ``mark`` is as in ``Text``.
    """

    name: str
    description: str
    schema: JsonSchema
    strict: bool | None = None
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The JSON schema the reply's text must fit; the adapter has the provider enforce it.

    ``description`` tells the model what the answer is for, where the wire has a place for it.
    """

    name: str
    schema: JsonSchema
    description: str | None = None


class Spare(int):
    """A number that we set and no caller asked for: where a provider has no place for it, it may be left out.

    As a seed it tells draws of the same call apart; as ``top_logprobs`` it asks how sure a model was. Whatever a caller
    asks for is named in an error instead. In JSON, in keys and in comparisons it is the number.
    """

    __slots__ = ()


@quick
@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen. None leaves the provider's default.

    Args:
        temperature: 0 is greedy.
        top_p: nucleus mass in (0, 1].
        max_tokens: bound on the tokens written.
        seed: for providers that take one; the others refuse it by name, unless it is a ``Spare`` one.
        stop: strings at which writing ends.
        top_k: only the so many likeliest tokens, for providers that take one.
        presence_penalty, frequency_penalty: -2 to 2, against tokens that were written already.
        logit_bias: by token id, what is added to its logit.
        effort: how much a model that reasons should.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[tuple[str, float], ...] = ()
    effort: Effort | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller wishes of the layers. None leaves a layer's own setting; a wish no layer can meet is an error.

    Args:
        exact: whether the exact cache may answer and keep this call.
        refresh: ask anew and keep the new answer, whatever a cache holds.
        semantic: whether an answer to a question of the same meaning may be given.
        compress: whether the prompt may be shortened.
        batch: whether the call may wait for others, as long as ``deadline`` and ``latency_budget_ms`` allow.
        hedge: whether a second call may be sent when the first takes unusually long.
        routing: "explicit" asks ``Request.model`` and no other, "guided" chooses by the wishes below, "autopilot"
            finds the task's type and chooses for it.
        quality: how much it matters that the answer is right.
        pace: how much it matters that the answer comes soon.
        quality_threshold: lowest predicted quality to accept, 0 to 5.
        latency_budget_ms: milliseconds that the answer may take; a candidate that is slower is no candidate.
        cost_budget_usd: dollars that the call may cost at most.
        task: the type of task, where the caller knows it.
        fallback: whether the nearest candidate may be asked where none meets the wishes.
        models: refs and patterns such as ``openai/*`` that may be asked for this caller, whoever chooses; None
            allows all.
        ttl: seconds that a cached answer may be kept.
        tags: what the answer depends on, such as ``document:7f`` or ``program:triage``: a cached answer goes when
            one of them is invalidated.
    """

    exact: bool | None = None
    refresh: bool = False
    semantic: bool | None = None
    compress: bool | None = None
    batch: bool | None = None
    hedge: bool | None = None
    routing: Routing | None = None
    quality: Quality | None = None
    pace: Pace | None = None
    quality_threshold: float | None = None
    latency_budget_ms: float | None = None
    cost_budget_usd: float | None = None
    task: str | None = None
    fallback: bool = False
    models: tuple[str, ...] | None = None
    ttl: float | None = None
    tags: tuple[str, ...] = ()


NO_OPTIONS: Final = Options()


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call to a model.

    Args:
        scope: whose call it is; every cache and pool keys on it first.
        model: the model's ref, ``provider/model``.
        messages: the conversation, the stable part first so that prefix caches hold.
        stable: how many messages at the beginning are a program's own, its instructions and examples: the same for
            every call of it, unless the examples are chosen by nearness.
        output: the schema the reply must fit, when the provider enforces it.
        tools: tools the model may call.
        tool_choice: "auto" lets the model choose, "required" makes it call one, "none" forbids it.
        tool: the name of the one that it has to call, where ``tool_choice`` is "required".
        parallel_tools: whether it may call several at once; None leaves the provider's default.
        json_object: whether the reply has to be a JSON object, where there is no schema for it.
        plain: whether the messages' texts, one after another with nothing between, are a text that the model goes on
            with, outside any conversation. An ``output`` whose schema is an ``enum`` of texts is then written bare,
            without quotes. Providers that only converse refuse it by name.
        decoding: sampling parameters.
        top_logprobs: how many alternatives to report a token with its log-probability; None reports none. Providers
            that have none refuse it by name, unless it is a ``Spare`` one.
        deadline: ``time.monotonic()`` at which the caller stops waiting, or None.
        options: what the caller wishes of the layers.
        user: the caller's own name for whoever is behind the call, told to the provider; it means nothing here.
        step: the run and the step that ask, set where the call may outlive the process; empty says nothing. The same
            step of a run that is resumed has the same.
        allowance: what each request that is sent for it is taken from, set by the runner; None bounds nothing.
    """

    scope: Scope
    model: str
    messages: tuple[Message, ...]
    stable: int = 0
    output: OutputSchema | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    tool: str | None = None
    parallel_tools: bool | None = None
    json_object: bool = False
    plain: bool = False
    decoding: Decoding = Decoding()
    top_logprobs: int | None = None
    deadline: float | None = None
    options: Options = NO_OPTIONS
    user: str | None = None
    step: str = ""
    allowance: Allowance | None = None


@quick
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them.

    Args:
        tokens_in: prompt tokens, cached ones included.
        tokens_out: tokens written, reasoning included.
        tokens_cached: the part of ``tokens_in`` read from the provider's prompt cache.
        tokens_cache_write: the part of ``tokens_in`` written to the provider's prompt cache.
        tokens_reasoning: the part of ``tokens_out`` spent on hidden reasoning.
        estimated: True where the provider sent no count and ours is a guess.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_cache_write: int = 0
    tokens_reasoning: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Texts as points: what means the same lies near.

    Args:
        model: ref of the model that made them; points of two models can't be compared.
        dim: numbers a point has.
        data: float32, little endian, one point after another, each of length 1.
        usage: tokens read.
    """

    model: str
    dim: int
    data: bytes
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A written token, its natural-log probability, and the likeliest alternatives (itself included)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Stage:
    """What one layer did to a call.

    Args:
        layer: its key in the settings, such as ``exact`` or ``route``.
        ms: milliseconds that the layer itself took, without those below it.
        saved_usd: dollars that the call would have cost more without it, on the caller's own model; None where a
            price is not known.
        note: what it decided and why, as JSON-able values.
    """

    layer: str
    ms: float = 0.0
    saved_usd: float | None = 0.0
    note: Mapping[str, Any] = field(default_factory=dict[str, Any])


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's whole answer.

    Args:
        model: the ref of the model that answered.
        text: what it wrote.
        tool_calls: the calls it wishes for, in order.
        finish: why it stopped.
        usage: tokens, as the provider counted them.
        logprobs: one entry a token where they were asked for and are offered.
        cost_usd: set by the meter; None where the price is not known.
        tier: which layer answered.
        attempts: how many times a provider was asked, retries included.
        first_token_ms: milliseconds from the call to the first token, where it was streamed.
        stages: what the layers did, innermost first; a layer that did nothing is absent.
        record_id: the record of this call, set by the runner.
    """

    model: str
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish = "stop"
    usage: Usage = Usage()
    logprobs: tuple[TokenLogprob, ...] = ()
    cost_usd: float | None = None
    tier: Tier = "model"
    attempts: int = 1
    first_token_ms: float | None = None
    stages: tuple[Stage, ...] = ()
    record_id: str | None = None

    @property
    def saved_usd(self) -> float | None:
        """Dollars that the layers saved together; None where one of them can't tell."""
        saved = 0.0
        for stage in self.stages:
            if stage.saved_usd is None:
                return None
            saved += stage.saved_usd
        return saved


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer: the text that was added, or, last and once, the whole Reply."""

    text: str = ""
    reply: Reply | None = field(default=None)


# -- what requests are taken from ------------------------------------------------------------------


class Claim(Protocol):
    """What was taken for one request."""

    @property
    def request(self) -> Request:
        """The request to send: the one asked, bounded where the allowance has to know what it may use."""
        ...

    async def settle(self, usage: Usage, /) -> None:
        """Put what was really used in the place of what was taken. Not called where nobody can tell."""
        ...


class Allowance(Protocol):
    """A number of requests, and of tokens or dollars, that a run may spend, whichever processes work on it.

    It is asked where a request leaves for a provider, below every cache, retry and second call: what a cache answers is
    free, and a request that is sent again is another one. What was taken stays taken when the process dies.
    """

    async def take(self, request: Request, /) -> Claim:
        """Count a request that is about to be sent.

        Raises:
            BudgetExceeded: it would pass the allowance; it must not be sent.
        """
        ...
