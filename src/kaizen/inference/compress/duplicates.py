"""Sentences that say what another one has said already, in nearly the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kaizen.inference.compress.words import WORD, terms

# Numbers, quotations, negations and names must agree: "turn it on" and "turn it off" share nearly all of their words.
_TELLING: Final = re.compile(
    r"\d[\d.,:/-]*|\"[^\"]*\"|\u201c[^\u201d]*\u201d|\b(?:not?|never|none|without|except|un\w+|\w+n't)\b|\b[A-Z]\w*",
)
_SHINGLE: Final = 3
_FEWEST: Final = 5


def repeated(texts: Sequence[str], *, alike: float) -> list[int]:
    """Which of the texts repeat an earlier one.

    Two are near duplicates when the share of their three-word shingles that both have (Broder, On the resemblance and
    containment of documents, 1997) is at least ``alike``, and their numbers, quotations, negations and names are the
    same. Texts of fewer than five words are never called so.

    Args:
        texts: in the order in which they are read; of two that are alike the later one repeats.
        alike: 1 finds what differs in white space and case only.
    """
    found: list[int] = []
    # by what must agree: most texts share it with no other, and their words need not be looked at
    groups: dict[tuple[str, ...], list[int]] = {}
    for at, text in enumerate(texts):
        groups.setdefault(tuple(sorted(_TELLING.findall(text))), []).append(at)
    for group in groups.values():
        kept: list[frozenset[tuple[str, ...]]] = []
        for at in group if len(group) > 1 else ():
            own = _shingles(texts[at], stems=alike < 1)
            if own and any(len(own & other) >= alike * len(own | other) for other in kept):
                found.append(at)
            else:
                kept.append(own)
    return sorted(found)


def _shingles(text: str, *, stems: bool) -> frozenset[tuple[str, ...]]:
    words = [word.lower() for word in WORD.findall(text)]
    if len(words) < _FEWEST:
        return frozenset()
    words = (terms(text) or words) if stems else words
    return frozenset(tuple(words[begin : begin + _SHINGLE]) for begin in range(max(1, len(words) - _SHINGLE + 1)))
