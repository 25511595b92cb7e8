"""How alike two texts are that the gate lets pass: a few numbers, most of them 0 for a text and itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kaizen.core.protocols import Embedder
from kaizen.core.scope import Scope
from kaizen.inference.semantic.gate import leftover, weight
from kaizen.inference.semantic.reading import Reading

Floats = NDArray[np.float64]

FEATURES: Final = ("one", "apart", "gist_apart", "rest_apart", "added", "replaced", "rest", "short", "kind")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question, an earlier one, and the cosine of the two."""

    asked: Reading
    earlier: Reading
    similarity: float


async def likeness(embedder: Embedder, scope: Scope, gist: Floats, pairs: Sequence[Pair]) -> Floats:
    """A row of ``FEATURES`` for each pair.

    one: 1, for the constant.
    apart, gist_apart: 1 minus the cosine of the texts, and of their content words alone.
    rest_apart: the same of the content words that only one of them has, where both have some.
    added: how much content one has that the other has nothing in place of, at most 1.
    replaced: 1 where both have content that the other has not.
    rest: the share that these words have in all content.
    short: 1 over the content they share: what is said in two words is soon misunderstood.
    kind: 1 where something else is asked, as far as the gate lets that pass.

    Args:
        embedder: makes points of words and phrases.
        scope: whose texts they are.
        gist: the point of the question's content words.
        pairs: what to compare; each has the same question.
    """
    texts: list[str] = []
    left: list[tuple[list[str], list[str]]] = []
    for pair in pairs:
        ours, theirs = leftover(pair.asked, pair.earlier)
        left.append((ours, theirs))
        texts.append(pair.earlier.gist)
        if ours and theirs:
            texts += _written(pair.asked, ours), _written(pair.earlier, theirs)
    points = await embedded(embedder, scope, texts)
    rows = np.empty((len(pairs), len(FEATURES)))
    at = 0
    for row, (pair, (ours, theirs)) in enumerate(zip(pairs, left, strict=True)):
        gist_apart = 1.0 - float(gist @ points[at])
        at += 1
        rest_apart = 0.0
        if ours and theirs:
            rest_apart = 1.0 - float(points[at] @ points[at + 1])
            at += 2
        rest = weight(ours) + weight(theirs)
        replaced = bool(ours and theirs)
        added = 0.0 if replaced else min(1.0, rest)
        shared = weight(pair.asked.content & pair.earlier.content)
        kind = float(pair.asked.kind != pair.earlier.kind)
        short = 1.0 / (shared + 0.5)
        apart = (1.0 - pair.similarity, gist_apart, rest_apart)
        rows[row] = 1.0, *apart, added, replaced, rest / (shared + rest + 0.5), short, kind
    return rows


async def embedded(embedder: Embedder, scope: Scope, texts: Sequence[str]) -> Floats:
    """The points of texts, one a row."""
    found = await embedder.embed(scope, texts)
    return np.frombuffer(found.data, "<f4").reshape(len(texts), found.dim).astype(np.float64)


def _written(text: Reading, words: Sequence[str]) -> str:
    return " ".join(text.surface[word] for word in words)
