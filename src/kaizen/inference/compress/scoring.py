"""How much each sentence of the material may help to answer: words, meaning, and what leads from passage to passage.

A sentence counts by the words it shares with the question (BM25: Robertson and Zaragoza, The Probabilistic Relevance
Framework, 2009) and by how near it lies to it as an embedding; so does its passage. Some answers need two steps: the
passage that the question names names another one. So a passage also counts when a strong one names it or it names a
strong one, and a sentence when it shares rare words with the strongest ones.

Each of these is a number, standardised within the prompt and weighed. The weights are a logistic regression of "is
evidence" on halves of two public sets (``benchmarks/token_optimisation.py --fit`` prints them); nothing of the sets'
words is in them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kaizen.inference.compress.words import looks_back, terms

Array: TypeAlias = NDArray[np.float64]

FEATURES: Final = (
    *("words", "meaning", "neighbour", "rare", "near_top", "opens", "opens_linked", "leans"),
    *("passage_words", "passage_meaning", "passage_best", "title", "title_all", "named", "alike", "strength"),
)
# Without an embedder the three that need one are zero, and the others weigh differently.
WEIGHTS: Final[Mapping[str, float]] = {
    "words": 0.98,
    "meaning": 0.17,
    "neighbour": -0.1,
    "rare": 0.22,
    "near_top": -0.25,
    "opens": 0.1,
    "opens_linked": 0.29,
    "leans": 0.13,
    "passage_words": 0.48,
    "passage_meaning": -0.34,
    "passage_best": -0.16,
    "title": 0.28,
    "title_all": 0.44,
    "named": 0.24,
    "alike": 0.34,
    "strength": 0.4,
}
LEXICAL: Final[Mapping[str, float]] = {
    "words": 0.96,
    "meaning": 0.0,
    "neighbour": -0.13,
    "rare": 0.16,
    "near_top": 0.0,
    "opens": 0.08,
    "opens_linked": 0.32,
    "leans": 0.12,
    "passage_words": 0.5,
    "passage_meaning": 0.0,
    "passage_best": -0.25,
    "title": 0.32,
    "title_all": 0.46,
    "named": 0.21,
    "alike": 0.3,
    "strength": 0.19,
}

_K1: Final = 1.2
_B: Final = 0.4
_STRONGEST: Final = 3
# Links between passages cost their number squared: beyond this many only words and meaning count.
_LINKED: Final = 256


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of the material: its heading, if it has one, and its sentences."""

    heading: str
    sentences: tuple[str, ...]


def scores(question: str, passages: Sequence[Passage], vectors: Array | None = None) -> Array:
    """How much each sentence may help, all passages' sentences in a row; only differences within a prompt mean much.

    Args:
        question: what is asked.
        passages: the material, each with at least one sentence.
        vectors: embeddings of the question and then of each sentence, of length 1; None scores by words alone.
    """
    found = features(question, passages, vectors)
    spread = found.std(axis=0)
    spread[spread == 0] = 1.0
    weights = LEXICAL if vectors is None else WEIGHTS
    standard: Array = (found - found.mean(axis=0)) / spread
    weight: Array = np.array([weights[name] for name in FEATURES])
    worth: Array = np.zeros(len(standard))
    np.matmul(standard, weight, out=worth)
    return worth


def features(question: str, passages: Sequence[Passage], vectors: Array | None = None) -> Array:
    """A row of ``FEATURES`` for each sentence."""
    read = _read(question, passages)
    home, asked = read.home, read.asked
    words = _bm25(read.sentences, asked)
    meaning = np.zeros(len(home)) if vectors is None else vectors[1:] @ vectors[0]
    begins = np.flatnonzero(np.diff(home, prepend=-1))
    passage_words = _bm25(read.passages, asked)
    passage_best = np.maximum.reduceat(words, begins)
    passage_meaning = np.maximum.reduceat(meaning, begins)
    idf = _Idf(read.passages)
    title = np.array([_covered(one, asked, idf) for one in read.titles])
    strength = passage_words + passage_meaning + passage_best + 0.5 * title
    strength = (strength - strength.min()) / (np.ptp(strength) or 1.0)
    named, alike = _links(read, idf, strength**2)
    order: list[int] = np.argsort(-(words + 0.8 * meaning + 0.5 * strength[home]), kind="stable").tolist()
    top = order[:_STRONGEST]
    near = np.zeros(len(home)) if vectors is None else (vectors[1:] @ vectors[1:][top].T).max(axis=1)
    opens = np.zeros(len(home))
    opens[begins] = 1.0
    before = np.concatenate(([0.0], words[:-1])) * (1 - opens)
    after = np.concatenate((words[1:], [0.0])) * np.concatenate((1 - opens[1:], [0.0]))
    back = np.array([looks_back(one) for passage in passages for one in passage.sentences], dtype=float)
    own = (words, meaning, np.maximum(before, after), _rare(read, top), near, opens, opens * named[home], back * before)
    whole = (passage_words, passage_meaning, passage_best, title, (title > 0.99) * 1.0, named, alike, strength)
    return np.stack([*own, *(one[home] for one in whole)], axis=1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Text:
    """Terms of everything. ``home`` is the passage of each sentence."""

    asked: tuple[str, ...]
    sentences: list[list[str]]
    passages: list[list[str]]
    titles: list[list[str]]
    home: NDArray[np.int64]


def _read(question: str, passages: Sequence[Passage]) -> _Text:
    titles = [list(dict.fromkeys(terms(one.heading))) for one in passages]
    by_passage = [[terms(sentence) for sentence in one.sentences] for one in passages]
    return _Text(
        asked=tuple(dict.fromkeys(terms(question))),
        sentences=[one for found in by_passage for one in found],
        passages=[
            [*title, *(word for one in found for word in one)] for title, found in zip(titles, by_passage, strict=True)
        ],
        titles=titles,
        home=np.repeat(np.arange(len(passages)), [len(found) for found in by_passage]),
    )


class _Idf:
    """How telling a word is among some texts."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.among = len(texts)
        self.count = Counter(word for text in texts for word in set(text))

    def __call__(self, word: str) -> float:
        have = self.count[word]
        return math.log(1 + (self.among - have + 0.5) / (have + 0.5))


def _bm25(texts: Sequence[Sequence[str]], asked: Iterable[str]) -> Array:
    """BM25 of each text, as a share of what the question's words weigh together."""
    idf = _Idf(texts)
    weights = {word: idf(word) for word in asked}
    return _weighed(texts, weights) / (sum(weights.values()) or 1.0)


def _weighed(texts: Sequence[Sequence[str]], weights: Mapping[str, float]) -> Array:
    average = sum(map(len, texts)) / len(texts) or 1.0
    found = np.zeros(len(texts))
    for at, text in enumerate(texts):
        times: dict[str, int] = {}
        for word in text:
            if word in weights:
                times[word] = times.get(word, 0) + 1
        length = 1 - _B + _B * len(text) / average
        found[at] = sum(weights[word] * n * (_K1 + 1) / (n + _K1 * length) for word, n in times.items())
    return found


def _covered(title: Sequence[str], words: Iterable[str], idf: _Idf) -> float:
    """Which share of a title, by weight, is among the words."""
    known = set(words)
    whole = sum(idf(word) for word in title)
    return sum(idf(word) for word in title if word in known) / whole if whole else 0.0


def _rare(read: _Text, top: Sequence[int]) -> Array:
    """How much of the rare words of the strongest sentences each sentence has."""
    idf = _Idf(read.sentences)
    often = max(3.0, 0.12 * len(read.sentences))
    asked = set(read.asked)
    words = [word for at in top for word in read.sentences[at]]
    weights = {word: idf(word) for word in words if word not in asked and idf.count[word] <= often}
    return np.minimum(_weighed(read.sentences, weights) / (sum(sorted(weights.values())[-8:]) or 1.0), 1.0)


def _links(read: _Text, idf: _Idf, strength: Array) -> tuple[Array, Array]:
    """For each passage: how far a strong one names it or is named by it, and how far it shares rare words with one."""
    count = len(read.passages)
    if not 1 < count <= _LINKED:
        return np.zeros(count), np.zeros(count)
    places = {word: at for at, word in enumerate(idf.count)}
    weight = np.array([idf(word) for word in places])
    has = np.zeros((count, len(places)))
    title = np.zeros_like(has)
    for at, (passage, heading) in enumerate(zip(read.passages, read.titles, strict=True)):
        has[at, [places[word] for word in passage]] = 1.0
        title[at, [places[word] for word in heading]] = 1.0
    weighed = title * weight
    share = (weighed @ has.T) / np.maximum(weighed.sum(axis=1, keepdims=True), 1e-9)
    named = np.maximum(share**2, share.T**2)
    rare = weight * (np.array(list(idf.count.values())) <= max(2.0, 0.3 * count))
    rare[[places[word] for word in read.asked if word in places]] = 0.0
    points = has * rare
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    alike = points @ points.T
    np.fill_diagonal(named, 0.0)
    np.fill_diagonal(alike, 0.0)
    return (named * strength).max(axis=1), (alike * strength).max(axis=1)
