"""OpenAI's embeddings, as its API and many others speak it."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic_core import from_json, to_json

from kaizen.core.protocols import Embeddings
from kaizen.core.request import Usage
from kaizen.core.scope import Scope
from kaizen.providers.http import HttpTransport
from kaizen.providers.wire import count, model_name

_NUMBER: Final = 4  # bytes of a float32
_CHARACTERS_A_TOKEN: Final = 4
_MISSHAPEN: Final = (KeyError, IndexError, TypeError, AttributeError, ValueError, struct.error)


@dataclass(frozen=True, slots=True)
class _Asked:
    """On whose behalf a call is made."""

    model: str
    deadline: float | None = None


class OpenAIEmbedder:
    """Embeds texts by a provider that speaks OpenAI's wire. Satisfies ``Embedder``.

    Points are asked for as bytes, which are half as long as numbers in JSON, and taken as either. Each is made of
    length 1. Usage is what the provider counted; else a guess of a token for every four characters, marked as
    ``estimated``.

    Args:
        ref: the model's ref.
        transport: what carries the calls.
    """

    def __init__(self, ref: str, transport: HttpTransport) -> None:
        self._ref, self._transport = ref, transport

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        """A point for each text, in order; see ``Embedder``."""
        body = {"model": model_name(self._ref), "input": list(texts), "encoding_format": "base64"}
        origin = self._transport.origin
        async with self._transport.open("/embeddings", to_json(body), _Asked(self._ref)) as answer:
            data = await answer.read()
        if answer.status != 200:
            raise origin.answered(self._ref, answer.status, answer.headers, data)
        try:
            return self._points(from_json(data), texts)
        except _MISSHAPEN:
            raise origin.broken(self._ref, "/embeddings answered JSON of another shape") from None

    def _points(self, body: Any, texts: Sequence[str]) -> Embeddings:
        rows = sorted(body["data"], key=lambda row: row["index"])
        if [row["index"] for row in rows] != list(range(len(texts))):
            raise ValueError("a point for each text is wanted")
        points = [_unit(row["embedding"]) for row in rows]
        if len({len(point) for point in points}) > 1:
            raise ValueError("points of one length are wanted")
        dim = len(points[0]) // _NUMBER if points else 0
        usage = body.get("usage")
        if usage:
            used = Usage(tokens_in=count(usage, "prompt_tokens"))
        else:
            used = Usage(tokens_in=sum(-(-len(text) // _CHARACTERS_A_TOKEN) for text in texts), estimated=True)
        return Embeddings(self._ref, dim, b"".join(points), used)


def _unit(given: object) -> bytes:
    """A point of length 1, as bytes."""
    if isinstance(given, str):
        data = base64.b64decode(given)
        numbers = struct.unpack(f"<{len(data) // _NUMBER}f", data)
    else:
        numbers = tuple(map(float, cast("list[float]", given)))
    length = math.sqrt(sum(number * number for number in numbers))
    if not numbers or not 0.0 < length < math.inf:
        raise ValueError("a point that is none")
    if abs(length - 1.0) > 1e-4:
        numbers = tuple(number / length for number in numbers)
    return struct.pack(f"<{len(numbers)}f", *numbers)
