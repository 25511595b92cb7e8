"""What differs between two versions: words of texts, items of lists, and everything else field by field."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final, Literal, TypeAlias, cast

from pydantic_core import to_json

Op: TypeAlias = Literal["=", "-", "+"]

# a word with the space before it: spaces of their own would stay between words that went, and chop the text up
_WORDS: Final = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")


@dataclass(frozen=True, slots=True)
class Words:
    """A text that changed: pieces that stayed, went and came, in order."""

    pieces: tuple[tuple[Op, str], ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list that changed.

    Args:
        removed, added: items that only one of both has; one that is there twice and then once was removed once.
        moved: whether those that both have stand in another order.
    """

    removed: tuple[Any, ...]
    added: tuple[Any, ...]
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Values:
    """Anything else that changed; None where it was not stated."""

    old: Any
    new: Any


Change: TypeAlias = Words | Items | Values


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Change]:
    """The fields in which two versions differ, as JSON-able values by name."""
    names = list(dict.fromkeys([*old, *new]))
    return {name: _change(old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _change(old: object, new: object) -> Change:
    if isinstance(old, str | None) and isinstance(new, str | None) and _is_prose(old, new):
        return Words(words(old or "", new or ""))
    if isinstance(old, list | None) and isinstance(new, list | None):
        return _items(cast("Sequence[Any]", old or ()), cast("Sequence[Any]", new or ()))
    return Values(old, new)


def _is_prose(*texts: str | None) -> bool:
    return any(text and any(letter.isspace() for letter in text) for text in texts)


def words(old: str, new: str) -> tuple[tuple[Op, str], ...]:
    """How one text becomes the other, word by word. The pieces that stayed and went are the old one, in order."""
    before, after = _WORDS.findall(old), _WORDS.findall(new)
    pieces: list[tuple[Op, str]] = []
    for what, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what == "equal":
            pieces.append(("=", "".join(before[a:b])))
            continue
        if a < b:
            pieces.append(("-", "".join(before[a:b])))
        if c < d:
            pieces.append(("+", "".join(after[c:d])))
    return tuple(pieces)


def _items(old: Sequence[Any], new: Sequence[Any]) -> Items:
    before, after = [to_json(item) for item in old], [to_json(item) for item in new]
    gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
    stayed_before, stayed_after = _without(before, gone), _without(after, come)
    return Items(
        tuple(item for item, key in zip(old, before, strict=True) if _take(gone, key)),
        tuple(item for item, key in zip(new, after, strict=True) if _take(come, key)),
        moved=stayed_before != stayed_after,
    )


def _without(keys: Sequence[bytes], some: Counter[bytes]) -> list[bytes]:
    left = some.copy()
    return [key for key in keys if not _take(left, key)]


def _take(counts: Counter[bytes], key: bytes) -> bool:
    if not counts[key]:
        return False
    counts[key] -= 1
    return True
