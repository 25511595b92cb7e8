"""The short form of a signature: ``"question, passages: list[str] -> answer: str"``."""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import typing
from collections.abc import Callable
from types import UnionType
from typing import Any, Final, Literal, cast

from kaizen.core.errors import DefinitionError
from kaizen.programs.declare import Declared, History
from kaizen.programs.declare import input as input_field
from kaizen.programs.declare import output as output_field

_TYPES: Final[dict[str, Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
    "set": set,
    "tuple": tuple,
    "None": None,
    "Any": Any,
    "Literal": Literal,
    "Optional": typing.Optional,
    "Union": typing.Union,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "Decimal": decimal.Decimal,
    "History": History,
}


def shorthand(short: str, where: str) -> tuple[dict[str, Any], dict[str, Declared]]:
    """Annotations and declared fields, inputs first.

    Types are read, never evaluated: builtins, typing's ``Literal, Optional, Union, Any`` and dates.

    Raises:
        DefinitionError: with all mistakes.
    """
    mistakes: list[str] = []
    left, arrow, right = short.partition("->")
    if not arrow:
        raise DefinitionError(where, [f"{short!r} has no '->': write \"question -> answer: str\""])
    annotations: dict[str, Any] = {}
    declared: dict[str, Declared] = {}
    for side, declare in ((left, input_field), (right, output_field)):
        _read_side(side, declare, annotations, declared, mistakes)
    if mistakes:
        raise DefinitionError(where, mistakes)
    return annotations, declared


def short_name(short: str) -> str:
    """A class name made from the fields: ``question -> answer`` is ``QuestionToAnswer``."""
    left, _, right = short.partition("->")
    return "To".join("".join(name.title().replace("_", "") for name in _names(side)) for side in (left, right))


def _names(side: str) -> list[str]:
    return [item.partition(":")[0].strip() for item in _split(side)]


def _split(side: str) -> list[str]:
    """The fields of one side; commas inside brackets and quotes belong to a type."""
    items, depth, quote, start = list[str](), 0, "", 0
    for index, char in enumerate(side):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[(":
            depth += 1
        elif char in "])":
            depth -= 1
        elif char == "," and depth == 0:
            items.append(side[start:index])
            start = index + 1
    return [item for item in (*items, side[start:]) if item.strip()]


def _read_side(
    side: str,
    declare: Callable[[], Any],
    annotations: dict[str, Any],
    declared: dict[str, Declared],
    mistakes: list[str],
) -> None:
    for item in _split(side):
        name, colon, written = (part.strip() for part in item.partition(":"))
        if not name.isidentifier():
            mistakes.append(f"{name!r} is no name for a field")
        elif name in annotations:
            mistakes.append(f"field '{name}' stands twice")
        else:
            try:
                annotations[name] = _type(ast.parse(written, mode="eval").body) if colon else str
            except (SyntaxError, TypeError, ValueError) as error:
                mistakes.append(f"field '{name}' has a type that can't be read: {written!r} ({error})")
            declared[name] = declare()


def _type(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Name(id=name):
            raise ValueError(f"'{name}' is not among {', '.join(_TYPES)}; write a class for other types")
        case ast.Constant(value=None):
            return None
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            return Literal[_literals(inner)]
        case ast.Subscript(value=outer, slice=ast.Tuple(elts=items)):
            return _type(outer)[tuple(_type(item) for item in items)]
        case ast.Subscript(value=outer, slice=item):
            return _type(outer)[_type(item)]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return cast("UnionType", _type(left) | _type(right))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not a type")


def _literals(node: ast.expr) -> tuple[Any, ...]:
    items = node.elts if isinstance(node, ast.Tuple) else [node]
    values = tuple(ast.literal_eval(item) for item in items)
    if any(not isinstance(value, str | int | bool | enum.Enum) for value in values):
        raise ValueError("a Literal holds text, whole numbers and booleans")
    return values
