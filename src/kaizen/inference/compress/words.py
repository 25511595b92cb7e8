"""Sentences, and the words that tell one text from another. English, plain and fast; no list was fitted to any data."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final


def word_set(*lines: str) -> frozenset[str]:
    """The words of some lines."""
    return frozenset(word for line in lines for word in line.split())


WORD: Final = re.compile(r"[^\W_]+(?:[.'\u2019][^\W_]+)*")
_STOP: Final = word_set(
    "a an the of to in on at by for from with as is are was were be been being am do does did done has have had and or",
    "nor but if then than that this these those it its he she they them his her their him i you your we our us me my",
    "who whom whose which what when where why how many much there here not no so such into over under between about",
    "after before during also can could will would shall should may might must more most other some any each all both",
    "one s t",
)
_ENDINGS: Final = (
    *(("ies", "y"), ("sses", "ss"), ("ing", ""), ("edly", "")),
    *(("ed", ""), ("ly", ""), ("es", ""), ("s", "")),
)
# After these a full stop ends no sentence.
_ABBREVIATED: Final = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|No|Vol|Fig|approx|ca|Inc|Ltd|Co|Corp|Gen|Col|Capt|Lt|Sgt|Rev|"
    r"e\.g|i\.e|[A-Z]\.[A-Z]))\.$"
)
_LONGEST: Final = 8
_BOUNDARY: Final = re.compile(
    r"""[.!?\u2026]["'\u201d\u2019\u00bb)\]]*(?:\[\d{1,3}\])*\s+(?=["'\u201c\u2018\u00ab(\[]*[A-Z0-9\u00c0-\u00de])"""
    # the ideographic full stops, which nothing follows; the next item of a list
    r"""|[\u3002\uff01\uff1f]\s*|\n(?=\s{0,3}(?:[-*+\u2022]|\d{1,4}[.)]|\[\d{1,4}\])\s)"""
)
_BACKWARD: Final = word_set(
    "he she it they his her its their him them this that these those such both one another instead however therefore",
    "thus hence also then later there here afterwards meanwhile moreover furthermore additionally consequently",
)


def sentences(text: str) -> list[str]:
    """A text's sentences, each with the white space after it; joined they are the text."""
    found: list[str] = []
    begin = 0
    for match in _BOUNDARY.finditer(text):
        closed = not match.group()[1:2].isspace()  # by a quotation mark or a bracket
        if not closed and _ABBREVIATED.search(text, max(begin, match.start() - _LONGEST), match.start() + 1):
            continue
        found.append(text[begin : match.end()])
        begin = match.end()
    if begin < len(text):
        found.append(text[begin:])
    return found


def terms(text: str) -> list[str]:
    """The words that carry meaning, in lower case and without inflection, in order."""
    return [_stem(word) for word in WORD.findall(text.lower()) if word not in _STOP]


def looks_back(sentence: str) -> bool:
    """Whether a sentence leans on the one before it: "He was born there"."""
    first = WORD.search(sentence)
    return first is not None and first.group().lower() in _BACKWARD


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    """A word without its ending, roughly: what matters is that forms of one word meet, not that it is one."""
    if word.endswith(("'s", "\u2019s")):
        word = word[:-2]
    if len(word) > 3:
        for ending, instead in _ENDINGS:
            if not word.endswith(ending) or (ending == "s" and word.endswith("ss")):
                continue
            stem = word[: len(word) - len(ending)] + instead
            if len(stem) >= 3:
                word = stem
                break
    if len(word) > 3 and word[-1] == "e":
        word = word[:-1]
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou":
        word = word[:-1]
    return word
