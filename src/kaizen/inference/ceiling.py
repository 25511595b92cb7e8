"""What a request may use at most: known before it is sent, so that a budget can be held and not only counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pydantic_core import to_json

from kaizen.core.message import Media, Text, ToolCall, ToolResult
from kaizen.core.protocols import Need
from kaizen.core.request import Request, Usage
from kaizen.inference.prices import PriceTable

MAX_TOKENS: Final = 4096
# What a wire adds round each message: role marks and separators, generously.
_FRAME: Final = 16


def _own(request: Request) -> Sequence[str]:
    return (request.model,)


class Ceiling:
    """Bounds a request and tells what that bound comes to.

    A byte is at least a token's share, so the request's bytes bound its prompt tokens. The tokens written are
    bound by ``max_tokens``, which is set where the request left it open. The price is the dearest candidate's.

    Args:
        prices: what a model's tokens cost.
        limits: by model ref, the most tokens a model writes, where that is known.
        candidates: the models that may answer a request; by default its own.
        hedged: whether calls whose caller said nothing may be sent twice.
    """

    def __init__(
        self,
        prices: PriceTable,
        limits: Mapping[str, int | None],
        candidates: Callable[[Request], Sequence[str]] | None = None,
        *,
        hedged: bool = False,
    ) -> None:
        self._prices, self._limits, self._candidates = prices, limits, candidates or _own
        self._hedged = hedged

    def __call__(self, request: Request) -> tuple[Request, Need]:
        """The bounded request, and what it needs at most. ``usd`` is None where a candidate's price is not known."""
        out = request.decoding.max_tokens
        if out is None:
            out = self._limits.get(request.model) or MAX_TOKENS
            request = replace(request, decoding=replace(request.decoding, max_tokens=out))
        tokens_in = _bytes(request)
        wish = request.options.hedge
        calls = 2 if (self._hedged if wish is None else wish) else 1
        usage = Usage(tokens_in=tokens_in, tokens_out=out)
        dearest: float | None = 0.0
        for ref in self._candidates(request):
            quote = self._prices.quote(ref) or self._prices.look_up(ref)
            usd = quote.price.cost(usage) if quote.price is not None else None
            dearest = None if usd is None or dearest is None else max(dearest, usd * calls)
        return request, Need(1, (tokens_in + out) * calls, dearest)


def _bytes(request: Request) -> int:
    size = _FRAME
    for message in request.messages:
        size += _FRAME
        for part in message.parts:
            match part:
                case Text(text):
                    size += _length(text)
                case ToolCall(_, name, arguments):
                    size += _length(name) + _length(arguments)
                case ToolResult(_, content):
                    size += _length(content)
                case Media():
                    size += len(part.data or "") + len(part.url or "")
    for shown in (request.output, request.tools):
        if shown:
            size += len(to_json(shown))
    return size


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
