"""What a candidate would cost and be worth, and what rules it out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.errors import NotFound
from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.request import Decoding, Options, OutputSchema, Request, ToolSpec
from kaizen.core.scope import LOCAL
from kaizen.inference.ceiling import MAX_TOKENS
from kaizen.inference.health import State
from kaizen.inference.prices import Price
from kaizen.inference.route.candidates import UNKNOWN, Candidate, Capability, Seen, Size, Worth, assess
from kaizen.inference.route.catalogue import AUTO, Band, Catalogue

NOTHING, UNSEEN = Capability(), Seen()
PRICE = Price.per_mtok(10.0, 30.0)
ASKED = Request(scope=LOCAL, model="a/x", messages=(Message.of("user", "a" * 400),))


def against(request: Request, **given: Any) -> dict[str, float | None]:
    return {str(name): miss for name, miss in judged(request, **given).against.items()}


def judged(
    request: Request,
    known: Capability = NOTHING,
    seen: Seen = UNSEEN,
    price: Price | None = PRICE,
    worth: Worth = UNKNOWN,
) -> Candidate:
    return assess(request, Size.of(request), "a/x", known, seen, price, worth)


def wishing(**options: Any) -> Request:
    return replace(ASKED, options=Options(**options))


def test_the_cost_is_that_of_this_request() -> None:
    assert Size.of(ASKED).tokens_in(4.0) == 104  # 400 bytes and a frame
    one = judged(ASKED, seen=Seen(tokens_out=50.0, answers=3))
    assert (one.cost_usd, one.cost_by) == (pytest.approx(104 * 10e-6 + 50 * 30e-6), "history")
    bounded = replace(ASKED, decoding=Decoding(max_tokens=20))
    assert judged(bounded, seen=Seen(tokens_out=50.0)).cost_usd == pytest.approx(104 * 10e-6 + 20 * 30e-6)
    assert judged(bounded).cost_by == "bound"
    assert judged(ASKED).cost_usd == pytest.approx(104 * 10e-6 + MAX_TOKENS * 30e-6)
    assert judged(ASKED, Capability(max_output_tokens=7)).cost_usd == pytest.approx(104 * 10e-6 + 7 * 30e-6)
    assert judged(ASKED, price=None).cost_usd is None


def test_all_parts_of_a_request_have_a_size() -> None:
    parts = (Text("é"), ToolCall("1", "f", "{}"), ToolResult("1", "ok"), Media("image", "image/png", data="AAAA"))
    tool = ToolSpec("f", "does", {"type": "object"})
    size = Size.of(replace(ASKED, messages=(Message("user", parts),)))
    assert (size.bytes, size.media) == (2 + 3 + 2, frozenset({"image"}))
    assert Size.of(replace(ASKED, tools=(tool,))).bytes > 420


def test_unknown_capabilities_pass_and_known_ones_are_kept_to() -> None:
    schema = replace(ASKED, output=OutputSchema("o", {"type": "object"}))
    tools = replace(ASKED, tools=(ToolSpec("f", "does", {}),))
    image = replace(ASKED, messages=(Message("user", (Media("image", "image/png", url="http://x.example/i"),)),))
    for request in (ASKED, schema, tools, image):
        assert against(request) == {}
    assert against(ASKED, known=Capability(context_tokens=100)) == {"context": pytest.approx(1.04)}
    assert against(ASKED, known=Capability(context_tokens=105)) == {}
    assert set(against(schema, known=Capability(schema=False))) == {"schema"}
    assert set(against(tools, known=Capability(tools=False))) == {"tools"}
    assert set(against(image, known=Capability(media=frozenset({"audio"})))) == {"media"}
    assert against(image, known=Capability(media=frozenset({"image"}))) == {}


@pytest.mark.parametrize(("models", "out"), [(None, False), (("a/*",), False), (("b/*", "a/y"), True), ((), True)])
def test_policy_names_who_may_be_asked(models: Any, out: bool) -> None:
    assert ("policy" in against(wishing(models=models))) is out


def test_a_cost_budget_wants_a_known_price() -> None:
    assert against(wishing(cost_budget_usd=1.0)) == {}
    assert against(wishing(cost_budget_usd=0.01)) == {"cost_budget_usd": pytest.approx(11.392)}
    assert against(wishing(cost_budget_usd=1.0), price=None) == {"cost_budget_usd": None}
    assert against(wishing(cost_budget_usd=0.0)) == {"cost_budget_usd": None}


def test_a_quality_threshold_wants_a_known_quality() -> None:
    assert against(wishing(quality_threshold=4.0), worth=Worth(4.0, 9, "scores")) == {}
    assert against(wishing(quality_threshold=4.0), worth=Worth(3.0, 9, "scores")) == {"quality_threshold": 0.25}
    assert against(wishing(quality_threshold=4.0)) == {"quality_threshold": None}
    assert against(wishing(quality_threshold=0.0)) == {"quality_threshold": None}


def test_a_latency_budget_is_held_against_what_was_measured() -> None:
    assert against(wishing(latency_budget_ms=100.0)) == {}
    assert against(wishing(latency_budget_ms=100.0), seen=Seen(latency_ms=(50.0, 90.0))) == {}
    late = against(wishing(latency_budget_ms=100.0), seen=Seen(latency_ms=(50.0, 150.0)))
    assert late == {"latency_budget_ms": 0.5}


def test_health_rules_out_and_degradation_is_told() -> None:
    assert set(against(ASKED, seen=Seen(state="open"))) == {"health"}
    assert judged(ASKED, seen=Seen(state="degraded")).degraded


# -- the catalogue --------------------------------------------------------------------------------


class Load:
    """A health of given loads."""

    def __init__(self, states: dict[str, State] | None = None, **calls: int) -> None:
        self.states, self.calls = states or {}, calls

    def state(self, ref: str, /) -> State:
        return self.states.get(ref, "ok")

    def latency_ms(self, ref: str, quantile: float, /) -> float | None:
        return None

    def in_flight(self, ref: str, /) -> int:
        return self.calls.get(ref.replace("/", "_"), 0)


CATALOGUE = Catalogue(
    default="a/own",
    candidates=("b/x", "c/y"),
    groups={"two": ("b/x", "c/y")},
    bands={"busy": (Band("a/own", 2), Band("b/x", 1), Band("c/y", 1))},
)


def field(model: str, health: Load | None = None, **options: Any) -> tuple[str, str, tuple[str, ...]]:
    found = CATALOGUE.field(replace(ASKED, model=model, options=Options(**options)), health or Load())
    return found.routing, found.own, found.models


def test_an_ordinary_ref_is_asked_unless_a_choice_is_wished() -> None:
    assert field("z/own") == ("explicit", "z/own", ("z/own",))
    assert field("z/own", routing="guided") == ("guided", "z/own", ("z/own", "b/x", "c/y"))
    assert field("c/y", routing="autopilot") == ("autopilot", "c/y", ("b/x", "c/y"))


def test_a_name_of_the_settings_is_a_choice() -> None:
    assert field(AUTO) == ("autopilot", "a/own", ("a/own", "b/x", "c/y"))
    assert field(AUTO, routing="guided")[0] == "guided"
    assert field("route/two") == ("guided", "b/x", ("b/x", "c/y"))
    assert field("route/two", routing="autopilot")[0] == "autopilot"
    with pytest.raises(NotFound, match="route/auto, route/two, route/busy"):
        field("route/none")


def test_bands_go_by_calls_in_the_air() -> None:
    assert field("route/busy") == ("explicit", "a/own", ("a/own",))
    assert field("route/busy", Load(a_own=2))[2] == ("b/x",)
    assert field("route/busy", Load({"b/x": "open"}, a_own=2))[2] == ("c/y",)
    assert field("route/busy", Load(a_own=2, b_x=1, c_y=1))[2] == ("c/y",)


@pytest.mark.parametrize(
    ("model", "options", "refs"),
    [
        ("z/own", {}, ["z/own"]),
        ("z/own", {"routing": "guided"}, ["z/own", "b/x", "c/y"]),
        ("route/two", {}, ["b/x", "c/y"]),
        ("route/busy", {}, ["a/own", "b/x", "c/y"]),
        (AUTO, {}, ["a/own", "b/x", "c/y"]),
    ],
)
def test_a_budget_has_to_pay_for_everybody_in_question(model: str, options: Any, refs: list[str]) -> None:
    request = replace(ASKED, model=model, options=Options(**options))
    assert list(CATALOGUE.possible(request)) == refs


@pytest.mark.parametrize(
    ("model", "options", "concerned"),
    [
        ("z/own", {}, False),
        ("z/own", {"routing": "explicit", "quality": "max"}, False),
        ("z/own", {"cost_budget_usd": 1.0}, True),
        ("z/own", {"latency_budget_ms": 1.0}, True),
        ("z/own", {"quality_threshold": 1.0}, True),
        ("z/own", {"routing": "guided"}, True),
        ("route/two", {}, True),
    ],
)
def test_calls_without_a_choice_or_a_wish_are_left_alone(model: str, options: Any, concerned: bool) -> None:
    assert CATALOGUE.concerns(replace(ASKED, model=model, options=Options(**options))) is concerned
