"""Words without their inflection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

_UNITS: Final[Mapping[str, str]] = {
    "kilometre": "km", "kilometer": "km", "kilometres": "km", "kilometers": "km", "kms": "km", "metre": "m",
    "meter": "m", "metres": "m", "meters": "m", "centimetre": "cm", "centimeter": "cm", "centimetres": "cm",
    "centimeters": "cm", "millimetre": "mm", "millimeter": "mm", "millimetres": "mm", "millimeters": "mm",
    "mile": "mi", "miles": "mi", "feet": "ft", "foot": "ft", "kilogram": "kg", "kilograms": "kg", "kilo": "kg",
    "kilos": "kg", "kgs": "kg", "gram": "g", "grams": "g", "pound": "lb", "pounds": "lb", "lbs": "lb", "ounce": "oz",
    "ounces": "oz", "litre": "l", "liter": "l", "litres": "l", "liters": "l", "millilitre": "ml", "milliliter": "ml",
    "millilitres": "ml", "milliliters": "ml", "gallon": "gal", "gallons": "gal", "hr": "hour", "hrs": "hour",
    "mins": "minut", "min": "minut", "secs": "sec", "seconds": "sec", "yr": "year", "yrs": "year", "percent": "%",
    "percentage": "%", "rs": "rupee", "inr": "rupee", "rupees": "rupee", "usd": "dollar", "bucks": "dollar",
    "eur": "euro", "gbp": "sterling", "kilobyte": "kb", "megabyte": "mb", "gigabyte": "gb", "terabyte": "tb",
    "centigrade": "celsius", "maths": "math", "mathematics": "math",
}  # fmt: skip

_FORMS: Final[Mapping[str, str]] = {
    "buy": "bought", "sell": "sold", "win": "won winning", "lose": "lost losing", "make": "made", "go": "went gone",
    "get": "got gotten", "give": "gave given", "take": "took taken", "come": "came", "see": "saw seen", "say": "said",
    "know": "knew known", "think": "thought", "find": "found", "tell": "told", "keep": "kept", "feel": "felt",
    "meet": "met", "pay": "paid", "send": "sent", "build": "built", "spend": "spent", "begin": "began begun",
    "break": "broke broken", "choose": "chose chosen", "drive": "drove driven", "eat": "ate eaten",
    "fall": "fell fallen", "forget": "forgot forgotten", "grow": "grew grown", "hear": "heard", "hide": "hid hidden",
    "hold": "held", "lead": "led", "lend": "lent", "mean": "meant", "ride": "rode ridden", "rise": "rose risen",
    "run": "ran running", "sleep": "slept", "speak": "spoke spoken", "stand": "stood", "steal": "stole stolen",
    "swim": "swam swum", "teach": "taught", "throw": "threw thrown", "understand": "understood", "wake": "woke woken",
    "wear": "wore worn", "write": "wrote written", "die": "died dies dying", "lie": "lying", "tie": "tying",
    "child": "children", "man": "men", "woman": "women", "tooth": "teeth", "mouse": "mice", "person": "people persons",
    "life": "lives", "wife": "wives", "knife": "knives", "leaf": "leaves", "wolf": "wolves", "good": "better best",
    "bad": "worse worst", "become": "became", "bring": "brought", "catch": "caught", "fight": "fought",
    "draw": "drew drawn", "fly": "flew flown", "freeze": "froze frozen", "shoot": "shot", "show": "shown",
    "sing": "sang sung", "sink": "sank sunk", "sit": "sat", "strike": "struck", "news": "news", "business": "business",
}  # fmt: skip
_KNOWN: Final = {form: word for word, forms in _FORMS.items() for form in forms.split()} | _UNITS
_PLURALS: Final = (
    ("sses", "ss"),
    ("ies", "y"),
    ("xes", "x"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("zes", "ze"),
)
_VOWEL: Final = re.compile("[aeiouy]")


@lru_cache(maxsize=16_384)
def stem(word: str) -> str:
    """A word without plural, -ed, -ing and -ly, a unit by its sign.

    Derivation (-ment, -tion) stays: it may change the sense.
    """
    if word in _KNOWN:
        return _KNOWN[word]
    if len(word) <= 3 or not word.isalpha():
        return word
    for ending, into in _PLURALS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return _short(word[: -len(ending)] + into)
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        body = word[: -len(ending)]
        if word.endswith(ending) and len(body) >= 3 and _VOWEL.search(body) and not body.endswith(("e", "th")):
            if body[-1] == body[-2] and body[-1] not in "lsz":
                body = body[:-1]
            return _short(body)
    return _short(word)


def _short(word: str) -> str:
    # hope and hoping, easy and easily meet without their last letter
    if word.endswith("ly") and len(word) > 5:
        word = word[:-2]
    if word.endswith("y") and len(word) > 3:
        word = word[:-1] + "i"
    return word[:-1] if word.endswith("e") and len(word) > 3 else word
