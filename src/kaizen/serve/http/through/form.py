"""``multipart/form-data`` (RFC 7578), read strictly and written anew.

The model that a key may ask stands in one of the parts. Were the form passed on as it came, a provider that reads it
in another way than we do could be told another model. So what can't be read in one way only is refused, and what is
passed on is written by us.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote

from kaizen.core.ids import new_id
from kaizen.serve.http.problem import Refused

FORM: Final = b"multipart/form-data"
MAX_PARTS: Final = 64
_MAX_HEAD: Final = 4096
_BOUNDARY: Final = re.compile(rb';\s*boundary=(?:"([^"\\\r\n]{1,70})"|([^\s";,]{1,70}))\s*(?:;|$)', re.IGNORECASE)
_PARAMETER: Final = re.compile(r';\s*([a-z]+\*?)=(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))', re.IGNORECASE)
_NAME: Final = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)
_TYPE: Final = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}(?:;\s?[\w-]+=[\w.+-]+)?", re.ASCII)
_AS_THEY_ARE: Final = frozenset({"7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True)
class Part:
    """One field, or one file.

    Args:
        name: of the field.
        data: its value.
        filename: None for a field that is no file.
        content_type: as the sender has it.
    """

    name: str
    data: bytes = field(repr=False)
    filename: str | None = None
    content_type: str | None = None

    @property
    def text(self) -> str:
        """The value of a field that is no file.

        Raises:
            Refused: it is no text.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise _bad(f"the field {self.name} is no text in UTF-8") from None


def read(content_type: bytes, body: bytes) -> list[Part]:
    """The parts of a form.

    Args:
        content_type: the header's value, with the boundary.
        body: the whole form.

    Raises:
        Refused: it is no form, or can be read in more ways than one.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise _bad("the content type names no boundary")
    mark = b"\r\n--" + (found[1] or found[2])
    first, *pieces = (b"\r\n" + body).split(mark, MAX_PARTS + 2)
    if first or not pieces:
        raise _bad("the form does not begin with its boundary")
    if len(pieces) > MAX_PARTS + 1:
        raise _bad(f"more than {MAX_PARTS} parts")
    *parts, last = pieces
    if last not in (b"--", b"--\r\n"):
        raise _bad("the form does not end with its boundary")
    return [_part(piece) for piece in parts]


def field_of(parts: Sequence[Part], name: str) -> str | None:
    """The value of a field, or None where there is none.

    Raises:
        Refused: there are several, or it is a file.
    """
    found = [part for part in parts if part.name == name]
    if not found:
        return None
    if len(found) > 1 or found[0].filename is not None:
        raise Refused(400, "invalid_request", f"{name}: one field, and no file", param=name)
    return found[0].text


def changed(parts: Sequence[Part], name: str, value: str) -> list[Part]:
    """The same parts, with another value of a field."""
    return [replace(part, data=value.encode()) if part.name == name else part for part in parts]


def write(parts: Sequence[Part]) -> tuple[str, bytes]:
    """A form's content type and body."""
    boundary = new_id()
    while any(boundary.encode() in part.data for part in parts):
        boundary = new_id()
    pieces: list[bytes] = []
    for part in parts:
        file = "" if part.filename is None else f'; filename="{_escaped(part.filename)}"'
        kind = "" if part.content_type is None else f"content-type: {part.content_type}\r\n"
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{part.name}"{file}\r\n{kind}\r\n'
        pieces += (head.encode(), part.data, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return f"{FORM.decode()}; boundary={boundary}", b"".join(pieces)


def _part(piece: bytes) -> Part:
    head, end, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not piece.startswith(b"\r\n") or not end or len(head) > _MAX_HEAD:
        raise _bad("a part has no head")
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise _bad("a part's head is not in UTF-8") from None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name in headers or not line.isprintable():
            raise _bad("a part's head can't be read")
        headers[name] = value.strip()
    if headers.get("content-transfer-encoding", "binary").lower() not in _AS_THEY_ARE:
        raise _bad("a part is encoded; send its bytes as they are")
    kind = headers.get("content-type")
    if kind is not None and not _TYPE.fullmatch(kind):
        raise _bad("a part's content type can't be read")
    field_name, filename = _disposition(headers.get("content-disposition", ""))
    return Part(field_name, data, filename, kind)


def _disposition(value: str) -> tuple[str, str | None]:
    """Name and file name."""
    kind, rest = value[:9], value[9:]
    found: dict[str, str] = {}
    at = 0
    while (match := _PARAMETER.match(rest, at)) is not None:
        name = match[1].lower()
        if name in found:
            raise _bad("a part names itself twice")
        found[name] = match[3] if match[3] is not None else match[2]
        at = match.end()
    name = found.get("name", "")
    if kind.lower() != "form-data" or rest[at:].strip() or found.keys() - {"name", "filename", "filename*"}:
        raise _bad("a part's content-disposition can't be read")
    if not _NAME.fullmatch(name):
        raise _bad("a part's name may have letters, digits and _ . - [ ], 64 at most")
    filename = found.get("filename")
    if "filename*" in found:  # RFC 8187
        filename = unquote(found["filename*"].rpartition("'")[2])
    return name, filename


def _escaped(filename: str) -> str:
    """As browsers write it (the HTML standard, section 4.10.21.8)."""
    plain = "".join(char for char in filename if char.isprintable())
    return plain.replace('\\"', '"').replace('"', "%22").replace("\\", "_")[:255]


def _bad(why: str) -> Refused:
    return Refused(400, "malformed", f"the body is no multipart/form-data that can be passed on: {why}")
