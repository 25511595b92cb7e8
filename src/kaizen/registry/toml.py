"""Writing TOML (toml.io, version 1.0) that people read: the standard library reads it, and writes none."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_CONTROLS: Final = re.compile("[\x7f-\x9f]")
_WIDTH: Final = 100


class NotWritable(ValueError):
    """A value that TOML has no form for."""


def to_toml_text(tree: Mapping[str, Any]) -> str:
    """Keys and values, then the tables among them, each list of tables as ``[[name]]``.

    Raises:
        NotWritable: there is a null in it.
    """
    plain = {key: value for key, value in tree.items() if not _is_tables(value)}
    lines = [f"{_key(key)} = {_value(value)}\n" for key, value in plain.items()]
    for key, rows in tree.items():
        for row in () if key in plain else rows:
            lines.append(f"\n[[{_key(key)}]]\n")
            lines += [f"{_key(name)} = {_value(value)}\n" for name, value in row.items()]
    return "".join(lines)


def _is_tables(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(row, dict) for row in cast("list[object]", value))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case str():
            return _long_text(value) if "\n" in value else _text(value)
        case dict():
            items = cast("dict[str, object]", value).items()
            return "{" + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in items) + "}"
        case list():
            return _list([_value(one) for one in cast("Sequence[object]", value)])
        case _:
            raise NotWritable(f"TOML has no form for {value!r}")


def _list(items: Sequence[str]) -> str:
    flat = f"[{', '.join(items)}]"
    if len(flat) <= _WIDTH:
        return flat
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's. Controls that JSON leaves as they are would reach a terminal."""
    written = json.dumps(text, ensure_ascii=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def _long_text(text: str) -> str:
    """A string over several lines, as it will be read."""
    lines = [_text(line)[1:-1].replace('\\"', '"') for line in text.split("\n")]
    # three quotes in a row would end it, and so would one before the end
    body = "\n".join(lines).replace('"""', '""\\"')
    if body.endswith('"'):
        body = body[:-1] + '\\"'
    return f'"""\n{body}"""'
