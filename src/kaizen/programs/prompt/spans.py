"""Values that stand in the text: which words they are, learned from labelled rows without any language model."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(r"\d+|[^\W\d_]+|[^\w\s]|_", re.UNICODE)
_EPOCHS: Final = 12
_LONGEST: Final = 8
_NOTHING: Final = -1

# Kinds of words that few rows show too seldom to be learned one by one.
_KINDS: Final = {
    "number": "one two three four five six seven eight nine ten eleven twelve thirteen fifteen twenty couple dozen",
    "month": "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec",
    "weekday": "monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thurs fri sat sun",
    "day": "today tonight tomorrow yesterday weekend week day month year morning afternoon evening night noon midnight",
    "ordinal": "st nd rd th first second third fourth fifth last next this",
    "clock": "am pm o clock half quarter past hour hours minutes",
    "people": "people person persons guests adults children kids friends us",
    "money": "dollar dollars euro euros pound pounds usd eur gbp cents",
}
_KIND_OF: Final = {word: kind for kind, words in _KINDS.items() for word in words.split()}


@dataclass(frozen=True, slots=True)
class _Text:
    """A text with its candidate spans and what speaks for each."""

    text: str
    spans: tuple[tuple[int, int], ...]
    signs: tuple[tuple[str, ...], ...]
    nothing: tuple[str, ...]


class SpanFinder:
    """Finds the value of one field in a text, or that it has none.

    A linear model over the words in and round each span, trained to put the right one first: an averaged perceptron
    (Collins, EMNLP 2002).

    Args:
        texts: of the rows.
        values: by row; None or empty where the field has none.
        seed: of the order in which rows are seen.
    """

    def __init__(self, texts: Sequence[str], values: Sequence[str | None], seed: int = 0) -> None:
        self._longest = 1
        spans = [_span(text, value) for text, value in zip(texts, values, strict=True)]
        for text, span in zip(texts, spans, strict=True):
            if span is not None:
                self._longest = max(self._longest, len(_TOKEN.findall(text[span[0] : span[1]])))
        self._longest = min(self._longest, _LONGEST)
        self._weights = self._train([_read(text, self._longest) for text in texts], spans, seed)

    def find(self, text: str) -> str | None:
        """The value in a text, None for none."""
        read = _read(text, self._longest)
        place = _best(read, self._weights)
        if place == _NOTHING:
            return None
        start, end = read.spans[place]
        return text[start:end]

    def best(self, text: str, count: int) -> tuple[list[tuple[str, float]], float]:
        """The likeliest values in a text with their scores, the likeliest first, and the score of its having none."""
        read = _read(text, self._longest)
        scores: dict[str, float] = {}
        for (start, end), signs in zip(read.spans, read.signs, strict=True):
            found = sum(self._weights.get(sign, 0.0) for sign in signs)
            scores[text[start:end]] = max(found, scores.get(text[start:end], found))
        ranked = sorted(scores.items(), key=lambda one: -one[1])
        return ranked[:count], sum(self._weights.get(sign, 0.0) for sign in read.nothing)

    @staticmethod
    def _train(texts: Sequence[_Text], spans: Sequence[tuple[int, int] | None], seed: int) -> Mapping[str, float]:
        weights: defaultdict[str, float] = defaultdict(float)
        sums: defaultdict[str, float] = defaultdict(float)
        rng = random.Random(seed)  # noqa: S311 - an order, no secret
        order, step = list(range(len(texts))), 0
        for _ in range(_EPOCHS):
            rng.shuffle(order)
            for place in order:
                step += 1
                text, span = texts[place], spans[place]
                if span is not None and span not in text.spans:
                    continue  # it does not end where words end: no candidate is right
                wanted = _NOTHING if span is None else text.spans.index(span)
                got = _best(text, weights)
                if got == wanted:
                    continue
                for sign in _signs(text, wanted):
                    weights[sign] += 1.0
                    sums[sign] += step
                for sign in _signs(text, got):
                    weights[sign] -= 1.0
                    sums[sign] -= step
        # the mean of the weights over all steps: w - (sum of step * change) / steps
        return {sign: weight - sums[sign] / (step + 1) for sign, weight in weights.items()}


def is_span(text: str, value: str | None) -> bool:
    """Whether a value is nothing, or stands in the text as it is, case aside."""
    return not value or value.casefold() in text.casefold()


def _span(text: str, value: str | None) -> tuple[int, int] | None:
    """Where a value stands: the first place where it begins and ends with a word, else the first at all."""
    if not value:
        return None
    found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE)
    found = found or re.search(re.escape(value), text, re.IGNORECASE)
    return None if found is None else found.span()


def _read(text: str, longest: int) -> _Text:
    tokens = [(match.group().casefold(), _kind(match.group()), *match.span()) for match in _TOKEN.finditer(text)]
    words = ["<s>", "<s>", *(token[0] for token in tokens), "</s>", "</s>"]
    spans: list[tuple[int, int]] = []
    signs: list[tuple[str, ...]] = []
    for first in range(len(tokens)):
        for last in range(first, min(len(tokens), first + longest)):
            spans.append((tokens[first][2], tokens[last][3]))
            signs.append(tuple(_span_signs(tokens[first : last + 1], words, first, last)))
    nothing = ("nothing", *(f"no {word}" for word in set(words)))
    return _Text(text, tuple(spans), tuple(signs), nothing)


def _span_signs(
    inside: Sequence[tuple[str, str, int, int]], words: Sequence[str], first: int, last: int
) -> Iterable[str]:
    shape = " ".join(token[1] for token in inside)
    yield from ("any", f"n {len(inside)}", f"is {' '.join(token[0] for token in inside)}", f"shape {shape}")
    for word, kind, _, _ in inside:
        yield f"in {word}"
        yield f"like {kind}"
    before, after = words[first + 1], words[last + 3]
    yield from (f"first {inside[0][0]}", f"last {inside[-1][0]}", f"before {before}", f"after {after}")
    yield from (f"before {words[first]} {before}", f"after {after} {words[last + 4]}", f"{before} {shape} {after}")


def _kind(token: str) -> str:
    known = _KIND_OF.get(token.casefold())
    if known is not None:
        return known
    if token.isdigit():
        return "9" * min(len(token), 4)
    if not token[0].isalnum():
        return token
    return "Xx" if token[:1].isupper() and not token.isupper() else "X" if token.isupper() else "x"


def _signs(text: _Text, place: int) -> tuple[str, ...]:
    return text.nothing if place == _NOTHING else text.signs[place]


def _best(text: _Text, weights: Mapping[str, float]) -> int:
    best, most = _NOTHING, sum(weights.get(sign, 0.0) for sign in text.nothing)
    for place, signs in enumerate(text.signs):
        found = sum(weights.get(sign, 0.0) for sign in signs)
        if found > most:
            best, most = place, found
    return best
