"""Words that a small language model expects anyway say little: the seam to one, and what is left without them.

The idea is that of LLMLingua (Jiang et al., EMNLP 2023, arXiv 2310.05736): drop the tokens whose surprisal is lowest.
Here whole words are dropped, and never a number, a name, a negation, a quotation or a word of the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from kaizen.inference.compress.words import terms

Tokens: TypeAlias = Sequence[tuple[str, float]]
"""A text's tokens in order, each with its surprisal in nats; joined they are the text."""

_NEGATES: Final = re.compile(r"(?:not?|never|none|nor|without|except|unless|\w+n't|\w+n\u2019t)", re.IGNORECASE)
# A word that the model gave less than one chance in twenty is none that it expects, in nats.
_EXPECTED: Final = 3.0
_QUOTES: Final = re.compile(r"[\"\u201c\u201d`]")


class Surprisal(Protocol):
    """A language model that reads. An adapter need not import us."""

    async def surprisal(self, texts: Sequence[str], /) -> Sequence[Tokens]:
        """The tokens of each text with how little the model expected each, in nats.

        Raises:
            ProviderError: and its kinds.
        """
        ...


def without_expected(text: str, tokens: Tokens, question: str, keep: float) -> str:
    """The text without its most expected words.

    Args:
        text: prose.
        tokens: its tokens and their surprisal.
        question: its words stay.
        keep: which share of the characters may stay, 0 to 1; what must not be touched stays beyond it.
    """
    words = _words(text, tokens)
    asked = set(terms(question))
    quoted = False
    free: list[tuple[float, int]] = []
    for at, (word, nats) in enumerate(words):
        opens = len(_QUOTES.findall(word)) % 2 == 1
        if nats < _EXPECTED and not (quoted or opens or at == 0 or _telling(word, asked)):
            free.append((nats, at))
        quoted ^= opens
    over = len(text) * (1 - keep)
    gone: set[int] = set()
    for _, at in sorted(free):
        if over < len(words[at][0]):
            continue
        over -= len(words[at][0])
        gone.add(at)
    return "".join(word for at, (word, _) in enumerate(words) if at not in gone)


def _telling(word: str, asked: set[str]) -> bool:
    """Whether a word must stay: a number, a name, a negation, the end of a sentence, a word of the question."""
    bare = word.strip()
    return (
        not bare.islower()
        or not bare[-1].isalnum()
        or any(char.isdigit() for char in bare)
        or _NEGATES.fullmatch(bare) is not None
        or not asked.isdisjoint(terms(bare))
    )


def _words(text: str, tokens: Tokens) -> list[tuple[str, float]]:
    """Words with the white space before them, and the highest surprisal of their tokens."""
    ends: list[tuple[int, float]] = []
    at = 0
    for token, nats in tokens:
        at += len(token)
        ends.append((at, nats))
    found: list[tuple[str, float]] = []
    position, token_at = 0, 0
    for match in re.finditer(r"\s*\S+", text):
        highest = 0.0
        while token_at < len(ends):
            end, nats = ends[token_at]
            highest = max(highest, nats)
            if end >= match.end():
                if end == match.end():
                    token_at += 1
                break
            token_at += 1
        found.append((match.group(), highest))
        position = match.end()
    if position < len(text):
        found.append((text[position:], float("inf")))
    return found
