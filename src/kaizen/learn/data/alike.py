"""Rows that say the same, and rows that are as unlike as they can be."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Sequence
from operator import mul
from typing import Final

from kaizen.core.request import Embeddings
from kaizen.learn.data.rows import Row, canonical

_WORD: Final = re.compile(r"\w+", re.UNICODE)
_SHINGLE: Final = 3
_ALIKE: Final = 0.8  # of the runs of three words: one word changed in some thirty


def text_of_row(row: Row) -> str:
    """The inputs as one text."""
    return "\n".join(one if isinstance(one, str) else canonical(one).decode() for one in row.inputs.values())


def unlike(rows: Sequence[Row], least: float = _ALIKE) -> tuple[tuple[Row, ...], int]:
    """Rows without near duplicates of earlier ones; how many were left out.

    Two rows are near duplicates where their outputs are the same and their inputs share most runs of three words
    (Jaccard of word shingles: Broder, 1997). Rows that differ in what should come out are never taken for near
    duplicates, however alike their texts: they show where the line is. Of rows with the very same inputs only the first
    stays, whatever came out.

    Args:
        rows: the better ones first.
        least: share of the runs of words that two have in common.
    """
    kept: list[Row] = []
    shingles: list[frozenset[tuple[str, ...]]] = []
    where: dict[tuple[bytes, tuple[str, ...]], list[int]] = {}
    asked: set[str] = set()
    for row in rows:
        if row.asked in asked:
            continue
        asked.add(row.asked)
        label, mine = canonical(row.outputs), _shingles(text_of_row(row))
        near = Counter(place for one in mine for place in where.get((label, one), ()))
        if any(both / (len(mine) + len(shingles[place]) - both) >= least for place, both in near.items()):
            continue
        for one in mine:
            where.setdefault((label, one), []).append(len(kept))
        kept.append(row)
        shingles.append(mine)
    return tuple(kept), len(rows) - len(kept)


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    if len(words) < _SHINGLE:
        return frozenset([tuple(words)])
    return frozenset(tuple(words[at : at + _SHINGLE]) for at in range(len(words) - _SHINGLE + 1))


def farthest(points: Embeddings, n: int) -> list[int]:
    """Places of ``n`` points that lie far apart: the most central, then each time the one farthest from all before.

    Farthest-first traversal (Gonzalez, 1985), by cosine. Time grows with ``n`` times the number of points.
    """
    dim = points.dim
    count = len(points.data) // (4 * dim)
    rows = [struct.unpack_from(f"<{dim}f", points.data, 4 * dim * place) for place in range(count)]
    if n >= count:
        return list(range(count))
    middle = [sum(column) for column in zip(*rows, strict=True)]
    chosen = [max(range(count), key=lambda place: _dot(rows[place], middle))]
    near = [_dot(row, rows[chosen[0]]) for row in rows]
    while len(chosen) < n:
        chosen.append(min(range(count), key=lambda place: near[place]))
        last = rows[chosen[-1]]
        near = [max(known, _dot(row, last)) for known, row in zip(near, rows, strict=True)]
    return chosen


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(map(mul, a, b))
