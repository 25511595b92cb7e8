"""From a reply's text to typed outputs. Tolerant of fences and prose around the answer; never inventive."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import from_json

from kaizen.core.params import OutputMode
from kaizen.core.request import Reply
from kaizen.core.spec import Spec, shorten

_DECODER: Final = json.JSONDecoder()
_SHOWN_PROBLEMS: Final = 8


class Misfit(Exception):
    """A reply that does not fit the contract: ``problem`` says why, in words the model can act on."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


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
    return _parse_tags(spec, text) if mode == "text" else _parse_json(spec, text)


def _parse_json(spec: Spec, text: str) -> dict[str, Any]:
    try:
        whole = from_json(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict):
        return _validated(spec, cast("dict[str, Any]", whole))
    fitting: list[dict[str, Any]] = []
    misfit = Misfit("the answer holds no JSON object")
    for candidate in _objects(text):
        try:
            fitting.append(_validated(spec, candidate))
        except Misfit as problem:
            misfit = problem
    if not fitting:
        raise misfit
    if any(other != fitting[0] for other in fitting[1:]):
        raise Misfit(f"the answer holds {len(fitting)} different JSON objects that fit; write exactly one")
    return fitting[0]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in a text, in order."""
    start = text.find("{")
    while start >= 0:
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield value
        start = text.find("{", end)


def _parse_tags(spec: Spec, text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in spec.written:
        found = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        if len(set(found)) > 1:
            raise Misfit(f"<{name}> stands {len(found)} times with different contents; write it once")
        if found:
            values[name] = _untagged(spec, name, found[0].strip("\n"))
    return _validated(spec, values)


def _untagged(spec: Spec, name: str, raw: str) -> Any:
    """A tag's contents: text stays text; anything else is read as JSON where it is JSON."""
    schema = cast("Mapping[str, Any]", spec.output_schema["properties"][name])
    if schema.get("type") == "string" or ("$ref" not in schema and "enum" in schema):
        return raw if schema.get("type") == "string" and "enum" not in schema else raw.strip()
    try:
        return from_json(raw)
    except ValueError:
        return raw.strip()


def _validated(spec: Spec, values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return spec.validate_outputs(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        lines = [_line(item) for item in found[:_SHOWN_PROBLEMS]]
        raise Misfit("; ".join(lines)) from None


def _line(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"'{where}' is missing"
    if item["type"] == "extra_forbidden":
        return f"'{where}' was not asked for"
    return f"'{where}' = {shorten(item['input'])}: {item['msg']}"
