"""From contract, params and inputs to a request's messages. Pure; the stable part is made once and comes first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Final, cast

from pydantic_core import to_json

from kaizen.core.message import Media, Message, Part, Text
from kaizen.core.params import OutputMode, Params
from kaizen.core.request import Decoding, Options, OutputSchema
from kaizen.core.spec import Field, Spec
from kaizen.programs.declare import History, bare_type

_CONSTRAINTS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matching {}",
    "format": "as {}",
}
_TYPES: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "object",
}

_PLANS_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """The stable part of a program's prompts under one set of params, and the advice that follows the inputs.

    Inputs are named apart: conversations, whose turns are messages, and those shown in the last message.
    """

    mode: OutputMode
    turns: tuple[str, ...]
    shown: tuple[str, ...]
    prefix: tuple[Message, ...]
    output: OutputSchema | None
    advice: str | None
    decoding: Decoding
    options: Options | None


class Plans:
    """The plans of one program, made once for each set of params.

    Args:
        spec: the program's contract.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        # by identity of the params, which the runner resolves once; holding them keeps the ids unique
        self._made: dict[int, tuple[Params, Plan]] = {}

    def __call__(self, params: Params) -> Plan:
        """The plan under these params."""
        known = self._made.get(id(params))
        if known is None:
            if len(self._made) >= _PLANS_KEPT:
                self._made.clear()
            known = self._made[id(params)] = (params, plan(self._spec, params))
        return known[1]


def plan(spec: Spec, params: Params) -> Plan:
    """Render what does not depend on the inputs: instructions, fields, the form of the answer, demos."""
    mode = params.output_mode or "json"
    fields = spec.inputs | spec.fed
    turns = tuple(name for name, field in fields.items() if bare_type(field.annotation) == History)
    shown = tuple(name for name in fields if name not in turns)
    prefix = [Message.of("system", _system(spec, params, mode))]
    for demo in params.pool:
        given = [name for name in shown if name in demo.inputs]
        prefix += _user(given, demo.inputs), Message.of("assistant", written(spec, demo.outputs, mode))
    schema = OutputSchema(identifier(spec), spec.output_schema) if mode == "schema" else None
    return Plan(mode, turns, shown, tuple(prefix), schema, params.advice, params.decoding, params.options)


def showing(stable: Plan, places: Sequence[int]) -> Plan:
    """The same plan with only the demos at these places, in their order: nothing is rendered anew."""
    system, *turns = stable.prefix
    return replace(stable, prefix=(system, *(turn for at in places for turn in turns[2 * at : 2 * at + 2])))


def render(stable: Plan, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages of one call: the stable prefix, a history field's turns, then the inputs."""
    last = _user(stable.shown, inputs, stable.advice)
    if not stable.turns:
        return (*stable.prefix, last)
    turns = [turn for name in stable.turns for turn in inputs.get(name) or ()]
    return (*stable.prefix, *(Message.of(turn["role"], turn["content"]) for turn in turns), last)


def written(spec: Spec, values: Mapping[str, Any], mode: OutputMode) -> str:
    """Outputs in the form the model is to write them, for demos."""
    if mode == "text":
        return "\n".join(f"<{name}>{_plain(values.get(name))}</{name}>" for name in spec.written)
    return to_json({name: values[name] for name in spec.written if name in values}).decode()


def identifier(spec: Spec) -> str:
    """A program's name on the wire: vendors allow letters, digits, dashes and underscores, 64 at most."""
    name = spec.name.rsplit(".", 1)[-1]
    return "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "_" for char in name)[:64]


def _system(spec: Spec, params: Params, mode: OutputMode) -> str:
    instructions = params.instructions or spec.doc or _default_instructions(spec)
    lines = [instructions, ""]
    described = [f for f in (spec.inputs | spec.fed).values() if f.description]
    if described:
        lines += ["You are given:", *(f"- {f.name}: {f.description}" for f in described), ""]
    properties = spec.output_schema.get("properties", {})
    definitions = spec.output_schema.get("$defs", {})
    lines.append("Answer with:")
    lines += [f"- {_described(f, properties.get(f.name, {}), definitions)}" for f in spec.written.values()]
    lines.append("")
    match mode:
        case "schema":
            lines.append("Answer as one JSON object with these keys, in this order.")
        case "json":
            shown = to_json(spec.output_schema).decode()
            lines.append("Answer with one JSON object and nothing else. It has to fit this JSON schema:")
            lines.append(shown)
        case "text":
            lines.append("Answer in exactly this form, one tag a field:")
            lines += [f"<{name}>...</{name}>" for name in spec.written]
    return "\n".join(lines)


def _default_instructions(spec: Spec) -> str:
    given = ", ".join(spec.inputs | spec.fed)
    return f"From {given}, work out {', '.join(spec.outputs)}." if given else f"Write {', '.join(spec.outputs)}."


def _described(field: Field, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    kind = _kind(schema, definitions)
    return f"{field.name} ({kind}): {field.description}" if field.description else f"{field.name} ({kind})"


def _kind(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A type in words a small model understands; the schema itself is enforced or shown elsewhere."""
    if ref := schema.get("$ref"):
        return _kind(definitions.get(str(ref).rsplit("/", 1)[-1], {}), definitions)
    if options := schema.get("anyOf"):
        return " or ".join(_kind(option, definitions) for option in options)
    if (values := schema.get("enum")) is not None:
        return "one of " + ", ".join(str(value) for value in values)
    if "const" in schema:
        return str(schema["const"])
    rules = [text.format(schema[key]) for key, text in _CONSTRAINTS.items() if key in schema]
    kind = str(schema.get("type", "any value"))
    if kind == "array":
        name = f"list of {_kind(schema.get('items', {}), definitions)}"
    elif kind == "object" and "properties" in schema:
        name = "object with " + ", ".join(schema["properties"])
    else:
        name = _TYPES.get(kind, kind)
    return ", ".join([name, *rules])


def _user(names: Iterable[str], inputs: Mapping[str, Any], advice: str | None = None) -> Message:
    parts: list[Part] = []
    lines: list[str] = []
    for name in names:
        value = inputs.get(name)
        media = _media(value)
        if media:
            lines.append(f"{name}: ({len(media)} attached)")
            parts += media
        else:
            lines.append(_shown(name, _plain(value)))
    if advice:
        lines += ["", advice]
    return Message("user", (Text("\n".join(lines)), *parts))


def _media(value: object) -> list[Media]:
    """The media of a field that holds some, alone or in a list."""
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    media = [item for item in items if isinstance(item, Media)]
    return media if len(media) == len(items) else []


def _shown(name: str, text: str) -> str:
    """A field as the model sees it.

    A value of several lines stands between tags it can't close itself, so that no input can pass itself off
    as another field.
    """
    if len(text.splitlines()) <= 1:
        return f"{name}: {text}"
    # a model takes `</ Name >` for the end as well
    closed = re.sub(rf"<(?=\s*/\s*{name}\s*>)", r"<\\", text, flags=re.IGNORECASE)
    return f"<{name}>\n{closed}\n</{name}>"


def _plain(value: Any) -> str:
    match value:
        case str():
            return value
        case Enum():
            return _plain(value.value)
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return to_json(value).decode()
