"""A text as the gate reads it: what it names, counts, negates, quotes and asks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kaizen.inference.semantic.numerals import numbers
from kaizen.inference.semantic.phrases import CONTRACTIONS, QUESTION, REPHRASED, YES_NO
from kaizen.inference.semantic.stems import stem
from kaizen.inference.semantic.words import FOREIGN, FUNCTION, NEGATIONS, NO_SUPERLATIVE, PAST

_CODE: Final = re.compile(
    r"```.*?```|`[^`]+`|https?://\S+|www\.\S+|\b[\w.+-]+@[\w-]+\.[\w.]+\b"  # code, addresses
    r"|(?<![\w<])(?:~?/|\./|[A-Za-z]:\\)[\w./\\-]*\w|(?<!\w)--?[a-z][\w-]+\b"  # paths, switches
    r"|\b[A-Za-z]\w*(?:_\w+)+\b|\b[A-Za-z_][\w.]*\(\)|\$[A-Za-z_]\w*\b|\b[a-z]{2,}[A-Z]\w+\b|\b\w+(?:::|->)\w+\b"
    r"|\b[a-z]{2,}\w*(?:\.[a-z]{2,}\w*)+\b"
    r"|\b\w+\.(?:py|js|ts|java|cpp|c|h|cs|go|rs|rb|php|sh|sql|html|css|json|xml|yaml|yml|toml|csv|txt|md|pdf|exe|dll)\b",
    re.DOTALL,
)
_MAY_BE_CODE: Final = re.compile(r"[`/\\@_$:(]|\w\.\w|-[a-z]|[a-z]{2}[A-Z]")
_FORMULA: Final = re.compile(
    r"[\w.)]+\s*[*^=<>≤≥≠±×÷∫∑√]+\s*[\w.(]*|\d\w*\s*\+\s*\d\w*|\d\w*\s+[-/]\s+\d\w*|\b\w \+ \w\b"
)
_MAY_BE_FORMULA: Final = re.compile(r"[*^=<>≤≥≠±×÷∫∑√+]|\d\s[-/]\s")
_QUOTED: Final = re.compile(r"\"([^\"]{1,200})\"|(?<!\w)'([^']{2,200})'(?!\w)")
# The name of a field before its value, as programs show their inputs; every request of the space has it.
_LABEL: Final = re.compile(r"^(?:[a-z]\w*: (?=\S)|</?[a-z]\w*>$)", re.MULTILINE)
# A hyphen joins letters alone: "19-year-old" has a number in it, "2016-17" two.
_WORD: Final = re.compile(
    r"\d+(?:[.,:]\d+)*(?:[^\W\d_]+\d*)*|[^\W\d_][^\W_]*(?:(?:[.':&+]|-(?=[^\W\d_]))[^\W_]+)*(?:\+\+|#)?|%"
)
_QUOTES: Final = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": " ", "…": " "})
_SENTENCE_ENDS: Final = ".?!:;\n"
_STATES: Final = re.compile(r"\b[Uu]nited [Ss]tates(?: of America)?\b")
_KINGDOM: Final = re.compile(r"\b[Uu]nited [Kk]ingdom\b")
_AMERICA: Final = frozenset(("US", "U.S", "USA", "U.S.A"))


@dataclass(frozen=True, slots=True)
class Reading:
    """A text taken apart.

    Args:
        plain: the whole text in lower case with single spaces.
        words: in order, without inflection; the way of asking is reduced to a common one.
        surface: by its stem, a word as it was first written, in lower case.
        vocabulary: the same as a set.
        repeats: whether a word stands there twice.
        content: those of ``words`` that are no function words.
        numbers: every number, sorted, however it was written.
        names: words with a capital inside a sentence, or with letters and digits, in lower case.
        marks: code, addresses, paths, formulas, verbatim.
        quotes: quoted spans in lower case.
        negations: how many.
        superlatives: whether it asks for the most of something, "best" apart.
        kind: what is asked: "who", "when", "amount", "yes" and so on, or "" for no question.
        advises: whether it asks what should be.
        tense: "future", "past" or "".
        script: the writing system of most of its letters.
        english: whether it looks like English, of which alone the rest is true.
    """

    plain: str
    words: tuple[str, ...]
    surface: Mapping[str, str]
    vocabulary: frozenset[str]
    repeats: bool
    content: frozenset[str]
    numbers: tuple[str, ...]
    names: frozenset[str]
    marks: frozenset[str]
    quotes: frozenset[str]
    negations: int
    superlatives: bool
    kind: str
    advises: bool
    tense: str
    script: str
    english: bool

    @property
    def gist(self) -> str:
        """Its content alone, as text to embed."""
        return " ".join(self.surface[word] for word in self.words if word in self.content) or self.plain


def read(text: str) -> Reading:
    """Take a text apart."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = _LABEL.sub("", text)
    if "nited" in text:
        text = _KINGDOM.sub("UK", _STATES.sub("USA", text))
    marks: set[str] = set()
    rest = text
    if _MAY_BE_CODE.search(text):
        marks.update(" ".join(found.split()) for found in _CODE.findall(text))
        rest = _CODE.sub(" ", text) if marks else text
    if _MAY_BE_FORMULA.search(rest):
        marks.update("".join(found.split()) for found in _FORMULA.findall(rest))
    quotes = (
        frozenset((a or b).lower().strip(" .,?!") for a, b in _QUOTED.findall(rest))
        if '"' in rest or "'" in rest
        else frozenset[str]()
    )
    tokens = [(found.group(), found.start()) for found in _WORD.finditer(rest)]
    asked = _rephrased(" ".join(map(_expanded, (token for token, _ in tokens))))
    split = asked.split()
    found, left = numbers(split)
    words = tuple(map(stem, left))
    surface: dict[str, str] = {}
    for word, written in zip(words, left, strict=True):
        surface.setdefault(word, written)
    function = sum(word in FUNCTION for word in left)
    script = _script(text)
    return Reading(
        plain=" ".join(text.lower().split()),
        words=words,
        surface=surface,
        vocabulary=(vocabulary := frozenset(words)),
        repeats=len(vocabulary) < len(words),
        content=frozenset(word for word, written in zip(words, left, strict=True) if written not in FUNCTION),
        numbers=found,
        names=frozenset(_names(rest, tokens)),
        marks=frozenset(marks),
        quotes=quotes,
        negations=sum(word in NEGATIONS for word in left),
        superlatives=any(word.endswith("est") and len(word) > 4 and word not in NO_SUPERLATIVE for word in left),
        kind=_kind(asked),
        advises="should" in split or "ought" in split,
        tense=_tense(split),
        script=script,
        english=_is_english(script, left, function),
    )


def _expanded(token: str) -> str:
    if token in _AMERICA:
        return "usa"
    word = token.lower()
    if word in CONTRACTIONS:
        return CONTRACTIONS[word]
    if "'" in word:
        if word.endswith("n't"):
            return f"{word[:-3]} not"
        for ending, into in _ENDINGS:
            if word.endswith(ending):
                body = word[: -len(ending)]
                return f"{body} is" if ending == "'s" and body in _IS else body + into
    return word


# "What's" is "what is"; after other words an 's is an owner's.
_IS: Final = frozenset(("what", "who", "where", "when", "why", "how", "that", "there", "here", "it", "he", "she"))
_ENDINGS: Final = (("'s", ""), ("'re", " are"), ("'ll", " will"), ("'ve", " have"), ("'d", " would"), ("'m", " am"))


def _rephrased(text: str) -> str:
    for word, pattern, into in REPHRASED:
        if word in text:
            changed = pattern.sub(into, text)
            if changed is not text:
                text = " ".join(changed.split())
    return text


def _names(text: str, tokens: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Words that are names by the look of them. Where most words have a capital (a title), capitals say nothing."""
    weighty = [token for token, _ in tokens if token[0].isalpha() and token.lower() not in FUNCTION]
    title = len(weighty) > 2 and sum(token[0].isupper() for token in weighty) > 0.7 * len(weighty)
    for token, at in tokens:
        low = token.lower().partition("'")[0]
        if token in _AMERICA:
            yield "usa"
        elif not low or low in FUNCTION:
            continue
        elif not low.isalpha() and any(map(str.isdigit, low)):
            if not low[0].isdigit() and any(map(str.isalpha, low)):
                yield low
        elif token[0].isupper() and not title:
            before = text[:at].rstrip(" \"'(")
            if (len(token) > 1 and token.isupper()) or (before and before[-1] not in _SENTENCE_ENDS):
                yield low


def _kind(asked: str) -> str:
    found = QUESTION.search(asked)
    first = asked.partition(" ")[0]
    if first in YES_NO and (found is None or found.start() > 0):
        return "yes"
    if found is None:
        return ""
    kind = found.lastgroup or ""
    return found.group() if kind == "degree" else kind


def _tense(words: Sequence[str]) -> str:
    if "will" in words:
        return "future"
    return "past" if any(word in PAST for word in words) else ""


def _script(text: str) -> str:
    if text.isascii():
        return "LATIN"
    counts: dict[str, int] = {}
    for char in text[:500]:
        if char.isalpha():
            name = "LATIN" if char.isascii() else unicodedata.name(char, "?").partition(" ")[0]
            counts[name] = counts.get(name, 0) + 1
    return max(counts, key=counts.__getitem__) if counts else "LATIN"


def _is_english(script: str, words: Sequence[str], function: int) -> bool:
    if script != "LATIN":
        return False
    foreign = sum(word in FOREIGN for word in words)
    return foreign < max(2, function) and (function > 0 or len(words) < 4)
