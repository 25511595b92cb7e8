"""What a request may use at most: known before it is sent, so that a budget can be held and not only counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic_core import to_json

from kaizen.core.known.repeats import facts_of, remember
from kaizen.core.message import Media, Text, ToolCall, ToolResult
from kaizen.core.protocols import Need
from kaizen.core.quick.values import changed
from kaizen.core.request import Options, Request, Usage
from kaizen.inference.prices import PriceTable

MAX_TOKENS: Final = 4096
# What a wire adds round each message: role marks and separators, generously.
_FRAME: Final = 16


def _own(request: Request) -> Sequence[str]:
    return (request.model,)


def may_compare(options: Options) -> bool:
    """Whether a layer may ask a second time to learn: who bounds a call's cost or time did not mean two of them."""
    return options.compress is not False and options.cost_budget_usd is None and options.latency_budget_ms is None


class Ceiling:
    """Bounds a request and tells what that bound comes to.

    A byte is at least a token's share, so the request's bytes bound its prompt tokens. The tokens written are
    bound by ``max_tokens``, which is set where the request left it open. The price is the dearest candidate's, or that
    of a whole cascade. Calls that a layer may send twice, or to several models, are counted as often.

    Args:
        prices: what a model's tokens cost.
        limits: by model ref, the most tokens a model writes, where that is known.
        candidates: the models that may answer a request; by default its own.
        hedged: whether calls whose caller said nothing may be sent twice.
        compared: whether a layer sends some calls twice, to learn from the two answers.
        cascade: the models that may all be asked for one answer, where each is a candidate.
    """

    def __init__(
        self,
        prices: PriceTable,
        limits: Mapping[str, int | None],
        candidates: Callable[[Request], Sequence[str]] | None = None,
        *,
        hedged: bool = False,
        compared: bool = False,
        cascade: Sequence[str] = (),
    ) -> None:
        self._prices, self._limits, self._candidates = prices, limits, candidates or _own
        self._hedged, self._compared, self._cascade = hedged, compared, tuple(cascade)

    def __call__(self, request: Request) -> tuple[Request, Need]:
        """The bounded request, and what it needs at most. ``usd`` is None where a candidate's price is not known."""
        facts = facts_of(request)
        bounded = None if facts is None else facts.get(self)
        if bounded is None:
            bounded = self._bounded(request)
            if facts is not None:
                facts[self] = bounded
                if bounded[0] is not request:
                    remember(bounded[0], made_of=request)
        request, tokens_in, out = bounded
        wish = request.options.hedge
        calls = 2 if (self._hedged if wish is None else wish) else 1
        if self._compared and may_compare(request.options):
            calls *= 2
        usage = Usage(tokens_in=tokens_in, tokens_out=out)
        usd: dict[str, float | None] = {}
        for ref in self._candidates(request):
            quote = self._prices.quote(ref) or self._prices.look_up(ref)
            usd[ref] = quote.price.cost(usage) if quote.price is not None else None
        known = [one for one in usd.values() if one is not None]
        dearest = None if len(known) < len(usd) else max(known, default=0.0) * calls
        if self._cascade and usd.keys() >= set(self._cascade):
            if dearest is not None:
                dearest = max(dearest, sum(usd[ref] or 0.0 for ref in self._cascade) * calls)
            calls *= len(self._cascade)
        return request, Need(1, (tokens_in + out) * calls, dearest)

    def _bounded(self, request: Request) -> tuple[Request, int, int]:
        """The bounded request, and the most tokens it has and gets."""
        out = request.decoding.max_tokens
        if out is None:
            out = self._limits.get(request.model) or MAX_TOKENS
            request = changed(request, decoding=changed(request.decoding, max_tokens=out))
        return request, _bytes(request), out


def _bytes(request: Request) -> int:
    size = _FRAME
    for message in request.messages:
        size += _FRAME
        for part in message.parts:
            if type(part) is Text:  # nearly always
                size += _length(part.text)
                continue
            match part:
                case ToolCall(_, name, arguments):
                    size += _length(name) + _length(arguments)
                case ToolResult(_, content):
                    size += _length(content)
                case Media():
                    size += len(part.data or "") + len(part.url or "")
                case Text():  # a kind of text of its own
                    size += _length(part.text)
    for shown in (request.output, request.tools):
        if shown:
            size += len(to_json(shown))
    return size


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
