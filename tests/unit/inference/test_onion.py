"""All layers together: one call passes each of them."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from kaizen.core.errors import Timeout, Unavailable
from kaizen.inference.onion import build_onion
from kaizen.inference.prices import Price, PriceTable
from kaizen.inference.retry import Retries
from tests.unit.inference.calls import HELLO, REPLY, Scripted

PRICES = {"mine/large": Price.per_mtok(10.0, 30.0)}


def quick(attempts: int = 3) -> Retries:
    return Retries(attempts=attempts, backoff=0.001)


async def test_a_call_is_dispatched_retried_and_priced() -> None:
    inner = Scripted(Unavailable("503"), Unavailable("503"), REPLY)
    onion = build_onion({"mine": lambda: inner}, prices=PriceTable(PRICES, {}), retries=quick())
    reply = await onion.complete(HELLO)
    assert (reply.text, reply.attempts, inner.calls) == ("hi", 3, 3)
    assert reply.cost_usd == pytest.approx(0.013)


async def test_switching_retries_off_leaves_one_call() -> None:
    inner = Scripted(Unavailable("503"), REPLY)
    onion = build_onion({"mine": lambda: inner}, prices=PriceTable(PRICES, {}), retries=quick(attempts=1))
    with pytest.raises(Unavailable):
        await onion.complete(HELLO)
    assert inner.calls == 1


async def test_a_stream_is_dispatched_retried_and_priced() -> None:
    inner = Scripted(Unavailable("503"), REPLY)
    onion = build_onion({"mine": lambda: inner}, prices=PriceTable(PRICES, {}), retries=quick())
    chunks = [chunk async for chunk in onion.stream(HELLO)]
    assert chunks[-1].reply == replace(REPLY, attempts=2, cost_usd=pytest.approx(0.013))


async def test_the_deadline_bounds_all_attempts_together() -> None:
    inner = Scripted(Unavailable("503"), wait=0.03)
    onion = build_onion({"mine": lambda: inner}, prices=PriceTable(PRICES, {}), retries=quick(attempts=1000))
    with pytest.raises((Timeout, Unavailable)):
        await onion.complete(replace(HELLO, deadline=time.monotonic() + 0.2))
    assert 2 <= inner.calls <= 8


def test_the_price_table_is_not_loaded_by_import_or_by_a_local_call() -> None:
    script = """
import asyncio, sys
from kaizen.inference.onion import build_onion
from kaizen.inference.endpoint import Endpoint
from kaizen.inference.prices import PriceTable
from kaizen.inference.retry import Retries
from tests.unit.inference.calls import HELLO, REPLY, Scripted
local = {"mine": Endpoint("openai", "http://127.0.0.1:1/v1")}
onion = build_onion({"mine": lambda: Scripted(REPLY)}, prices=PriceTable({}, local), retries=Retries())
assert asyncio.run(onion.complete(HELLO)).cost_usd is None
assert "genai_prices" not in sys.modules
"""
    root = __file__.rsplit("/tests/", 1)[0]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)
