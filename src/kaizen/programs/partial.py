"""Typed outputs of an answer that is still being written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from kaizen.core.params import OutputMode
from kaizen.core.spec import Spec


def partial_outputs(spec: Spec, text: str, mode: OutputMode) -> dict[str, Any]:
    """Outputs as far as they are written; fields not begun are absent.

    A finished field is typed and checked. The field being written grows: text by characters, a list by
    items, a nested object by fields; a number or a choice appears once it is whole. Values of fields that
    break their contract are left out here; the whole answer's check speaks about them.
    """
    raw, open_field = _raw_tags(spec, text) if mode == "text" else _raw_json(text)
    values: dict[str, Any] = {}
    for name, field in spec.written.items():
        if name in raw:
            found, value = _typed(field.annotation, raw[name], growing=name == open_field)
            if found:
                values[name] = value
    return values


def _raw_json(text: str) -> tuple[Mapping[str, Any], str | None]:
    start = text.find("{")
    if start < 0:
        return {}, None
    body = text[start:]
    try:
        value = from_json(body, allow_partial="trailing-strings")
    except ValueError:
        return {}, None  # prose or a fence after the object: the whole answer's check decides
    if not isinstance(value, dict) or not value:
        return {}, None
    raw = cast("dict[str, Any]", value)
    try:
        from_json(body)
    except ValueError:
        return raw, next(reversed(raw))
    return raw, None


def _raw_tags(spec: Spec, text: str) -> tuple[Mapping[str, Any], str | None]:
    raw: dict[str, Any] = {}
    for name in spec.written:
        begun = text.find(f"<{name}>")
        if begun < 0:
            continue
        body = text[begun + len(name) + 2 :]
        whole, closed, _ = body.partition(f"</{name}>")
        if not closed:
            # hold back what may be the beginning of the closing tag
            raw[name] = re.sub(r"<[^>]*$", "", whole).strip("\n")
            return raw, name
        raw[name] = whole.strip("\n")
    return raw, None


def _typed(annotation: Any, raw: Any, *, growing: bool) -> tuple[bool, Any]:
    """Whether there is a value to show, and the value."""
    if not growing:
        try:
            return True, _adapter(annotation).validate_python(raw)
        except ValidationError:
            return False, None
    annotation = _inner(annotation)
    if isinstance(raw, str):
        return (True, raw) if annotation is str else (False, None)
    if isinstance(raw, list):
        return True, _growing_list(annotation, cast("list[Any]", raw))
    if isinstance(raw, dict):
        return True, _growing_object(annotation, cast("dict[str, Any]", raw))
    return False, None  # a number, true or null may still go on: 1 can become 12


def _growing_list(annotation: Any, raw: list[Any]) -> list[Any]:
    args = get_args(annotation)
    item = args[0] if args else Any
    typed = [_typed(item, value, growing=index == len(raw) - 1) for index, value in enumerate(raw)]
    return [value for found, value in typed if found]


def _growing_object(annotation: Any, raw: dict[str, Any]) -> Any:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if not is_model:
        return raw
    model = cast("type[BaseModel]", annotation)
    last = next(reversed(raw), None)
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        values[name] = None  # so that reading a field not begun gives None instead of an error
        key = field.alias or name
        if key in raw:
            found, value = _typed(field.annotation, raw[key], growing=key == last)
            if found:
                values[name] = value
    return model.model_construct(**values)


def _inner(annotation: Any) -> Any:
    """The annotation without Annotated and Optional."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _inner(get_args(annotation)[0])
    if origin in (Union, UnionType):
        options = [option for option in get_args(annotation) if option is not NoneType]
        if len(options) == 1:
            return _inner(options[0])
    return Literal if origin is Literal else annotation


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _ADAPTERS[annotation]
    except KeyError:
        adapter = _ADAPTERS[annotation] = TypeAdapter(annotation)
        return adapter
    except TypeError:  # an annotation that can't be hashed
        return TypeAdapter(annotation)
