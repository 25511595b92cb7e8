"""What is said to a model and by it: messages made of parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Mark: TypeAlias = Literal["5m", "1h"]
Detail: TypeAlias = Literal["auto", "low", "high"]


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text.

    ``mark`` asks the provider to keep the prompt up to here in its cache, for so long, where the wire has such marks.
    """

    text: str
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Media:
    """Bytes that a model can look at or listen to, inline or by address.

    Args:
        kind: how the model takes it.
        media_type: for example ``image/png``, ``audio/wav``, ``application/pdf``.
        data: the bytes in base64, or None when ``url`` names them.
        url: an http(s) address the provider fetches itself, or None.
        name: a file name shown to the model, where the wire has a place for it.
        detail: how closely an image is looked at, for providers that ask.
        mark: as in ``Text``.
    """

    kind: Literal["image", "audio", "file"]
    media_type: str
    data: str | None = None
    url: str | None = None
    name: str | None = None
    detail: Detail | None = field(default=None, repr=False)
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool. ``arguments`` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool call gave. ``call_id`` is the ToolCall's id; ``is_error`` marks a failure the model should see.

    ``mark`` is as in ``Text``.
    """

    call_id: str
    content: str
    is_error: bool = False
    mark: Mark | None = field(default=None, repr=False)


Part: TypeAlias = Text | Media | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks, and its parts in order."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts joined; other parts are left out."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @classmethod
    def of(cls, role: Role, text: str) -> Message:
        """A message of one text part."""
        return cls(role, (Text(text),))
