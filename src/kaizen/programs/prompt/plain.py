"""The plain layout: a text of fields and values that a model goes on with, for models too small for a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic_core import from_json

from kaizen.core.params import Demo, Params
from kaizen.core.spec import Spec
from kaizen.programs.declare import bare_type
from kaizen.programs.prompt.options import value_text
from kaizen.programs.prompt.parse import Misfit

END: Final = "\n\n"
"""What stands between two examples, and ends an answer of several lines."""


def opening(spec: Spec, params: Params) -> str:
    """What stands before the examples: the instructions."""
    said = params.instructions or spec.doc
    return f"{_lines(said)}{END}" if said else ""


def heading(params: Params, name: str) -> str:
    """What stands before a field's value."""
    return (params.headings or {}).get(name) or name.replace("_", " ")


def example(spec: Spec, params: Params, demo: Demo, names: Sequence[str]) -> str:
    """A demo with these of its outputs."""
    values = (f"{heading(params, name)}: {value_text(demo.outputs.get(name))}" for name in names)
    return "\n".join([*_given(spec, params, demo.inputs), *map(_lines, values)]) + END


def asked(spec: Spec, params: Params, inputs: Mapping[str, Any], name: str) -> str:
    """The inputs, and the heading of the field that the model is to go on with."""
    last = [params.advice] if params.advice else []
    return "\n".join([*_given(spec, params, inputs), *last, f"{heading(params, name)}:"])


def read(spec: Spec, params: Params, text: str, names: Sequence[str]) -> dict[str, Any]:
    """Values by field name, of what the model wrote after the heading of the first.

    Raises:
        Misfit: a heading is missing.
    """
    marks = {f"{heading(params, name)}:": name for name in names[1:]}
    parts: dict[str, list[str]] = {names[0]: []}
    at = names[0]
    for line in text.split(END)[0].split("\n"):
        found = next((mark for mark, name in marks.items() if name not in parts and line.startswith(mark)), None)
        if found is not None:
            at, line = marks[found], line[len(found) :]
            parts[at] = []
        parts[at].append(line.strip())
    if missing := [name for name in names if name not in parts]:
        raise Misfit(f"there is no line '{heading(params, missing[0])}:'")
    return {name: _value(spec, name, "\n".join(lines).strip()) for name, lines in parts.items()}


def _given(spec: Spec, params: Params, inputs: Mapping[str, Any]) -> Iterable[str]:
    names = (name for name in (*spec.inputs, *spec.fed) if name in inputs)
    return (_lines(f"{heading(params, name)}: {value_text(inputs[name])}") for name in names)


def _lines(text: str) -> str:
    """A text in which no line is empty: that would end the example it stands in."""
    return "\n".join(line for line in text.splitlines() if line.strip())


def _value(spec: Spec, name: str, text: str) -> Any:
    """What a field's text says: text stays text, but for none where the field may be null."""
    field = spec.written[name]
    nullable = _nullable(spec, name)
    if nullable and text.casefold() == value_text(None):
        return None
    if bare_type(field.annotation) is str:
        return text
    try:
        return from_json(text)
    except ValueError:
        return {"yes": True, "no": False}.get(text.casefold(), text)


def _nullable(spec: Spec, name: str) -> bool:
    schema = spec.output_schema["properties"].get(name, {})
    return any(one.get("type") == "null" for one in schema.get("anyOf", ()))
