"""Numbers, however they are written: 1,000 and 1k and a thousand are one number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

_NUMBER: Final = re.compile(r"(\d+(?:[.,:]\d+)*)([a-z%]*)$")
_GROUPED: Final = re.compile(r"\d{1,3}(,\d{2,3})+(\.\d+)?$")
_ORDINAL_ENDS: Final = frozenset(("st", "nd", "rd", "th"))
# What may be written to a number without a space and means the same with one.
_UNITS: Final = frozenset(
    re.findall(
        r"\S+",
        "km m cm mm mi ft kg g mg lb lbs oz l ml gb mb kb tb am pm h hr hrs min mins sec secs ms yr yrs w kw kwh v"
        " mah hz khz mhz ghz rs inr usd eur gbp % cc bhp mp mbps gbps fps kmph mph kcal cal px pt c f",
    )
)
_ROMAN: Final[Mapping[str, str]] = dict(
    zip(
        ["ii", "iii", "iv", "vi", "vii", "viii", "ix", "xi", "xii"],
        ["2", "3", "4", "6", "7", "8", "9", "11", "12"],
        strict=True,
    )
)
_ONES: Final[Mapping[str, int]] = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
} | {
    word: 10 * number
    for number, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
_SCALES: Final[Mapping[str, int]] = {
    "hundred": 100,
    "thousand": 1000,
    "k": 1000,
    "lakh": 100_000,
    "million": 10**6,
    "mn": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
_COUNTS: Final[Mapping[str, str]] = {
    word: str(number)
    for number, word in enumerate(
        [
            "first",
            "second",
            "third",
            "fourth",
            "fifth",
            "sixth",
            "seventh",
            "eighth",
            "ninth",
            "tenth",
            "eleventh",
            "twelfth",
        ],
        1,
    )
} | {"once": "1", "twice": "2", "double": "2", "triple": "3", "half": "1/2", "quarter": "1/4"}


def numbers(words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The numbers among lower-case words, each written in one way, and the other words (units among them)."""
    found: list[str] = []
    left: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word in _ROMAN or word in _COUNTS:
            found.append(_ROMAN.get(word) or _COUNTS[word])
            at += 1
        elif word[0].isdigit() and (match := _NUMBER.match(word)):
            at += _digits(match, words[at + 1 : at + 2], found, left)
        elif (used := _spelled(words, at, found)) > 0:
            at += used
        else:
            left.append(word)
            at += 1
    return tuple(sorted(found)), left


def _digits(match: re.Match[str], following: Sequence[str], found: list[str], left: list[str]) -> int:
    """Take a number written in digits, and a scale after it; how many words that were."""
    digits, unit = match.groups()
    if not (_GROUPED.match(digits) or ("," not in digits and ":" not in digits and digits.count(".") < 2)):
        found.append(digits + unit)  # a version, a time of day, a ratio
        return 1
    value, used = float(digits.replace(",", "")), 1
    if unit and unit not in _SCALES and unit not in _ORDINAL_ENDS and unit not in _UNITS:
        found.append(digits + unit)  # a model: 7s, 4k, 3d
        return 1
    if unit in _SCALES:
        value, unit = value * _SCALES[unit], ""
    elif following and following[0] in _SCALES and following[0] != "k":
        value, used = value * _SCALES[following[0]], 2
    found.append(f"{value:.12g}")
    if unit and unit not in _ORDINAL_ENDS:
        left.append(unit)
    return used


def _spelled(words: Sequence[str], at: int, found: list[str]) -> int:
    """Take a number written in words, such as "two hundred and five"; how many words that were.

    A lone "one" is a pronoun more often than a number.
    """
    scaled = at + 1 < len(words) and words[at + 1] in _SCALES and words[at + 1] != "k"
    if not (words[at] in _ONES and words[at] != "one") and not (words[at] in ("one", "a") and scaled):
        return 0
    total, current, used = 0, 0, 0
    while at + used < len(words):
        word = words[at + used]
        if word in _ONES:
            current += _ONES[word]
        elif word == "a" and not used:
            current = 1
        elif word == "hundred" and current:
            current *= 100
        elif word in _SCALES and word != "k" and current:
            total, current = total + current * _SCALES[word], 0
        elif not (word == "and" and current >= 100 and at + used + 1 < len(words) and words[at + used + 1] in _ONES):
            break
        used += 1
    found.append(str(total + current))
    return used
