"""The embedder on OpenAI's wire against a real server."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from kaizen.core.errors import AuthFailed, ProviderError, Unavailable
from kaizen.core.scope import LOCAL
from kaizen.providers.embed.openai import OpenAIEmbedder
from kaizen.providers.errors import Origin
from kaizen.providers.http import HttpTransport, TransportSettings
from kaizen.testing.batch_server import BatchServer
from kaizen.testing.fault_server import Fault, status


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as running:
        yield running


def embedder(server: BatchServer) -> OpenAIEmbedder:
    return OpenAIEmbedder("mine/small", HttpTransport(server.base_url, {}, Origin("mine"), TransportSettings()))


def body(*points: Any, usage: Any = None) -> Fault:
    data = [{"index": at, "embedding": point} for at, point in enumerate(points)]
    return Fault("body", message=json.dumps({"data": data, "usage": usage}))


async def test_points_come_in_order_and_of_length_one(server: BatchServer) -> None:
    made = await embedder(server).embed(LOCAL, ["a", "bbb"])
    assert (made.model, made.dim, made.usage.tokens_in, made.usage.estimated) == ("mine/small", 3, 4, False)
    points = [struct.unpack_from("<3f", made.data, at) for at in (0, 12)]
    assert [math.hypot(*point) for point in points] == [pytest.approx(1.0)] * 2
    assert [point[0] / point[2] for point in points] == [pytest.approx(1.0), pytest.approx(3.0)]
    asked = server.calls[0].json
    assert (asked["model"], asked["input"], asked["encoding_format"]) == ("small", ["a", "bbb"], "base64")


async def test_numbers_are_taken_as_well_and_tokens_are_guessed_where_nobody_counts(server: BatchServer) -> None:
    server.queue_for("/embeddings", body([0.6, 0.8]))
    made = await embedder(server).embed(LOCAL, ["five letters"])
    assert struct.unpack("<2f", made.data) == (pytest.approx(0.6), pytest.approx(0.8))
    assert (made.usage.tokens_in, made.usage.estimated) == (3, True)
    server.queue_for("/embeddings", body())
    assert (await embedder(server).embed(LOCAL, [])).dim == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (status(401), AuthFailed),
        (status(404), ProviderError),
        (status(503), Unavailable),
        (Fault("html"), Unavailable),
        (Fault("body", message="{}"), Unavailable),
        (body([1.0], [1.0]), Unavailable),
        (body(), Unavailable),
        (body([]), Unavailable),
        (body([0.0, 0.0]), Unavailable),
        (body([1.0, "x"]), Unavailable),
        (body("no base64!"), Unavailable),
        (body(base64.b64encode(b"abc").decode()), Unavailable),
    ],
    ids=["401", "404", "503", "html", "empty", "too many", "too few", "no number", "zero", "text", "base64", "cut"],
)
async def test_what_is_no_answer_is_an_error(server: BatchServer, fault: Fault, error: type[Exception]) -> None:
    server.queue_for("/embeddings", fault)
    with pytest.raises(error):
        await embedder(server).embed(LOCAL, ["a"])


async def test_points_of_two_lengths_are_no_answer(server: BatchServer) -> None:
    server.queue_for("/embeddings", body([1.0], [1.0, 0.0]))
    with pytest.raises(Unavailable):
        await embedder(server).embed(LOCAL, ["a", "b"])
