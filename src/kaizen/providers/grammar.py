"""JSON schemas as grammars that llama.cpp enforces token by token, through llguidance.

Why not llama.cpp's own ``json_schema``: it lets the model put white space wherever JSON does, and a small
model does so, in half of all the tokens it writes. This grammar allows none.

llguidance takes almost all of JSON Schema (draft 2020-12). What it does not know is dropped here, or ignored
by it (``lenient``): ``uniqueItems``, ``contains``, ``not``, ``if``, ``propertyNames``, ``dependentRequired``, formats
other than those of dates, times, e-mail, host names, addresses, UUIDs and URIs, patterns with look-around, word
boundaries or back-references. A grammar it can't build at all (a schema that nothing fits) constrains nothing,
and it does not say so. The reply has to be validated against the whole contract afterwards in any case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from pydantic_core import to_json

from kaizen.core.request import JsonSchema, ToolSpec

_HEAD: Final = "%llguidance {}\nstart: %json "
_OPTIONS: Final = {"whitespace_flexible": False, "key_separator": ":", "item_separator": ",", "lenient": True}
# Words about a schema, not rules; left out to keep the grammar short. A property may have such a name.
_WORDS: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "discriminator", "$schema", "$id"}
)
_MAPS: Final = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_UNKNOWN_IN_PATTERN: Final = re.compile(r"(?<!\\)(?:\\\\)*(?:\\[bBZ1-9]|\(\?<?[=!])")


def schema_grammar(schema: JsonSchema) -> str:
    """The grammar of the JSON texts that fit a schema, without white space, properties in the schema's order."""
    return _HEAD + to_json({**_enforced(schema), "x-guidance": _OPTIONS}).decode()


def text_grammar(texts: Sequence[str]) -> str:
    """The grammar of one of several texts, as it stands."""
    return "%llguidance {}\nstart: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def tool_grammar(tools: Sequence[ToolSpec], *, required: bool, answer: JsonSchema | None) -> str:
    """The grammar of a choice: ``{"tool": name, "arguments": {...}}`` or ``{"answer": ...}``.

    Args:
        tools: what may be called.
        required: whether it must be.
        answer: the schema of an answer; None is any text.
    """
    choices: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for number, tool in enumerate(tools):
        arguments = _moved(_enforced({"type": "object", **tool.schema}), f"t{number}", definitions)
        choices.append(_object({"tool": {"const": tool.name}, "arguments": arguments}))
    if not required:
        wanted = {"type": "string"} if answer is None else _moved(_enforced(answer), "answer", definitions)
        choices.append(_object({"answer": wanted}))
    return _HEAD + to_json({"anyOf": choices, "$defs": definitions, "x-guidance": _OPTIONS}).decode()


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _enforced(schema: Any) -> Any:
    """A schema with only what llguidance enforces, its objects closed to properties that are not declared."""
    if not isinstance(schema, Mapping):
        return schema
    out: dict[str, Any] = {}
    for key, value in cast("Mapping[str, Any]", schema).items():
        if key in _WORDS or (key == "pattern" and _UNKNOWN_IN_PATTERN.search(value)):
            continue
        if key in _MAPS:
            out[key] = {name: _enforced(sub) for name, sub in value.items()}
        elif key in _LISTS:
            out[key] = [_enforced(sub) for sub in value]
        elif key in ("items", "additionalProperties"):
            out[key] = _enforced(value)
        else:
            out[key] = value
    # JSON Schema lets through what is not declared; a small model then goes on inventing keys until it is cut.
    if ("properties" in out or "patternProperties" in out) and "allOf" not in out:
        out.setdefault("additionalProperties", False)
    return out


def _moved(schema: Any, prefix: str, definitions: dict[str, Any]) -> Any:
    """A schema as part of another: its ``$defs`` go into ``definitions`` under a prefix, its refs follow them."""
    for name, sub in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = _renamed(sub, prefix)
    return _renamed(schema, prefix)


def _renamed(schema: Any, prefix: str) -> Any:
    if isinstance(schema, list):
        return [_renamed(item, prefix) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.replace("#/$defs/", f"#/$defs/{prefix}.")
        if key == "$ref" and isinstance(value, str)
        else _renamed(value, prefix)
        for key, value in cast("dict[str, Any]", schema).items()
    }
