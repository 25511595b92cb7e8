"""The content gate: what two texts must agree in before it is asked how near they lie.

No similarity shows that "turn on dark mode" and "turn off dark mode" are opposites: embeddings put words near that
stand in the same places. So what turns a question into another one is compared as such: numbers, negations, opposites,
members of one class (Monday, Tuesday), names, code, quotations, what is asked (who, when, why), direction. Where
nothing of that differs, the texts are described by a few numbers that tell how alike they are; what such numbers mean
is learned (``kaizen.inference.semantic.evidence``).

The rules are of English. Texts of another language have to consist of the same words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from kaizen.inference.semantic.reading import Reading
from kaizen.inference.semantic.stems import stem
from kaizen.inference.semantic.words import ANTONYMS, CLASSES, LIGHT, RELATIONS

_LIGHT: Final = frozenset(map(stem, LIGHT))
_RELATIONS: Final = frozenset(map(stem, RELATIONS))
_LIGHT_WEIGHT: Final = 0.3
_PREFIXES: Final = ("un", "in", "im", "dis", "non", "ir", "il", "de", "anti", "mis")
# After a verb; elsewhere "in" and "on" are opposites of nothing.
_OPPOSITE_PARTICLE: Final = {"in": "out", "out": "in", "on": "off", "off": "on", "up": "down", "down": "up"}
# Kinds of questions that are never another way of asking something else.
_STRICT: Final = frozenset(("who", "when", "where", "why", "amount"))
_ROLES: Final = frozenset(("from", "to", "into", "than", "by", "over", "under", "against"))


def _opposites() -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for one, other in ANTONYMS:
        # "better" and "good" have one stem; opposites are compared as written, too
        for a, b in ((one, other), (stem(one), stem(other))):
            found.setdefault(a, set()).add(b)
            found.setdefault(b, set()).add(a)
    return {word: frozenset(others) for word, others in found.items()}


def _memberships() -> Mapping[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number, members in enumerate(CLASSES):
        for word in members:
            found.setdefault(stem(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}


_OPPOSITES: Final = _opposites()
_MEMBERSHIPS: Final = _memberships()


def difference(one: Reading, other: Reading, *, asked: bool = True) -> str:
    """The first thing in which two texts ask (or, not ``asked``, say) something different; "" where none was found."""
    if one.script != other.script or one.english != other.english:
        return "language"
    if not one.english and sorted(one.words) != sorted(other.words):
        return "language"
    if one.marks != other.marks:
        return "code"
    if one.numbers != other.numbers:
        return "number"
    if any(quote not in b.plain for a, b in ((one, other), (other, one)) for quote in a.quotes):
        return "quotation"
    # of answers, "no, it is not" says what "it is not" says
    if one.negations != other.negations and (asked or not (one.negations and other.negations)):
        return "negation"
    ours, theirs = set(_surplus(one, other)), set(_surplus(other, one))
    if _opposed(one, other, ours, theirs):
        return "opposite"
    if _same_class(ours, theirs):
        return "class"
    if any(_unnamed(a, b) for a, b in ((one, other), (other, one))):
        return "name"
    return _asked(one, other) or _turned(one, other, ours, theirs) if asked else ""


def leftover(one: Reading, other: Reading) -> tuple[list[str], list[str]]:
    """The content that each has and the other has not, in order."""
    return (
        [word for word in _surplus(one, other) if word in one.content],
        [word for word in _surplus(other, one) if word in other.content],
    )


def _surplus(one: Reading, other: Reading) -> Collection[str]:
    """The words that one has more of than the other, in order.

    They are counted: "men like men" has more men than "women like men", "two nights at night" more nights than "two
    nights".
    """
    if not one.repeats:
        return [word for word in one.words if word not in other.vocabulary]
    return Counter(one.words) - Counter(other.words)


def weight(words: Collection[str]) -> float:
    """How much content words carry together."""
    return sum(_LIGHT_WEIGHT if word in _LIGHT else 1.0 for word in words)


def _opposed(one: Reading, other: Reading, ours: set[str], theirs: set[str]) -> bool:
    if any(not _OPPOSITES[word].isdisjoint(theirs) for word in ours if word in _OPPOSITES):
        return True
    particles = _particles(other)
    if any(particles.get(verb) == _OPPOSITE_PARTICLE[particle] for verb, particle in _particles(one).items()):
        return True
    # as written: "better" against "worse" where both also say "good" and "bad"
    written = {one.surface[word] for word in ours}, {other.surface[word] for word in theirs}
    if any(not _OPPOSITES[word].isdisjoint(written[1]) for word in written[0] if word in _OPPOSITES):
        return True
    return _negated(ours, theirs) or _negated(theirs, ours)


def _negated(words: set[str], others: set[str]) -> bool:
    """Whether one of the words is another with a "not" before it, as in "unsafe"."""
    for word in words:
        if word.startswith(_PREFIXES):
            for prefix in _PREFIXES:
                if word.startswith(prefix) and word[len(prefix) :] in others:
                    return True
    return False


def _same_class(ours: set[str], theirs: set[str]) -> bool:
    here = set[int]().union(*(_MEMBERSHIPS[word] for word in ours if word in _MEMBERSHIPS))
    return bool(here) and any(not here.isdisjoint(_MEMBERSHIPS[word]) for word in theirs if word in _MEMBERSHIPS)


def _particles(text: Reading) -> dict[str, str]:
    """The particle that follows a verb, as in "sign in"."""
    following = zip(text.words, text.words[1:], strict=False)
    return {word: particle for word, particle in following if word in text.content and particle in _OPPOSITE_PARTICLE}


def _unnamed(one: Reading, other: Reading) -> bool:
    """Whether one names something that the other does not mention."""
    if not one.names:
        return False
    words = set(other.words)
    squeezed = other.plain.replace("-", "").replace(".", "")
    return any(
        stem(name) not in words and name not in words and name.replace("-", "").replace(".", "") not in squeezed
        for name in one.names
    )


def _asked(one: Reading, other: Reading) -> str:
    """Whether different things are asked of the same matter."""
    a, b = one.kind, other.kind
    strict = a in _STRICT or b in _STRICT or a.startswith("how ") or b.startswith("how ") or {a, b} == {"yes", "how"}
    if a != b and strict:
        return "question"
    if a == b == "what" and {_owner(one), _owner(other)} == {"mine", "yours"}:
        return "person"
    if ("why" in one.words) != ("why" in other.words):
        return "question"
    if one.advises != other.advises and ("yes" in (a, b) or "why" in (a, b)):
        return "question"
    if {one.tense, other.tense} == {"future", "past"}:
        return "tense"
    return "degree" if one.superlatives != other.superlatives else ""


def _owner(text: Reading) -> str:
    """Whose thing is asked about. "What is your plan" asks the one who answers, unlike "how do you pay your rent"."""
    if "your" in text.vocabulary:
        return "yours"
    return "mine" if {"my", "our"} & text.vocabulary else ""


def _turned(one: Reading, other: Reading, ours: set[str], theirs: set[str]) -> str:
    """Whether the same words stand in other places, or one adds a case or a thing."""
    if _RELATIONS.intersection(ours) != _RELATIONS.intersection(theirs):
        return "relation"
    left, right = leftover(one, other)
    if (left and not right and _joined(one, left)) or (right and not left and _joined(other, right)):
        return "addition"
    if not left and not right:
        mine, yours = set(_roles(one)), set(_roles(other))
        moved = {role for _, role in mine - yours} & {role for _, role in yours - mine}
        turned = dict(mine - yours).keys() & dict(yours - mine).keys()
        if moved or turned or _swapped(one, other):
            return "direction"
    return ""


def _joined(text: Reading, words: Collection[str]) -> bool:
    """Whether one of the words is joined to another by "and" or "or"."""
    return any(
        word in words and {"and", "or"}.intersection(text.words[max(0, at - 1) : at + 2])
        for at, word in enumerate(text.words)
    )


def _roles(text: Reading) -> Iterator[tuple[str, str]]:
    """What each content word is to the others, where a preposition says so: from where, to where, than what."""
    role = ""
    for word in text.words:
        if word in _ROLES:
            role = word
        elif word in text.content:
            if role:
                yield word, role
            role = ""


def _swapped(one: Reading, other: Reading) -> bool:
    """Whether what stands before and after some word has changed places, as in "does A cause B" and "does B cause A".

    Things joined by "and" or "or", compared or divided may change places, and a passive changes them.
    """
    if {"and", "or", "between", "by", "both"}.intersection(one.words + other.words):
        return False
    a = [word for word in one.words if word in one.content]
    b = [word for word in other.words if word in other.content]
    if len(a) != len(b) or a == b or len(a) < 3:
        return False
    for at in range(1, len(a) - 1):
        if a[at] in b:
            there = b.index(a[at])
            if set(a[:at]) == set(b[there + 1 :]) and set(a[at + 1 :]) == set(b[:there]):
                return True
    return False
