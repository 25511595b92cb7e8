"""``POST /v1/embeddings``, as OpenAI's clients speak it."""

from __future__ import annotations

from array import array
from base64 import b64encode
from dataclasses import dataclass
from sys import byteorder
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from kaizen.core.protocols import Embeddings
from kaizen.serve.http.problem import Refused, unsupported
from kaizen.serve.http.wires.chat_body import Strict
from kaizen.serve.http.wires.wire import decoded, to_text

_MOST_TEXTS: Final = 2048
_FLOAT_BYTES: Final = 4


class EmbeddingsBody(Strict):
    """The parameters that are supported."""

    model: str
    input: str | Annotated[list[str], Meta(min_length=1, max_length=_MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None


_body: Final = msgspec.json.Decoder(EmbeddingsBody)


@dataclass(frozen=True, slots=True)
class Texts:
    """What is to be embedded."""

    model: str
    texts: tuple[str, ...]
    base64: bool
    dimensions: int | None


def decode(body: bytes) -> Texts:
    """The call in a body; see ``Wire.decode``."""
    said = decoded(_body, body)
    texts = (said.input,) if isinstance(said.input, str) else tuple(said.input)
    if not all(texts):
        raise Refused(400, "invalid_request", "input: an empty text has no meaning to embed", param="input")
    return Texts(said.model, texts, said.encoding_format == "base64", said.dimensions)


def encode(asked: Texts, points: Embeddings) -> bytes:
    """The whole answer.

    Raises:
        Unsupported: for another number of dimensions than the model has.
    """
    if asked.dimensions not in (None, points.dim):
        raise unsupported("dimensions", f"of {points.model} are {points.dim}")
    size = points.dim * _FLOAT_BYTES
    pieces = [points.data[at : at + size] for at in range(0, len(points.data), size)]
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": at, "embedding": b64encode(one).decode() if asked.base64 else floats(one)}
        for at, one in enumerate(pieces)
    ]
    tokens = points.usage.tokens_in
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return to_text({"object": "list", "data": data, "model": points.model, "usage": usage})


def floats(data: bytes) -> list[float]:
    """Little-endian float32 as numbers."""
    numbers = array("f", data)
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
