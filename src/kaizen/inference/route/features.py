"""A prompt in numbers: how long it is, what it counts, how its parts hang together, what it asks for.

Nothing here is fitted to a data set. The measures are those by which people grade exercises: quantities, how they are
related to each other ("twice as many as", "more than", "per"), how many steps are told, what kind of thing is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE: Final = re.compile(r"(?<=[.?!。？！])\s+|\n+")
_NUMBER: Final = re.compile(r"\d[\d,]*(?:\.\d+)?")
_NAME: Final = re.compile(r"(?<=[^.?!:\s][ ])[A-Z][a-z]+")
_LONG: Final = 8
_SMALL, _LARGE = 10, 100

# How often words of each kind are met is a feature of that name. English; in other languages they count nothing, and
# the lengths, the numbers and the embedding remain.
_KINDS: Final[Mapping[str, str]] = {
    "number words": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million dozen",
    "rates": "per each every apiece",
    "multiples": "times twice double triple thrice doubled tripled",
    "comparatives": "more less fewer greater older younger longer shorter taller larger smaller faster slower",
    "than": "than",
    "fractions": "half halves third thirds quarter quarters fourth fifth fifths sixth fraction fractions",
    "money": "dollar dollars cent cents cost costs price prices pay pays paid earn earns sell sells sold spend spends "
    "spent budget profit profits",
    "time": "second seconds minute minutes hour hours day days week weeks month months year years am pm monday tuesday "
    "wednesday thursday friday saturday sunday",
    "units": "feet foot inch inches mile miles meter meters metre metres km kilometer kilometers pound pounds ounce "
    "ounces gallon gallons liter liters litre litres cup cups gram grams kg square cubic mph speed",
    "ages": "age ages old",
    "conditions": "if when assuming suppose provided given",
    "exceptions": "but except however instead only unless without although",
    "remainders": "left remaining remain remains remainder rest",
    "totals": "total altogether combined sum together overall",
    "averages": "average averages mean ratio ratios proportion proportional",
    "order": "then after before next later first second third finally last previous",
    "negations": "not no never none neither nor false incorrect cannot",
    "and": "and",
    "or": "or",
    "others": "another additional extra other others",
    "needs": "need needs needed enough must order",
    "extremes": "most least maximum minimum biggest smallest highest lowest best",
    "changes": "tax discount interest tip tips off increase increased increases decrease decreased decreases raise "
    "raised raises reduce reduced reduces grow grows",
    "choices": "which whether following statement statements",
    "reasons": "why because therefore explain cause causes caused reason reasons",
    "hedges": "may might could would should likely probably",
    "code": "def class function return import select var const int string",
}
# What no single word shows.
_PATTERNS: Final[Mapping[str, re.Pattern[str]]] = {
    "as many as": re.compile(r"\bas (?:many|much|old|tall|long|far|fast|big|large|heavy)\b"),
    "of the": re.compile(r"\bof (?:the|these|those|them)\b"),
    "in all": re.compile(r"\bin all\b"),
    "written fractions": re.compile(r"\d/\d"),
    "blanks": re.compile(r"_{2,}"),
    "options": re.compile(r"^\s*\(?[a-e1-5][).:]\s", re.MULTILINE),
    "calls": re.compile(r"\w\(\)|=>|::|```"),
}
# Whether the last sentence, where the question mostly stands, says it.
_ASKED: Final[Mapping[str, tuple[str, ...]]] = {
    "asks how many": ("how many",),
    "asks how much": ("how much",),
    "asks how long": ("how long", "how old", "how far", "how fast", "how tall"),
    "asks what": ("what",),
    "asks which": ("which",),
    "asks why": ("why", "how do", "how can", "how would"),
    "asks with a condition": ("if ",),
    "asks for a comparison": ("more", "less", "fewer", "than", "difference"),
    "asks for a percentage": ("percent", "%"),
    "asks for a total": ("total", " all", "altogether", "combined"),
    "asks for an average": ("average",),
}
_SIGNS: Final[Mapping[str, str]] = {
    "question marks": "?",
    "commas": ",",
    "percent signs": "%",
    "currency signs": "$€£",
    "symbols": "=+*^<>\\|{}[]",
    "quotation marks": '"“”«»',
    "asides": ";:(—",
    "lines": "\n",
}


def _kinds_of_words() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for kind, words in _KINDS.items():
        for word in words.split():
            found[word] = (*found.get(word, ()), kind)
    return found


_KINDS_OF: Final = _kinds_of_words()


def _words(lower: str) -> dict[str, float]:
    words = _WORD.findall(lower)
    counts = dict.fromkeys(_KINDS, 0)
    for word in words:
        for kind in _KINDS_OF.get(word, ()):
            counts[kind] += 1
        if word.endswith(("n't", "n’t")):
            counts["negations"] += 1
    distinct, count = len(set(words)), max(1, len(words))
    return counts | {
        "words": len(words),
        "distinct words": distinct,
        "share of distinct words": distinct / count,
        "letters a word": sum(map(len, words)) / count,
        "long words": sum(len(word) >= _LONG for word in words),
    }


def _sentences(text: str, words: float) -> dict[str, float]:
    sentences = [one for one in _SENTENCE.split(text.strip()) if one] or [""]
    last = sentences[-1].lower()
    names = _NAME.findall(text)
    return {
        "characters": len(text),
        "not ASCII": 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore")),
        "sentences": len(sentences),
        "words a sentence": words / len(sentences),
        "longest sentence": max(map(len, sentences)),
        "last sentence": len(sentences[-1]),
        "names": len(set(names)),
        "mentions of names": len(names),
        **{name: float(any(one in last for one in asked)) for name, asked in _ASKED.items()},
    }


def _numbers(text: str) -> dict[str, float]:
    # a number of more digits is no quantity, and of hundreds of them it would be infinite
    found = _NUMBER.findall(text)
    values = [float(digits) for one in found if len(digits := one.replace(",", "")) <= 20]
    sizes = [math.log1p(value) for value in values]
    return {
        "numbers": len(values),
        "distinct numbers": len(set(values)),
        "size of the largest number": max(sizes, default=0.0),
        "mean size of the numbers": sum(sizes) / max(1, len(sizes)),
        "decimals": sum(value != int(value) for value in values),
        "small numbers": sum(value < _SMALL for value in values),
        "large numbers": sum(value >= _LARGE for value in values),
        "digits": sum(map(len, found)),
    }


def surface(text: str) -> dict[str, float]:
    """The features of a text by name, each compressed as log(1 + x), so that a long text is not all there is to see."""
    lower = text.lower()
    found = _words(lower)
    found |= _sentences(text, found["words"])
    found |= _numbers(text)
    found |= {name: len(pattern.findall(lower)) for name, pattern in _PATTERNS.items()}
    found |= {name: sum(map(text.count, signs)) for name, signs in _SIGNS.items()}
    return {name: math.log1p(value) for name, value in found.items()}


NAMES: Final = tuple(surface(""))
"""The features' names, in order."""
