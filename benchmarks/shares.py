"""What a share of strong calls is compared with: prompts sent on at random, and its interval over prompts."""

from typing import Any

import numpy as np

from kaizen.inference.route.training import share_needed


def random_share(weak: Any, strong: Any, target: float = 0.95) -> float:
    """The share that is needed when prompts go to the strong model at random."""
    low, high = float(weak.mean()), float(strong.mean())
    return min(1.0, max(0.0, (target * high - low) / (high - low))) if high > low else 0.0


def bootstrap(
    order: Any, weak: Any, strong: Any, target: float = 0.95, rounds: int = 2000, seed: int = 7
) -> tuple[float, float]:
    """The 95 % percentile interval of ``share_needed`` over prompts drawn with replacement (Efron, 1979)."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, len(order), len(order)) for _ in range(rounds))
    shares = [share_needed(order[rows], weak[rows], strong[rows], target) for rows in drawn]
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)
