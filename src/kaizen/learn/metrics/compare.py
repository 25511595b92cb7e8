"""When two values are the same, and how far texts overlap: what the metrics are made of."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

_NEAR: Final = 1e-9
_WORD: Final = re.compile(r"\w+", re.UNICODE)
_ARTICLES: Final = frozenset({"a", "an", "the"})


def blank(value: Any) -> bool:
    """Whether a value says nothing: null, an empty text, list or object."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def tidy(text: str) -> str:
    """A text without what makes no difference: case, spaces, and how its characters are composed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def same(wanted: Any, got: Any) -> bool:
    """Whether two JSON values mean the same: texts but for case and spaces, numbers but for rounding, blanks alike."""
    if type(wanted) is str and type(got) is str:
        return wanted == got or tidy(wanted) == tidy(got)
    if blank(wanted) or blank(got):
        return blank(wanted) and blank(got)
    if isinstance(wanted, bool) or isinstance(got, bool):
        return wanted is got
    if isinstance(wanted, int | float) and isinstance(got, int | float):
        return wanted == got or math.isclose(wanted, got, rel_tol=_NEAR, abs_tol=_NEAR)
    if isinstance(wanted, Mapping) and isinstance(got, Mapping):
        mine, other = cast("Mapping[str, Any]", wanted), cast("Mapping[str, Any]", got)
        return all(same(mine.get(name), other.get(name)) for name in mine.keys() | other.keys())
    if isinstance(wanted, Sequence) and isinstance(got, Sequence) and not isinstance(wanted, str):
        if isinstance(got, str):
            return False
        mine, other = cast("Sequence[Any]", wanted), cast("Sequence[Any]", got)
        return len(mine) == len(other) and all(map(same, mine, other))
    return False


def words(text: str) -> list[str]:
    """The words of a text as question answering compares them: lower case, no punctuation, no articles.

    As SQuAD's (Rajpurkar et al., EMNLP 2016), for words of any script.
    """
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [word for word in found if word not in _ARTICLES] or found


def items(name: str, value: Any) -> list[Hashable]:
    """What a value says, each thing by itself: the entries of a list, the fields of an object; nothing for a blank."""
    if blank(value):
        return []
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return [item for key, one in fields.items() for item in items(f"{name}.{key}", one)]
    if isinstance(value, list):
        return [item for one in cast("list[Any]", value) for item in items(f"{name}[]", one)]
    if isinstance(value, str):
        return [(name, tidy(value))]
    if isinstance(value, bool):
        return [(name, value, "bool")]
    return [(name, round(value, 9) if isinstance(value, float) else value)]


def overlap(wanted: Iterable[Hashable], got: Iterable[Hashable]) -> tuple[int, int, int]:
    """How many things are in both, only in what was got, and only in what was wanted."""
    mine, other = Counter(wanted), Counter(got)
    both = (mine & other).total()
    return both, other.total() - both, mine.total() - both


def f1(both: int, extra: int, missed: int) -> float:
    """The harmonic mean of precision and recall; 1 where nothing was wanted and nothing got."""
    return 2 * both / (2 * both + extra + missed) if both or extra or missed else 1.0


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest sequence of words that is in both, gaps allowed."""
    if len(a) < len(b):
        a, b = b, a
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for place, other in enumerate(b, 1):
            kept = row[place]
            row[place] = before + 1 if word == other else max(kept, row[place - 1])
            before = kept
    return row[-1]
