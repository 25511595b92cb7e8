"""How sure a share is that was counted: for views, and for all floors above that measure."""

from __future__ import annotations

import math
from typing import Final

Z95: Final = 1.959963984540054
"""Standard errors of a 95 % interval, two-sided."""


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, JASA 22, 1927): everything from 0 to 1 where nothing was counted."""
    if not n:
        return 0.0, 1.0
    share, z2 = right / n, Z95 * Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    spread = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - spread), min(1.0, middle + spread)
