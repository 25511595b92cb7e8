"""Input values from text: flags of the command line and cells of a CSV file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from pydantic_core import from_json

from kaizen.core.errors import ConfigError, InvalidInput
from kaizen.core.spec import Spec, shorten
from kaizen.serve.arguments import nearest

_ALTERNATIVES: Final = ("anyOf", "oneOf", "allOf")


class TextReader:
    """Reads the inputs of one contract from text.

    Text for an input that holds strings (dates and enums of strings too) is taken as it is; for any other it is
    JSON. Where an input takes strings and other things, text that is no JSON is a string.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        schema = spec.input_schema
        self._kinds = {name: _kinds(one, schema.get("$defs", {})) for name, one in schema["properties"].items()}

    def value(self, name: str, text: str) -> Any:
        """The value of one input.

        Raises:
            InvalidInput: if it should be JSON and is not.
        """
        kinds = self._kinds.get(name, frozenset({"string"}))
        if kinds <= {"string", "null"}:
            return text
        try:
            return from_json(text, allow_inf_nan=False)
        except (ValueError, TypeError):  # the latter for bytes of the command line that are no UTF-8
            if "string" in kinds:
                return text
        wanted = " or ".join(sorted(kinds))
        raise InvalidInput(f"input '{name}' should be JSON ({wanted}), not {shorten(text)}", detail={"input": name})

    def takes_text(self, name: str) -> bool:
        """Whether an input can be a string."""
        return "string" in self._kinds.get(name, frozenset({"string"}))


def _kinds(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> frozenset[str]:
    """The JSON types a schema admits."""
    if "$ref" in schema:
        return _kinds(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for word in _ALTERNATIVES:
        if word in schema:
            return frozenset[str]().union(*(_kinds(part, definitions) for part in schema[word]))
    values: list[object] = [schema["const"]] if "const" in schema else schema.get("enum", [])
    if values and "type" not in schema:
        return frozenset("string" if isinstance(value, str) else "other" for value in values)
    kind = schema.get("type", ["any", "string"])
    return frozenset(cast("list[str]", kind)) if isinstance(kind, list) else frozenset({str(kind)})


def given_inputs(
    reader: TextReader,
    flags: Iterable[tuple[str, str | None]],
    settings: Iterable[str],
    known_flags: Sequence[str],
) -> dict[str, Any]:
    """The inputs of a command line.

    Args:
        reader: reads their text.
        flags: ``--name`` and value; ``@file`` stands for the file's text, ``@-`` for standard input's,
            ``@@`` for an ``@`` itself.
        settings: ``name=value``, for inputs whose names are flags of ours; the value is taken likewise.
        known_flags: our flags, to name the nearest.

    Raises:
        ConfigError: a flag is neither ours nor an input, lacks its value or is given twice.
        InvalidInput: a value is no JSON where it should be.
    """
    fields = reader.spec.inputs
    values: dict[str, Any] = {}
    pairs = [(flag.removeprefix("--").replace("-", "_"), value, flag) for flag, value in flags]
    for setting in settings:
        name, equals, value = setting.partition("=")
        pairs.append((name, value if equals else None, f"--set {name}"))
    for name, value, shown in pairs:
        if name not in fields:
            flag = shown.removeprefix("--set ") if shown.startswith("--set ") else shown
            known = [*known_flags, *(f"--{field.replace('_', '-')}" for field in fields)]
            known += fields if flag is not shown else ()
            inputs = ", ".join(fields) or "none"
            advice = nearest(flag, known)
            raise ConfigError(f"{shown} is no input of {reader.spec.name} and no flag{advice or f'; inputs: {inputs}'}")
        if value is None:
            raise ConfigError(f"{shown} needs a value")
        if name in values:
            raise ConfigError(f"{shown} is given twice")
        values[name] = reader.value(name, _text(value))
    return values


def _text(value: str) -> str:
    if value.startswith("@@") or not value.startswith("@"):
        return value.removeprefix("@") if value.startswith("@@") else value
    if value == "@-":
        return sys.stdin.read()
    try:
        return Path(value[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise InvalidInput(f"can't read {value[1:]}: {why} (write @@ for a value that begins with @)") from None


def inputs_help(spec: Spec) -> str:
    """A line for each input of a contract, for a command's help."""
    lines: list[str] = []
    for name, field in spec.inputs.items():
        schema = spec.input_schema["properties"][name]
        kinds = _kinds(schema, spec.input_schema.get("$defs", {})) - {"null"}
        shown = "JSON" if "any" in kinds else "|".join(sorted(kinds)).replace("string", "text").upper()
        note = field.description if field.required else f"{field.description} (optional)".strip()
        lines.append(f"  --{name.replace('_', '-')} {shown}  {note}".rstrip())
    return "\n".join([f"inputs of {spec.name}:", *lines, ""])
