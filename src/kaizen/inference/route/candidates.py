"""Whom a request may be answered by: what each would cost, take and be worth, and what speaks against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from pydantic_core import to_json

from kaizen.core.identity import permits
from kaizen.core.message import Media, Text, ToolCall, ToolResult
from kaizen.core.request import Options, Request, Usage
from kaizen.inference.ceiling import MAX_TOKENS
from kaizen.inference.health import State
from kaizen.inference.prices import Price

Constraint: TypeAlias = Literal[
    "policy",
    "health",
    "context",
    "media",
    "tools",
    "schema",
    "latency_budget_ms",
    "cost_budget_usd",
    "quality_threshold",
]
"""What can rule a candidate out; in a caller's own words where it is a wish."""

# Without a count of the model's own: English prose has about four bytes a token, code and JSON fewer. Known ratios of
# a model's own counts replace it after its first answer.
BYTES_A_TOKEN: Final = 4.0
# A wire's role marks and separators, in tokens a message.
_FRAME: Final = 4


@dataclass(frozen=True, slots=True)
class Capability:
    """What is known of a model beforehand. None is not known, and passes.

    Args:
        context_tokens: of prompt and answer together.
        max_output_tokens: the most it writes.
        tools: whether it calls tools.
        media: the kinds it takes.
        schema: whether the provider holds it to a JSON schema.
    """

    context_tokens: int | None = None
    max_output_tokens: int | None = None
    tools: bool | None = None
    media: frozenset[str] | None = None
    schema: bool | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What earlier calls of a model showed.

    Args:
        bytes_a_token: of its prompts.
        tokens_out: mean number of tokens written; None before the first answer.
        answers: how many answers that is the mean of.
        latency_ms: median and 95th percentile of whole answers; None before the first.
        state: how it is doing.
    """

    bytes_a_token: float = BYTES_A_TOKEN
    tokens_out: float | None = None
    answers: int = 0
    latency_ms: tuple[float, float] | None = None
    state: State = "ok"


@dataclass(frozen=True, slots=True)
class Worth:
    """Predicted quality.

    Args:
        quality: 0 to 5; None is unknown.
        n: scores, or rows of training, that it comes from.
        by: where it comes from.
    """

    quality: float | None = None
    n: int = 0
    by: Literal["scores", "router", "nothing"] = "nothing"


UNKNOWN: Final = Worth()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that may answer.

    Args:
        model: its ref.
        cost_usd: estimated for this request; None where the price is not known.
        cost_by: whether the tokens it will write are a mean of earlier answers or only their bound.
        latency_ms: measured median of its answers; None where nothing was measured.
        worth: its predicted quality.
        against: what rules it out, and by how much it misses, as a share of the limit; None where that is not known.
        degraded: whether it answers worse or more slowly than it used to.
    """

    model: str
    cost_usd: float | None = None
    cost_by: Literal["history", "bound"] = "bound"
    latency_ms: float | None = None
    worth: Worth = UNKNOWN
    against: Mapping[Constraint, float | None] = field(default_factory=dict[Constraint, float | None])
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """How large a request is.

    Args:
        bytes: of its prompt, tools and schema.
        messages: how many.
        max_tokens: the bound on what is written; None where it has none.
        media: the kinds it holds.
    """

    bytes: int
    messages: int
    max_tokens: int | None
    media: frozenset[str]

    @classmethod
    def of(cls, request: Request) -> Size:
        """Measured once a request, whatever the number of candidates."""
        size = 0
        media: set[str] = set()
        for message in request.messages:
            for part in message.parts:
                match part:
                    case Text():
                        size += len(part.text.encode())
                    case ToolCall():
                        size += len(part.name) + len(part.arguments.encode())
                    case ToolResult():
                        size += len(part.content.encode())
                    case Media():
                        media.add(part.kind)
        for shown in (request.output, request.tools):
            if shown:
                size += len(to_json(shown))
        return cls(size, len(request.messages), request.decoding.max_tokens, frozenset(media))

    def tokens_in(self, bytes_a_token: float) -> int:
        """Prompt tokens, estimated."""
        return round(self.bytes / bytes_a_token) + _FRAME * self.messages


def assess(
    request: Request, size: Size, model: str, known: Capability, seen: Seen, price: Price | None, worth: Worth
) -> Candidate:
    """A candidate with its estimates, and what rules it out.

    Unknown capability and unmeasured latency pass, or a model that was never asked could never be. An unknown price
    does not meet a cost budget, and an unknown quality no threshold: nothing shows that they would.
    """
    options = request.options
    bound = _bound(size, known)
    usage = Usage(tokens_in=size.tokens_in(seen.bytes_a_token), tokens_out=round(min(seen.tokens_out or bound, bound)))
    cost = None if price is None else price.cost(usage)
    latency = seen.latency_ms[0] if seen.latency_ms else None
    against = _incapable(request, size, model, known, usage) | _unwished(options, cost, seen, worth)
    if seen.state == "open":
        against["health"] = 1.0
    return Candidate(
        model=model,
        cost_usd=cost,
        cost_by="bound" if seen.tokens_out is None else "history",
        latency_ms=latency,
        worth=worth,
        against=against,
        degraded=seen.state == "degraded",
    )


def _bound(size: Size, known: Capability) -> int:
    """The most tokens that will be written: as a budget reserves them."""
    bounds = [one for one in (size.max_tokens, known.max_output_tokens) if one is not None]
    return min(bounds, default=MAX_TOKENS)


def _incapable(
    request: Request, size: Size, model: str, known: Capability, usage: Usage
) -> dict[Constraint, float | None]:
    found: dict[Constraint, float | None] = {}
    if not permits(request.options.models, model):
        found["policy"] = 1.0
    if known.context_tokens is not None and usage.tokens_in + 1 > known.context_tokens:
        found["context"] = usage.tokens_in / known.context_tokens
    if known.media is not None and not size.media <= known.media:
        found["media"] = 1.0
    if request.tools and known.tools is False:
        found["tools"] = 1.0
    if request.output is not None and known.schema is False:
        found["schema"] = 1.0
    return found


def _unwished(options: Options, cost: float | None, seen: Seen, worth: Worth) -> dict[Constraint, float | None]:
    found: dict[Constraint, float | None] = {}
    budget, threshold = options.cost_budget_usd, options.quality_threshold
    if budget is not None and (cost is None or cost > budget):
        found["cost_budget_usd"] = None if cost is None or not budget else cost / budget - 1
    if options.latency_budget_ms is not None and seen.latency_ms and seen.latency_ms[1] > options.latency_budget_ms:
        found["latency_budget_ms"] = seen.latency_ms[1] / options.latency_budget_ms - 1
    if threshold is not None and (worth.quality is None or worth.quality < threshold):
        found["quality_threshold"] = None if worth.quality is None else (threshold - worth.quality) / threshold
    return found
