"""Embeddings made together: who waits, who does not, and what each gets."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence

import pytest

from kaizen.core.errors import ProviderError, Unavailable
from kaizen.core.protocols import Embeddings
from kaizen.core.request import Usage
from kaizen.core.scope import LOCAL, Scope
from kaizen.inference.batch.embeddings import GatheredEmbedder
from kaizen.inference.batch.share import shares, usages

OTHER = Scope("other", "dev")


class Lengths:
    """Embeds a text as its length and number; takes a while, and refuses what it is told to."""

    def __init__(self, wait: float = 0.02, *, bad: str = "", error: Exception | None = None) -> None:
        self.wait, self.bad, self.error = wait, bad, error
        self.calls: list[tuple[Scope, tuple[str, ...]]] = []
        self.dim = 2

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        self.calls.append((scope, tuple(texts)))
        await asyncio.sleep(self.wait)
        if self.error is not None and any(self.bad in text for text in texts):
            raise self.error
        data = b"".join(struct.pack("<2f", len(text), ord(text[-1])) for text in texts)
        return Embeddings("test/lengths", self.dim, data, Usage(tokens_in=sum(map(len, texts))))


def points(made: Embeddings) -> list[tuple[float, ...]]:
    return [struct.unpack_from("<2f", made.data, at) for at in range(0, len(made.data), 8)]


async def test_a_lone_call_goes_at_once() -> None:
    inner = Lengths(0.0)
    begun = time.monotonic()
    made = await GatheredEmbedder(inner, wait=5.0).embed(LOCAL, ["a", "bb"])
    assert time.monotonic() - begun < 1.0
    assert points(made) == [(1.0, 97.0), (2.0, 98.0)]


async def test_calls_meanwhile_go_together_and_each_gets_its_own() -> None:
    inner = Lengths()
    layer = GatheredEmbedder(inner, wait=5.0)
    texts = [["first"], ["a", "bb"], ["ccc"], ["dddd"]]
    made = await asyncio.gather(*(layer.embed(LOCAL, one) for one in texts))
    assert [call[1] for call in inner.calls] == [("first",), ("a", "bb", "ccc", "dddd")]
    assert [points(one) for one in made] == [
        [(float(len(text)), float(ord(text[-1]))) for text in one] for one in texts
    ]
    assert [one.usage.tokens_in for one in made] == [5, 3, 3, 4]
    assert [one.usage.estimated for one in made] == [False, True, True, True]


@pytest.mark.alone
async def test_nobody_waits_longer_than_the_wait() -> None:
    inner = Lengths(0.3)
    layer = GatheredEmbedder(inner, wait=0.02)
    slow = asyncio.ensure_future(layer.embed(LOCAL, ["slow"]))
    await asyncio.sleep(0.01)
    begun = time.monotonic()
    inner.wait = 0.0
    await asyncio.gather(layer.embed(LOCAL, ["a"]), layer.embed(LOCAL, ["b"]))
    assert time.monotonic() - begun < 0.2
    assert not slow.done()
    assert inner.calls[1:] == [(LOCAL, ("a", "b"))]
    await slow


async def test_a_full_call_does_not_wait_and_no_call_is_cut() -> None:
    inner = Lengths(0.05)
    layer = GatheredEmbedder(inner, wait=5.0, texts=3)
    many = [["first"], ["a", "b"], ["c", "d"], ["e", "f", "g", "h"], []]
    made = await asyncio.gather(*(layer.embed(LOCAL, one) for one in many))
    assert [len(points(one)) for one in made] == [1, 2, 2, 4, 0]
    assert sorted(call[1] for call in inner.calls) == [(), ("a", "b"), ("c", "d"), ("e", "f", "g", "h"), ("first",)]


async def test_scopes_share_nothing() -> None:
    inner = Lengths()
    layer = GatheredEmbedder(inner)
    await asyncio.gather(*(layer.embed(scope, [text]) for text in "abc" for scope in (LOCAL, OTHER)))
    assert sorted((call[0].tenant, call[1]) for call in inner.calls) == sorted(
        (scope.tenant, texts) for scope in (LOCAL, OTHER) for texts in (("a",), ("b", "c"))
    )


async def test_a_bad_text_spoils_no_other() -> None:
    inner = Lengths(bad="bad", error=ProviderError("refused"))
    layer = GatheredEmbedder(inner, wait=5.0)
    made = await asyncio.gather(
        *(layer.embed(LOCAL, [text]) for text in ("first", "good", "bad", "fine")), return_exceptions=True
    )
    assert isinstance(made[2], ProviderError)
    assert [len(points(one)) for one in made if isinstance(one, Embeddings)] == [1, 1, 1]
    assert len(inner.calls) == 5


@pytest.mark.parametrize("error", [Unavailable("down"), ValueError("a mistake")], ids=["down", "mistake"])
async def test_who_is_down_is_not_asked_once_for_each(error: Exception) -> None:
    inner = Lengths(error=error)
    layer = GatheredEmbedder(inner, wait=5.0)
    made = await asyncio.gather(*(layer.embed(LOCAL, [text]) for text in "abc"), return_exceptions=True)
    assert [type(one) for one in made] == [type(error)] * 3
    assert len(inner.calls) == 2


async def test_another_number_of_points_than_texts_is_an_error() -> None:
    inner = Lengths()
    inner.dim = 3
    layer = GatheredEmbedder(inner, wait=5.0)
    made = await asyncio.gather(*(layer.embed(LOCAL, [text]) for text in "abc"), return_exceptions=True)
    assert [type(one) for one in made[1:]] == [Unavailable] * 2


async def test_who_leaves_is_not_embedded() -> None:
    inner = Lengths()
    layer = GatheredEmbedder(inner, wait=5.0)
    first, left, stays = (asyncio.ensure_future(layer.embed(LOCAL, [text])) for text in "abc")
    await asyncio.sleep(0.005)
    left.cancel()
    assert points(await stays) == [(1.0, 99.0)]
    await first
    assert [call[1] for call in inner.calls] == [("a",), ("c",)]


def test_shares_add_up() -> None:
    assert shares(10, [1.0, 1.0, 1.0]) == [4, 3, 3]
    assert shares(7, [0.0, 0.0]) == [4, 3]
    assert shares(0, [3.0, 1.0]) == [0, 0]
    for whole in range(50):
        assert sum(shares(whole, [0.3, 17.0, 2.2, 0.0])) == whole


def test_a_usage_parts_by_what_was_read_and_what_was_written() -> None:
    whole = Usage(tokens_in=100, tokens_out=10, tokens_cached=50, tokens_reasoning=3)
    assert usages(whole, [1.0, 3.0], [1.0, 1.0]) == [
        Usage(25, 5, 13, 0, 2, estimated=True),
        Usage(75, 5, 37, 0, 1, estimated=True),
    ]
    assert usages(whole, [1.0], [1.0]) == [whole]
