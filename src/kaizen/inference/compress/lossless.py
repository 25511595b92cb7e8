"""What may go without any loss: white space that says nothing, in prose and between the tokens of JSON."""

from __future__ import annotations

import re
from typing import Final

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
