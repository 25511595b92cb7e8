"""Personal data of fixed shapes taken out of rows: addresses, numbers of cards, accounts and telephones. No names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from kaizen.learn.data.rows import Row


def _luhn(text: str) -> bool:
    """Whether digits are a card's number (ISO/IEC 7812-1)."""
    digits = [int(char) for char in text if char.isdigit()][::-1]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = (sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(digits))
    return sum(doubled) % 10 == 0


def _iban(text: str) -> bool:
    """Whether the check digits are right (ISO 13616)."""
    plain = "".join(text.split()).upper()
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def _phone(text: str) -> bool:
    digits = sum(char.isdigit() for char in text)
    return 9 <= digits <= 15


_SHAPES: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...]] = (
    ("email", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), lambda text: True),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b", re.IGNORECASE | re.ASCII), _iban),
    ("card", re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"), _luhn),
    (
        "ip",
        re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"),
        lambda _: True,
    ),
    ("phone", re.compile(r"(?<![\w+])(?:\+|00|\(?0)[\d\s()/.-]{7,20}\d(?!\d)"), _phone),
)
KINDS: Final = tuple(name for name, _, _ in _SHAPES)


def redacted(row: Row) -> tuple[Row, Counter[str]]:
    """A row with ``[email]`` and the like in the place of what was found; how often, by kind. Its group stays."""
    found: Counter[str] = Counter()
    inputs, outputs, others = (_values(part, found) for part in (row.inputs, row.outputs, row.others))
    return replace(row, inputs=inputs, outputs=outputs, others=others), found


def _values(value: Any, found: Counter[str]) -> Any:
    if isinstance(value, str):
        return _text(value, found)
    if isinstance(value, Mapping):
        return {name: _values(one, found) for name, one in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list):
        return [_values(one, found) for one in cast("list[Any]", value)]
    return value


def _text(text: str, found: Counter[str]) -> str:
    for name, shape, right in _SHAPES:

        def put(match: re.Match[str], name: str = name, right: Callable[[str], bool] = right) -> str:
            if not right(match.group()):
                return match.group()
            found[name] += 1
            return f"[{name}]"

        text = shape.sub(put, text)
    return text
