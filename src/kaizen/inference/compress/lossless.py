"""What may go without any loss: white space that says nothing, in prose and between the tokens of JSON."""

from __future__ import annotations

import json
import re
from typing import Final, cast

_DECODER: Final = json.JSONDecoder()

_INSIDE: Final = re.compile(r"(?<=\S)[ \t]{2,}(?=\S|$)")
_TRAILING: Final = re.compile(r"[ \t]+(?=\r?\n)")
_EMPTY: Final = re.compile(r"(?:\r?\n){3,}")
# a string, or white space outside of one
_JSON: Final = re.compile(r'("(?:[^"\\]|\\.)*")|\s+', re.DOTALL)


def tidy(text: str) -> str:
    """Prose without runs of spaces, spaces before an end of line, and more than one empty line in a row."""
    if not any(space in text for space in ("  ", "\t", " \n", " \r", "\n\n\n", "\n\r\n\r\n")):
        return text  # nearly always
    return _EMPTY.sub("\n\n", _INSIDE.sub(" ", _TRAILING.sub("", text)))


def minified(text: str) -> str:
    """JSON without white space between its tokens; strings, numbers and the order of keys stay to the letter.

    Args:
        text: valid JSON, white space round it included, of which one end of line at most is left.
    """
    body = text.rstrip()
    return _JSON.sub(lambda match: match[1] or "", body) + ("\n" if "\n" in text[len(body) :] else "")


def json_end(text: str, begin: int) -> int:
    """Where the lines end that a JSON object or list fills; 0 where none begins here. ``[1]`` is a mark, not a list."""
    start = begin + len(text[begin:]) - len(text[begin:].lstrip())
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return 0
    line_end = text.find("\n", end) + 1 or len(text)
    return 0 if text[end:line_end].strip() or _is_mark(value) else line_end


def is_json(text: str) -> bool:
    """Whether all of a text is a JSON object or list; ``[1]`` is a mark, not a list."""
    bare = text.strip()
    if len(bare) < 2 or bare[0] + bare[-1] not in ("{}", "[]"):
        return False
    try:
        return not _is_mark(json.loads(bare))
    except (ValueError, RecursionError):
        return False


def _is_mark(value: object) -> bool:
    """Whether a JSON value may as well be a passage's number: ``[1]``."""
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return len(items) < 2 and all(isinstance(one, int) for one in items)
