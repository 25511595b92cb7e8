"""Typed outputs of an answer that is still being written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import is_typeddict

from kaizen.core.params import OutputMode
from kaizen.core.spec import Field, Spec
from kaizen.programs.declare import bare_type
from kaizen.programs.prompt.parse import DECODER, tags, untagged

_OBJECT: Final = re.compile(r'\{\s*(?:["}]|$)')


def partial_outputs(spec: Spec, text: str, mode: OutputMode) -> dict[str, Any]:
    """Outputs as far as they are written; fields not begun are absent.

    A finished field is typed and checked. The field being written grows: text by characters, a list by
    items, a nested object by fields; a number or a choice appears once it is whole. Values of fields that
    break their contract are left out here; the whole answer's check speaks about them.
    """
    raw, open_field = _raw_tags(spec, text) if mode == "text" else _raw_json(spec, text)
    values: dict[str, Any] = {}
    for name, field in spec.written.items():
        if name not in raw:
            continue
        if name == open_field:
            found, value = _growing(field.annotation, raw[name])
        else:
            found, value = _whole(spec.adapters[name], raw[name])
        if found:
            values[name] = value
    return values


def _raw_json(spec: Spec, text: str) -> tuple[Mapping[str, Any], str | None]:
    begun = _OBJECT.search(text)
    if begun is None:
        return {}, None
    try:
        return DECODER.raw_decode(text, begun.start())[0], None  # whole, whatever stands after it
    except (ValueError, RecursionError):
        pass
    body = text[begun.start() :]
    try:
        raw = cast("dict[str, Any]", from_json(body, allow_partial="trailing-strings"))
    except ValueError:
        return {}, None  # broken: the whole answer's check says why
    last = next(reversed(raw), None)
    if last in spec.written and _is_whole(spec.written[last], raw[last], body):
        return raw, None
    return raw, last


def _is_whole(field: Field, value: Any, body: str) -> bool:
    """Whether the last value that has begun can't go on; texts, lists and objects are shown before that anyway."""
    match value:
        case bool() | None:
            return True
        case int() | float():
            return body[-1] not in "0123456789.eE+-"
        case str() if bare_type(field.annotation) is not str:
            return field.name in from_json(body, allow_partial=True)  # which leaves out a text not closed
        case _:
            return False


def _raw_tags(spec: Spec, text: str) -> tuple[Mapping[str, Any], str | None]:
    raw: dict[str, Any] = {}
    for name, contents, closed in tags(spec, text):
        if name in raw:
            continue
        if closed:
            raw[name] = untagged(spec, name, contents)
        elif bare_type(spec.written[name].annotation) is str:
            raw[name] = _before_closing(contents, f"</{name}>")
            return raw, name
        else:
            try:
                raw[name] = from_json(contents, allow_partial="trailing-strings")
            except ValueError:
                return raw, None
            return raw, name
    return raw, None


def _before_closing(contents: str, closing: str) -> str:
    """The contents without what may be the beginning of the closing tag."""
    longest = min(len(contents), len(closing) - 1)
    held = next((size for size in range(longest, 0, -1) if contents.endswith(closing[:size])), 0)
    return contents[: len(contents) - held].strip("\n")


def _whole(adapter: TypeAdapter[Any], raw: Any) -> tuple[bool, Any]:
    """Whether a finished value fits, and the value, typed."""
    try:
        return True, adapter.validate_python(raw)
    except ValidationError:
        return False, None


def _part(annotation: Any, raw: Any, *, growing: bool) -> tuple[bool, Any]:
    return _growing(annotation, raw) if growing else _whole(_adapter(annotation), raw)


def _growing(annotation: Any, raw: Any) -> tuple[bool, Any]:
    """Whether there is something to show of a value still being written, and what.

    A number, a choice, true and null are not shown before they are whole: 1 can become 12.
    """
    annotation = bare_type(annotation)
    origin = get_origin(annotation) or annotation
    if isinstance(raw, str):
        return (True, raw) if origin is str else (False, None)
    if isinstance(raw, list) and origin is list:
        return True, _growing_list(annotation, cast("list[Any]", raw))
    if isinstance(raw, dict):
        parts = cast("dict[str, Any]", raw)
        if origin is dict:
            args = get_args(annotation)
            return True, _parts(parts, lambda _: args[1] if args else Any)
        if is_typeddict(origin):
            return True, _parts(parts, get_type_hints(origin).get)
        if isinstance(origin, type) and issubclass(origin, BaseModel):
            return True, _growing_model(origin, parts)
        if isinstance(origin, type) and dataclasses.is_dataclass(origin):
            return True, _growing_dataclass(origin, parts)
    return False, None


def _growing_list(annotation: Any, raw: list[Any]) -> list[Any]:
    args = get_args(annotation)
    item = args[0] if args else Any
    typed = [_part(item, value, growing=index == len(raw) - 1) for index, value in enumerate(raw)]
    return [value for found, value in typed if found]


def _parts(raw: dict[str, Any], type_of: Callable[[str], Any]) -> dict[str, Any]:
    """The values begun, typed, by key; keys without a type are left out."""
    last = next(reversed(raw), None)
    typed = {
        key: _part(annotation, value, growing=key == last)
        for key, value in raw.items()
        if (annotation := type_of(key)) is not None
    }
    return {key: value for key, (found, value) in typed.items() if found}


def _growing_model(model: type[BaseModel], raw: dict[str, Any]) -> BaseModel:
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    begun = _parts(raw, lambda key: model.model_fields[names[key]].annotation if key in names else None)
    # None, so that reading a field not begun gives that instead of an error
    values = dict.fromkeys(model.model_fields) | {names[key]: value for key, value in begun.items()}
    return model.model_construct(**values)


def _growing_dataclass(cls: type[Any], raw: dict[str, Any]) -> Any:
    """An instance made without its ``__init__``, which would ask for the fields not begun."""
    instance: Any = object.__new__(cls)
    begun = _parts(raw, get_type_hints(cls, include_extras=True).get)
    for field in dataclasses.fields(cls):
        object.__setattr__(instance, field.name, begun.get(field.name))
    return instance


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _ADAPTERS[annotation]
    except KeyError:
        adapter = _ADAPTERS[annotation] = TypeAdapter(annotation)
        return adapter
    except TypeError:  # an annotation that can't be hashed
        return TypeAdapter(annotation)
