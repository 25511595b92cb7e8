"""JSON schemas as the providers' constrained decoding takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json

_FORMATS: Final = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_KEPT: Final = frozenset({"type", "enum", "const", "title", "description"})
# Words about a schema, not rules: dropped without a trace.
_WORDS: Final = frozenset({"default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator", "$schema"})


class _Open(Exception):
    """The schema lets through what a closed one can't: free keys, or any value at all."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a provider's constrained decoding enforces.

    Args:
        rules: the keywords it takes beside type, enum, const, $ref, anyOf, properties and items.
        all_required: whether every property has to be required.
    """

    rules: frozenset[str]
    all_required: bool


OPENAI: Final = Dialect(
    frozenset(
        {
            "exclusiveMaximum",
            "exclusiveMinimum",
            "maxItems",
            "maximum",
            "minItems",
            "minimum",
            "multipleOf",
            "pattern",
        }
    ),
    all_required=True,
)
ANTHROPIC: Final = Dialect(frozenset(), all_required=False)


def closed(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any] | None:
    """The schema as strict decoding takes it, or None where it can't be said so.

    Objects get ``additionalProperties: false`` and, if the dialect asks for it, all their properties
    required. ``oneOf`` becomes ``anyOf``, an ``allOf`` of one becomes that one, a ``$ref`` with a description
    an ``anyOf`` of it. Rules the dialect does not enforce move into the description, where the model can read
    them (what it writes is validated against the whole contract anyway). Defaults and examples are dropped:
    the model writes every field.

    None is for schemas with free keys (``dict[str, int]``), tuples and untyped values.
    """
    try:
        return _closed(schema, dialect)
    except _Open:
        return None


def _closed(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    out: dict[str, Any] = {key: value for key, value in schema.items() if key in _KEPT}
    rest = {key: value for key, value in schema.items() if key not in _KEPT and key not in _WORDS}
    if definitions := rest.pop("$defs", None):
        out["$defs"] = {name: _closed(sub, dialect) for name, sub in definitions.items()}
    if ref := rest.pop("$ref", None):
        if "description" not in out:
            return {"$ref": ref, **({"$defs": out["$defs"]} if definitions else {})}
        out["anyOf"] = [{"$ref": ref}]
    elif variants := rest.pop("anyOf", None) or rest.pop("oneOf", None):
        out["anyOf"] = [_closed(variant, dialect) for variant in variants]
    elif (parts := rest.pop("allOf", None)) and len(parts) == 1:
        out = {**_closed(parts[0], dialect), **out}
    elif parts or not out.keys() & {"type", "enum", "const"}:
        raise _Open
    match out.get("type"):
        case "object":
            _close_object(out, rest, dialect)
        case "array":
            if "prefixItems" in rest or not rest.get("items"):
                raise _Open
            out["items"] = _closed(rest.pop("items"), dialect)
        case "string" if rest.get("format") in _FORMATS:
            out["format"] = rest.pop("format")
        case _:
            pass
    return _with_rules(out, rest, dialect)


def _close_object(out: dict[str, Any], rest: dict[str, Any], dialect: Dialect) -> None:
    if rest.pop("additionalProperties", False) or "properties" not in rest or "patternProperties" in rest:
        raise _Open
    properties: dict[str, Any] = rest.pop("properties")
    required: list[str] = rest.pop("required", [])
    out["properties"] = {name: _closed(sub, dialect) for name, sub in properties.items()}
    out["required"] = list(properties) if dialect.all_required else required
    out["additionalProperties"] = False


def _with_rules(out: dict[str, Any], rest: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    out |= {key: value for key, value in rest.items() if key in dialect.rules}
    unsaid = ", ".join(f"{key}: {to_json(value).decode()}" for key, value in rest.items() if key not in dialect.rules)
    if unsaid:
        said = out.get("description")
        out["description"] = f"{said} ({unsaid})" if said else unsaid
    return out
