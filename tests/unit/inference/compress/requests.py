"""Prompts and helpers that the tests of this folder share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from struct import pack
from typing import Any

from kaizen.core.errors import Unavailable
from kaizen.core.message import Message
from kaizen.core.protocols import Embeddings
from kaizen.core.request import Request
from kaizen.core.scope import LOCAL, Scope
from kaizen.inference.compress.words import terms

QUESTION = "When did the lighthouse of Marlow Point first shine?"
GOLD = "The lighthouse of Marlow Point first shone in 1871, when Ada Brandt lit four lamps. "
FILLER = (
    "Bakers on the market square sell rye bread from six in the morning until the bell rings at noon. ",
    "Football was brought to the valley by railway workers, who played behind the engine shed. ",
    "The museum keeps a collection of painted masks, most of which were given by a sea captain. ",
    "Rain falls on some two hundred days a year, and gardeners prefer potatoes to anything delicate. ",
    "A tram line once ran from the station to the harbour, but its rails were lifted in the war. ",
    "Students of the agricultural college wear green scarves at the spring fair and carry lanterns. ",
    "The town council meets on Tuesdays in a hall whose ceiling shows the labours of the months. ",
    "Herring were smoked over alder wood in long sheds that now house a theatre and two workshops. ",
)


def passages() -> str:
    """The material, a passage a line, the one that answers in the middle."""
    return "\n".join(one.strip() for one in (*FILLER[:4], GOLD, *FILLER[4:]))


def asking(text: str, *before: Message, **more: Any) -> Request:
    """A request whose last message is the user's."""
    return Request(scope=LOCAL, model="mine/large", messages=(*before, Message.of("user", text)), **more)


class WordEmbedder:
    """Embeds a text as the bag of its words; what shares words lies near."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.calls = 0

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        """See ``Embedder.embed``."""
        self.calls += 1
        if self.fails:
            raise Unavailable("no embedder today")
        data = b""
        for text in texts:
            point = [0.0] * 64
            for word in terms(text):
                point[sum(word.encode()) % 64] += 1.0
            length = math.sqrt(sum(one * one for one in point)) or 1.0
            data += pack("<64f", *(one / length for one in point))
        return Embeddings("test/words", 64, data)


class EveryWord:
    """A model that expects every word of a list, and no other."""

    def __init__(self, *expected: str) -> None:
        self.expected = frozenset(expected)

    async def surprisal(self, texts: Sequence[str], /) -> list[list[tuple[str, float]]]:
        """See ``Surprisal.surprisal``."""
        return [[(piece, 0.1 if piece.strip() in self.expected else 9.0) for piece in _pieces(text)] for text in texts]


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [words[0], *(f" {word}" for word in words[1:])]
