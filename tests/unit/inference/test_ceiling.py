"""A request is bounded before it is sent, and the bound is never below what any model can bill."""

from __future__ import annotations

import pytest

from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.protocols import Need
from kaizen.core.request import Decoding, Options, OutputSchema, Request, ToolSpec
from kaizen.core.scope import LOCAL
from kaizen.inference.ceiling import MAX_TOKENS, Ceiling
from kaizen.inference.prices import Price, PriceTable

PRICES = PriceTable({"mine/small": Price.per_mtok(1.0, 2.0), "mine/large": Price.per_mtok(10.0, 30.0)}, {})


def asking(*parts: Text | Media | ToolCall | ToolResult, model: str = "mine/small", **more: object) -> Request:
    return Request(scope=LOCAL, model=model, messages=(Message("user", parts),), **more)  # type: ignore[arg-type]


def bound(request: Request, **how: object) -> tuple[Request, Need]:
    return Ceiling(PRICES, {}, **how)(request)  # type: ignore[arg-type]


def test_an_open_end_is_closed_and_a_closed_one_stays() -> None:
    request, need = bound(asking(Text("hello")))
    assert request.decoding.max_tokens == MAX_TOKENS
    assert need.tokens >= 5 + MAX_TOKENS
    request, need = bound(asking(Text("hello"), decoding=Decoding(max_tokens=7, temperature=0.5)))
    assert (request.decoding.max_tokens, request.decoding.temperature) == (7, 0.5)
    limited, _ = Ceiling(PRICES, {"mine/small": 100})(asking(Text("hello")))
    assert limited.decoding.max_tokens == 100


@pytest.mark.parametrize(
    "part",
    [
        Text("x" * 1000),
        Text("é" * 500),
        ToolCall("1", "look", "x" * 1000),
        ToolResult("1", "x" * 1000),
        Media("image", "image/png", data="x" * 1000),
    ],
)
def test_every_byte_counts_as_a_token(part: Text) -> None:
    decoding = Decoding(max_tokens=1)
    _, need = bound(asking(part, decoding=decoding))
    assert 1000 < need.tokens < 1100


def test_schema_and_tools_count() -> None:
    decoding = Decoding(max_tokens=1)
    _, plain = bound(asking(Text("x"), decoding=decoding))
    tool = ToolSpec("look", "y" * 300, {"type": "object"})
    shown = OutputSchema("answer", {"description": "z" * 500})
    _, more = bound(asking(Text("x"), decoding=decoding, tools=(tool,), output=shown))
    assert more.tokens - plain.tokens > 800


def test_the_dearest_candidate_s_price_counts_and_an_unknown_one_is_no_price() -> None:
    decoding = Decoding(max_tokens=1000)
    request = asking(Text("x" * 968), decoding=decoding)
    _, need = bound(request)
    assert need.usd == pytest.approx(1000 * 1e-6 + 1000 * 2e-6)
    _, need = bound(request, candidates=lambda _: ("mine/small", "mine/large"))
    assert need.usd == pytest.approx(1000 * 10e-6 + 1000 * 30e-6)
    _, need = bound(request, candidates=lambda _: ("mine/small", "nobody/knows"))
    assert need.usd is None


def test_a_call_that_may_be_compared_with_a_second_one_counts_twice() -> None:
    decoding = Decoding(max_tokens=10)
    _, once = bound(asking(Text("x"), decoding=decoding))
    _, twice = bound(asking(Text("x"), decoding=decoding), compared=True)
    assert (twice.tokens, twice.usd) == (2 * once.tokens, pytest.approx(2 * (once.usd or 0)))
    hedged = asking(Text("x"), decoding=decoding, options=Options(hedge=True))
    assert bound(hedged, compared=True)[1].tokens == 4 * once.tokens
    for alone in (Options(compress=False), Options(cost_budget_usd=1.0), Options(latency_budget_ms=500)):
        assert bound(asking(Text("x"), decoding=decoding, options=alone), compared=True)[1] == once


def test_a_cascade_may_ask_all_of_its_models() -> None:
    decoding = Decoding(max_tokens=1000)
    request = asking(Text("x" * 968), decoding=decoding)
    both = ("mine/small", "mine/large")
    _, need = bound(request, candidates=lambda _: both, cascade=both)
    assert need.usd == pytest.approx(1000 * 11e-6 + 1000 * 32e-6)
    assert need.tokens == 2 * 2000
    _, need = bound(request, cascade=both)  # it names its model: no cascade answers
    assert (need.usd, need.tokens) == (pytest.approx(1000 * 1e-6 + 1000 * 2e-6), 2000)
    _, need = bound(request, candidates=lambda _: (*both, "nobody/knows"), cascade=both)
    assert need.usd is None


def test_a_second_call_beside_the_first_doubles_it() -> None:
    decoding = Decoding(max_tokens=10)
    _, once = bound(asking(Text("x"), decoding=decoding))
    _, twice = bound(asking(Text("x"), decoding=decoding, options=Options(hedge=True)))
    assert (twice.tokens, twice.usd) == (2 * once.tokens, pytest.approx(2 * (once.usd or 0)))
