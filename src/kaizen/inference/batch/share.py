"""Shares of a sum among those who caused it, such that they add up to exactly that sum."""

from __future__ import annotations

from collections.abc import Sequence

from kaizen.core.request import Usage


def shares(whole: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights, whose sum is ``whole`` (largest remainders)."""
    total = sum(weights)
    parts = list(weights) if total > 0 else [1.0] * len(weights)
    exact = [whole * part / sum(parts) for part in parts]
    given = [int(part) for part in exact]
    left = whole - sum(given)
    for at in sorted(range(len(exact)), key=lambda at: given[at] - exact[at])[:left]:
        given[at] += 1
    return given


def usages(usage: Usage, read: Sequence[float], written: Sequence[float]) -> list[Usage]:
    """A usage parted by what each was asked and what it was answered; the shares are estimates."""
    rows = zip(
        shares(usage.tokens_in, read),
        shares(usage.tokens_out, written),
        shares(usage.tokens_cached, read),
        shares(usage.tokens_cache_write, read),
        shares(usage.tokens_reasoning, written),
        strict=True,
    )
    return [Usage(*row, estimated=usage.estimated or len(read) > 1) for row in rows]
