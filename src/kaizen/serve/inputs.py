"""Input values from text: flags of the command line and cells of a CSV file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kaizen.core.errors import ConfigError, InvalidInput
from kaizen.core.spec import Spec
from kaizen.learn.data.text import FieldReader, kinds
from kaizen.serve.arguments import nearest


class TextReader(FieldReader):
    """Reads the inputs of one contract from text; see ``FieldReader``."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec.input_schema)
        self.spec = spec


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
        held = kinds(schema, spec.input_schema.get("$defs", {})) - {"null"}
        shown = "JSON" if "any" in held else "|".join(sorted(held)).replace("string", "text").upper()
        note = field.description if field.required else f"{field.description} (optional)".strip()
        lines.append(f"  --{name.replace('_', '-')} {shown}  {note}".rstrip())
    return "\n".join([f"inputs of {spec.name}:", *lines, ""])
