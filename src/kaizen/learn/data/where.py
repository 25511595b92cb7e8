"""Conditions as people write them: ``score >= 0.8 and input.lang = 'en'``. A grammar of its own; nothing is executed.

    condition  = all { "or" all }
    all        = each { "and" each }
    each       = "not" each | "(" condition ")" | comparison
    comparison = name ( "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "contains" ) value
               | name [ "not" ] "in" "(" value { "," value } ")"
               | name "is" [ "not" ] "null"
               | name
    name       = word { "." word }
    value      = number | 'text' | "text" | true | false | null

A name alone is a condition that holds where it is neither null nor false, 0 or empty. What is compared with null, or
with a value of another kind, does not hold, but for ``!=`` and ``not in``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from kaizen.core.errors import ConfigError

Values: TypeAlias = Mapping[str, Any]
Test: TypeAlias = Callable[[Values], bool]

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.]))
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<word>[^\W\d]\w*(?:\.\w[\w-]*)*)
      | (?P<sign><=|>=|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_SIGNS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None}
_DEEPEST: Final = 50


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class Where:
    """A condition on named values.

    Args:
        text: as written.

    Raises:
        ConfigError: it can't be read; says where.

    Attributes:
        names: the names it asks for.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self._tokens = _read(text)
        self._at = self._depth = 0
        self._test = self._any()
        if self._at < len(self._tokens):
            raise self._wrong("'and' or 'or'")

    def __call__(self, values: Values) -> bool:
        """Whether it holds; a name that is not there is null. ``input.text`` is ``text`` in the mapping ``input``."""
        return self._test(values)

    # -- reading ----------------------------------------------------------------------------------

    def _any(self) -> Test:
        tests = [self._all()]
        while self._takes("or"):
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else lambda values: any(test(values) for test in tests)

    def _all(self) -> Test:
        tests = [self._each()]
        while self._takes("and"):
            tests.append(self._each())
        return tests[0] if len(tests) == 1 else lambda values: all(test(values) for test in tests)

    def _each(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ConfigError(f"--where: nested deeper than {_DEEPEST}")
        try:
            if self._takes("not"):
                inner = self._each()
                return lambda values: not inner(values)
            if self._takes("("):
                inner = self._any()
                self._needs(")")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Test:
        name = self._name()
        for sign, compare in _SIGNS.items():
            if self._takes(sign):
                return _ordered(name, compare, self._value())
        for sign in ("=", "=="):
            if self._takes(sign):
                wanted = self._value()
                return lambda values: _equal(_found(values, name), wanted)
        if self._takes("!="):
            wanted = self._value()
            return lambda values: not _equal(_found(values, name), wanted)
        if self._takes("contains"):
            part = self._value()
            return lambda values: _contains(_found(values, name), part)
        if self._takes("is"):
            negated = self._takes("not")
            self._needs("null")
            return lambda values: (_found(values, name) is None) is not negated
        negated = self._takes("not")
        if negated or self._peek("in"):
            self._needs("in")
            known = self._list()
            return lambda values: any(_equal(_found(values, name), one) for one in known) is not negated
        return lambda values: bool(_found(values, name))

    def _name(self) -> str:
        token = self._next()
        if token is None or token.kind != "word" or token.text in _WORDS:
            raise self._wrong("a name", back=token is not None)
        self.names.add(token.text)
        return token.text

    def _value(self) -> Any:
        token = self._next()
        match token:
            case _Token("number", text, _):
                return float(text)
            case _Token("text", text, _):
                return re.sub(r"\\(.)", r"\1", text[1:-1])
            case _Token("word", text, _) if text in _WORDS:
                return _WORDS[text]
            case _:
                raise self._wrong("a number, a quoted text, true, false or null", back=token is not None)

    def _list(self) -> list[Any]:
        self._needs("(")
        known = [self._value()]
        while self._takes(","):
            known.append(self._value())
        self._needs(")")
        return known

    def _peek(self, text: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at].text == text

    def _takes(self, text: str) -> bool:
        found = self._peek(text)
        self._at += found
        return found

    def _needs(self, text: str) -> None:
        if not self._takes(text):
            raise self._wrong(repr(text))

    def _next(self) -> _Token | None:
        if self._at >= len(self._tokens):
            return None
        self._at += 1
        return self._tokens[self._at - 1]

    def _wrong(self, wanted: str, *, back: bool = False) -> ConfigError:
        at = self._at - back
        found = "the end" if at >= len(self._tokens) else f"{self._tokens[at].text!r} at {self._tokens[at].at + 1}"
        return ConfigError(f"--where {self.text!r}: {wanted} should stand where {found} is")


def _read(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise ConfigError(f"--where {text!r}: {text[place]!r} at {place + 1} is not understood")
        tokens.append(_Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)))
        at = found.end()
    if not tokens:
        raise ConfigError("--where is empty")
    return tokens


# -- comparing ------------------------------------------------------------------------------------


def _found(values: Values, name: str) -> Any:
    if name in values:
        return values[name]
    at: Any = values
    for part in name.split("."):
        if not isinstance(at, Mapping):
            return None
        at = cast("Values", at).get(part)
    return at


def _ordered(name: str, compare: Callable[[Any, Any], bool], wanted: Any) -> Test:
    def test(values: Values) -> bool:
        got = _found(values, name)
        if isinstance(got, str) and isinstance(wanted, str):
            return compare(got, wanted)
        if isinstance(got, int | float) and isinstance(wanted, int | float):
            return compare(got, wanted)
        return False

    return test


def _equal(got: Any, wanted: Any) -> bool:
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    return bool(got == wanted)


def _contains(got: Any, part: Any) -> bool:
    if isinstance(got, str):
        return isinstance(part, str) and part.casefold() in got.casefold()
    return isinstance(got, list) and any(_equal(one, part) for one in cast("list[Any]", got))
