"""From a reply's text to typed outputs. Tolerant of fences and prose around the answer; never inventive."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from math import isfinite
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from kaizen.core.params import OutputMode
from kaizen.core.request import Reply
from kaizen.core.spec import Spec, shorten
from kaizen.programs.declare import bare_type

DECODER: Final = json.JSONDecoder()
_OBJECT: Final = re.compile(r'\{\s*["}]')
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MOST_OBJECTS: Final = 256
_SHOWN_PROBLEMS: Final = 8


class Misfit(Exception):
    """A reply that does not fit the contract: ``problem`` says why, in words the model can act on."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys all differ; of two values neither is known to be the one that is meant."""
    values = dict(pairs)
    for key, value in pairs if len(values) < len(pairs) else ():
        if values[key] != value:
            raise Misfit(f"'{key}' stands more than once with different values; write it once")
    return values


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_once)


def parse_reply(spec: Spec, reply: Reply, mode: OutputMode) -> dict[str, Any]:
    """``parse`` of a whole reply; one that was cut off is a misfit even where its beginning would fit.

    Raises:
        Misfit: if it does not fit the contract.
    """
    if reply.finish == "length":
        raise Misfit("the answer was cut off at the token limit before it was complete; answer more briefly")
    return parse(spec, reply.text, mode)


def parse(spec: Spec, text: str, mode: OutputMode) -> dict[str, Any]:
    """Typed outputs by name, intermediates first.

    Raises:
        Misfit: if the text does not hold exactly one answer that fits the contract.
    """
    if not text.isascii() and _SURROGATE.search(text):
        raise Misfit("the answer holds half a character (a surrogate without its pair)")
    return _parse_tags(spec, text) if mode == "text" else _parse_json(spec, text)


def _parse_json(spec: Spec, text: str) -> dict[str, Any]:
    try:
        whole = from_json(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict):
        if any(text.count(f'"{name}"') > 1 for name in spec.written):
            _STRICT.decode(text)  # slower, and rarely needed: finds a key written twice
        return validated(spec, cast("dict[str, Any]", whole))
    fitting: list[dict[str, Any]] = []
    misfit = Misfit("the answer holds no JSON object")
    for number, candidate in enumerate(_objects(text), 1):
        if number > _MOST_OBJECTS:
            raise Misfit(f"the answer holds more than {_MOST_OBJECTS} JSON objects; write exactly one")
        try:
            fitting.append(validated(spec, candidate))
        except Misfit as problem:
            misfit = problem
    if not fitting:
        raise misfit
    if any(other != fitting[0] for other in fitting[1:]):
        raise Misfit(f"the answer holds {len(fitting)} different JSON objects that fit; write exactly one")
    return fitting[0]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in a text, in order.

    Braces of prose are passed over. What begins as an object and breaks ends the search: an object that
    stands inside it is part of another answer, not the answer.
    """
    end = 0
    # not every brace is tried: a decoder's error counts the lines before it, which is quadratic in a text of braces
    while (begun := _OBJECT.search(text, end)) is not None:
        try:
            value, end = _STRICT.raw_decode(text, begun.start())
        except (ValueError, RecursionError):
            return
        yield value


def _parse_tags(spec: Spec, text: str) -> dict[str, Any]:
    found: dict[str, str] = {}
    for name, raw, closed in tags(spec, text):
        if closed and found.setdefault(name, raw) != raw:
            raise Misfit(f"<{name}> stands there more than once with different contents; write it once")
    return validated(spec, {name: untagged(spec, name, raw) for name, raw in found.items()})


def tags(spec: Spec, text: str) -> Iterator[tuple[str, str, bool]]:
    """Name, contents and whether it is closed of each outermost tag, in order.

    A tag inside another's contents is part of them: an answer the model only thinks about is no answer.
    """
    opening = re.compile("|".join(f"<({name})>" for name in spec.written))
    at = 0
    while (begun := opening.search(text, at)) is not None:
        name = str(begun[begun.lastindex or 0])
        end = text.find(f"</{name}>", begun.end())
        yield name, text[begun.end() : end if end >= 0 else None].strip("\n"), end >= 0
        if end < 0:
            return
        at = end + len(name) + 3


def untagged(spec: Spec, name: str, raw: str) -> Any:
    """A tag's contents: text stays text; anything else is read as JSON where it is JSON."""
    if bare_type(spec.written[name].annotation) is str:
        return raw
    try:
        return from_json(raw)
    except ValueError:
        return raw.strip()


def value_at(text: str, mode: OutputMode, name: str, values: Sequence[Any]) -> tuple[tuple[str, ...], int]:
    """How values of a field are written in a reply, and where in its text the field's value begins.

    Raises:
        Misfit: if the field stands nowhere, or not just once.
    """
    if mode == "text":
        shown = (value if isinstance(value, str) else _json(value) for value in values)
        mark, texts = rf"<{name}>\n*", tuple(f"{one}</{name}>" for one in shown)
    else:
        mark, texts = rf'"{name}"\s*:\s*', tuple(_json(value) for value in values)
    found = list(re.finditer(mark, text))
    if len(found) != 1:
        raise Misfit(f"'{name}' has to stand there once")
    return texts, found[0].end()


def _json(value: Any) -> str:
    return to_json(value).decode()


def validated(spec: Spec, values: Mapping[str, Any]) -> dict[str, Any]:
    """Typed outputs by name, intermediates first.

    Raises:
        Misfit: if the values don't fit the contract.
    """
    try:
        typed = spec.validate_outputs(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        lines = [_line(item) for item in found[:_SHOWN_PROBLEMS]]
        raise Misfit("; ".join(lines)) from None
    for name, value in values.items():
        if (problem := _reinterpreted(value, typed[name])) is not None:
            raise Misfit(f"'{name}' = {shorten(value)}: {problem}")
    return typed


def validated_value(spec: Spec, name: str, value: Any) -> Any:
    """One field's typed value.

    Raises:
        Misfit: if it does not fit the field.
    """
    try:
        typed = spec.adapters[name].validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]["msg"]
        raise Misfit(f"'{name}' = {shorten(value)}: {problem}") from None
    if (problem := _reinterpreted(value, typed)) is not None:
        raise Misfit(f"'{name}' = {shorten(value)}: {problem}")
    return typed


def _reinterpreted(raw: Any, typed: Any) -> str | None:
    """What pydantic let pass by taking one kind of value for another: true for 1, or a number for a point in time."""
    match raw:
        case _ if isinstance(typed, float) and not isfinite(typed):
            return "a finite number is wanted"
        case bool() if not isinstance(typed, bool) and isinstance(typed, int | float):
            return "a number is wanted, not true or false"
        case int() | float() if isinstance(typed, date | time | timedelta):
            return "a date or time is wanted, as text"
        case list() if isinstance(typed, list | tuple):
            pairs = zip(cast("list[Any]", raw), cast("list[Any]", typed), strict=False)
            return next((problem for pair in pairs if (problem := _reinterpreted(*pair)) is not None), None)
        case dict():
            known = cast("dict[str, Any]", typed if isinstance(typed, dict) else getattr(typed, "__dict__", {}))
            items = cast("dict[str, Any]", raw).items()
            pairs = ((value, known[name]) for name, value in items if name in known)
            return next((problem for pair in pairs if (problem := _reinterpreted(*pair)) is not None), None)
        case _:
            return None


def _line(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"'{where}' is missing"
    if item["type"] == "extra_forbidden":
        return f"'{where}' was not asked for"
    return f"'{where}' = {shorten(item['input'])}: {item['msg']}"
