"""Which examples to show: those like the question, and unlike each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kaizen.core.message import Message
from kaizen.core.request import Request
from kaizen.inference.compress.words import terms

_REDUNDANCY: Final = 0.5
Pair: TypeAlias = tuple[Message, Message]


def demos_of(request: Request) -> tuple[int, list[Pair]]:
    """Where the examples of a request's stable part begin, and they: a user's message and the answer to it."""
    stable = request.messages[: request.stable]
    begin = next((at for at, one in enumerate(stable) if one.role != "system"), len(stable))
    rest = stable[begin:]
    pairs = list(zip(rest[::2], rest[1::2], strict=False))
    proper = len(rest) % 2 == 0 and all((one.role, two.role) == ("user", "assistant") for one, two in pairs)
    return begin, pairs if proper else []


def chosen(similar: NDArray[np.float64], among: NDArray[np.float64], most: int) -> list[int]:
    """Which to keep, in their own order.

    Each next one is the likest to the question, less half of how like it is to the likest of those chosen (maximal
    marginal relevance: Carbonell and Goldstein, 1998).

    Args:
        similar: how like each is to the question.
        among: how like each is to each other.
        most: how many to keep.
    """
    kept: list[int] = []
    while len(kept) < min(most, len(similar)):
        worth = similar - (_REDUNDANCY * among[:, kept].max(axis=1) if kept else 0.0)
        worth[kept] = -np.inf
        kept.append(int(worth.argmax()))
    return sorted(kept)


def with_fewer(request: Request, most: int, vectors: NDArray[np.float64] | None, question: str) -> Request:
    """The request with at most so many of its examples; what is stable then ends before them.

    Args:
        request: one with ``demos_of`` more than ``most`` pairs.
        most: how many to keep.
        vectors: embeddings of the question and of each example's user message; None compares their words.
        question: what is asked.
    """
    begin, pairs = demos_of(request)
    if vectors is None:
        vectors = _bags([question, *(one.text for one, _ in pairs)])
    keep = chosen(vectors[1:] @ vectors[0], vectors[1:] @ vectors[1:].T, most)
    shown = [message for at in keep for message in pairs[at]]
    messages = (*request.messages[:begin], *shown, *request.messages[request.stable :])
    return replace(request, messages=messages, stable=begin)


def _bags(texts: Sequence[str]) -> NDArray[np.float64]:
    """Texts as bags of words, of length 1."""
    words = [terms(text) for text in texts]
    places = {word: at for at, word in enumerate(dict.fromkeys(word for text in words for word in text))}
    bags = np.zeros((len(texts), max(1, len(places))))
    for at, text in enumerate(words):
        bags[at, [places[word] for word in text]] = 1.0
    return bags / np.maximum(np.linalg.norm(bags, axis=1, keepdims=True), 1e-9)
