"""How the models are doing: what the layers that see the calls know, for the layers that choose."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

State: TypeAlias = Literal["ok", "degraded", "open"]
"""``degraded`` answers more slowly, with more errors or worse than it used to; ``open`` is not asked at all."""


class Health(Protocol):
    """What is known of each model by its ref. Every answer is at hand: nothing is asked or awaited."""

    def state(self, ref: str, /) -> State:
        """How it is doing; "ok" for one that was never asked."""
        ...

    def latency_ms(self, ref: str, quantile: float, /) -> float | None:
        """Milliseconds that this share of whole answers, 0 to 1, did not exceed; None where not measured."""
        ...

    def in_flight(self, ref: str, /) -> int:
        """Calls in the air now."""
        ...
