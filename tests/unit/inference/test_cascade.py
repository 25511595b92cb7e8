"""When a cheap answer counts, what a cascade costs, and how a threshold is found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from kaizen.core.errors import BudgetExceeded, KaizenError, Unavailable, Unsupported
from kaizen.core.message import Message
from kaizen.core.request import Finish, Reply, Request, TokenLogprob, Usage
from kaizen.core.scope import LOCAL
from kaizen.inference.cascade import Cascade, Measure, Sureness, calibrate, confidence
from kaizen.inference.prices import Price, PriceTable
from kaizen.testing.scripted import Line, ScriptedProvider

ASKED = Request(scope=LOCAL, model="b/strong", messages=(Message.of("user", "hello"),))
PRICES = PriceTable({"a/cheap": Price.per_mtok(1.0, 1.0), "b/strong": Price.per_mtok(10.0, 10.0)}, {})


def tokens(*probabilities: float) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob("x", math.log(one)) for one in probabilities)


def reply(model: str, *probabilities: float, finish: Finish = "stop") -> Reply:
    return Reply(model=model, text=model, usage=Usage(100, 10), logprobs=tokens(*probabilities), finish=finish)


def cascade(cheap: Line, prices: PriceTable = PRICES) -> tuple[Cascade, ScriptedProvider]:
    def script(request: Request) -> Line:
        return cheap if request.model == "a/cheap" else reply("b/strong")

    inner = ScriptedProvider(script)
    return Cascade(inner, ("a/cheap", "b/strong"), Sureness(0.5), prices), inner


@pytest.mark.parametrize(("measure", "wanted"), [("mean", 0.3), ("least", 0.1), ("product", 0.09)])
def test_token_probabilities_become_one(measure: Measure, wanted: float) -> None:
    assert confidence(tokens(0.9, 0.1), measure) == pytest.approx(wanted)
    assert confidence((), measure) is None


async def test_a_sure_answer_counts_and_is_all_that_is_paid() -> None:
    made, inner = cascade(reply("a/cheap", 0.9))
    found = await made.complete(ASKED)
    assert (found.model, found.logprobs, inner.count) == ("a/cheap", (), 1)
    assert found.cost_usd == pytest.approx(110e-6)
    assert found.saved_usd == pytest.approx(990e-6)
    assert inner.requests[0].top_logprobs == 0


@pytest.mark.parametrize(
    "cheap",
    [reply("a/cheap", 0.2), reply("a/cheap"), reply("a/cheap", 0.9, finish="length")],
    ids=["unsure", "without log-probabilities", "cut short"],
)
async def test_another_answer_goes_on_and_both_are_paid(cheap: Reply) -> None:
    made, inner = cascade(cheap)
    found = await made.complete(ASKED)
    assert (found.model, inner.count, found.attempts) == ("b/strong", 2, 2)
    assert found.usage == Usage(200, 20)
    assert found.cost_usd == pytest.approx(1210e-6)
    assert found.saved_usd == pytest.approx(-110e-6)
    assert inner.requests[1].top_logprobs is None


@pytest.mark.parametrize("error", [Unavailable("down"), Unsupported("no place for seed")])
async def test_a_cheap_model_that_fails_goes_on_too(error: KaizenError) -> None:
    made, _ = cascade(error)
    found = await made.complete(ASKED)
    assert found.stages[-1].note["asked"] == [
        {"model": "a/cheap", "error": error.code},
        {"model": "b/strong", "confidence": None},
    ]


async def test_the_last_models_failure_is_the_callers() -> None:
    inner = ScriptedProvider(lambda _: Unavailable("down"))
    with pytest.raises(Unavailable):
        await Cascade(inner, ("a/cheap", "b/strong"), Sureness(), PRICES).complete(ASKED)


async def test_a_spent_budget_ends_it_at_once() -> None:
    made, inner = cascade(BudgetExceeded("spent"))
    with pytest.raises(BudgetExceeded):
        await made.complete(ASKED)
    assert inner.count == 1


@pytest.mark.parametrize("error", [Unavailable("down"), Unsupported("no place for seed"), BudgetExceeded("spent")])
async def test_a_failure_after_an_answer_says_that_something_was_paid(error: KaizenError) -> None:
    inner = ScriptedProvider(lambda asked: reply("a/cheap", 0.2) if asked.model == "a/cheap" else error)
    with pytest.raises(type(error)) as caught:
        await Cascade(inner, ("a/cheap", "b/strong"), Sureness(), PRICES).complete(ASKED)
    assert caught.value.detail["billed"] is True


async def test_log_probabilities_that_were_asked_for_are_given() -> None:
    made, inner = cascade(reply("a/cheap", 0.2))
    await made.complete(replace(ASKED, top_logprobs=3))
    assert [one.top_logprobs for one in inner.requests] == [3, 3]
    made, _ = cascade(reply("a/cheap", 0.9))
    assert len((await made.complete(replace(ASKED, top_logprobs=0))).logprobs) == 1


async def test_what_a_provider_bills_is_what_it_costs_and_unknown_prices_stay_unknown() -> None:
    made, _ = cascade(replace(reply("a/cheap", 0.9), cost_usd=0.5))
    assert (await made.complete(ASKED)).cost_usd == 0.5
    made, _ = cascade(reply("a/cheap", 0.9), PriceTable({}, {}))
    found = await made.complete(ASKED)
    assert (found.cost_usd, found.saved_usd) == (None, None)


async def test_a_stream_comes_in_one_piece() -> None:
    made, _ = cascade(reply("a/cheap", 0.9))
    chunks = [chunk async for chunk in made.stream(ASKED)]
    assert [chunk.text for chunk in chunks] == ["a/cheap", ""]
    made, _ = cascade(replace(reply("a/cheap", 0.9), text=""))
    assert len([chunk async for chunk in made.stream(ASKED)]) == 1


def test_a_threshold_is_the_lowest_that_is_right_often_enough() -> None:
    sure, right = [0.9, 0.8, 0.7, 0.6, 0.5], [True, True, False, True, False]
    # strong alone is right in 0.8; with the four surest kept (3 of them right) it is (3 + 0.8) / 5 = 0.76 = 0.95 * 0.8
    found = calibrate(sure, right, 0.8, 0.95)
    assert (found.confidence, found.escalated, found.right) == (0.6, pytest.approx(0.2), pytest.approx(0.76))
    # with all five kept 3 / 5 is less than 0.76
    assert calibrate(sure, right, 0.8, 0.5).escalated == 0.0


def test_equal_confidences_fall_on_one_side() -> None:
    found = calibrate([0.5, 0.5, 0.5], [True, False, False], 1.0, 0.99)
    assert (found.confidence, found.escalated) == (math.inf, 1.0)


def test_nothing_to_calibrate_on_escalates_all() -> None:
    check: Callable[[], float] = lambda: calibrate([], [], 0.9).escalated  # noqa: E731 - read as one value
    assert check() == 1.0
