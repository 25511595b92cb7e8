"""A call to a model, as every layer and adapter sees it: Request in, Reply (or Chunks, the last with the Reply) out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from kaizen.core.message import Message, ToolCall
from kaizen.core.scope import Scope

JsonSchema: TypeAlias = Mapping[str, Any]
Finish: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
ToolChoice: TypeAlias = Literal["auto", "required", "none"]
Tier: TypeAlias = Literal["model", "exact", "semantic", "step"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool offered to the model: its name, what it does, and the JSON schema of its arguments."""

    name: str
    description: str
    schema: JsonSchema


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The JSON schema the reply's text must fit; the adapter has the provider enforce it."""

    name: str
    schema: JsonSchema


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen. None leaves the provider's default.

    Args:
        temperature: 0 is greedy.
        top_p: nucleus mass in (0, 1].
        max_tokens: bound on the tokens written.
        seed: for providers that take one.
        stop: strings at which writing ends.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call to a model.

    Args:
        scope: whose call it is; every cache and pool keys on it first.
        model: the model's ref, ``provider/model``.
        messages: the conversation, the stable part first so that prefix caches hold.
        stable: how many messages at the beginning are the same for every call of a program.
        output: the schema the reply must fit, when the provider enforces it.
        tools: tools the model may call.
        tool_choice: "auto" lets the model choose, "required" makes it call one, "none" forbids it.
        decoding: sampling parameters.
        top_logprobs: how many alternatives to report a token with its log-probability; None reports none.
        deadline: ``time.monotonic()`` at which the caller stops waiting, or None.
    """

    scope: Scope
    model: str
    messages: tuple[Message, ...]
    stable: int = 0
    output: OutputSchema | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    decoding: Decoding = Decoding()
    top_logprobs: int | None = None
    deadline: float | None = None


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
class TokenLogprob:
    """A written token, its natural-log probability, and the likeliest alternatives (itself included)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


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


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer: the text that was added, or, last and once, the whole Reply."""

    text: str = ""
    reply: Reply | None = field(default=None)
