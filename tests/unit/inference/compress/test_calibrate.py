from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from kaizen.core.errors import BudgetExceeded, NotFound, Unavailable
from kaizen.core.request import Options, Reply, Request, Usage
from kaizen.core.scope import LOCAL
from kaizen.inference.compress.calibrate import calibrate
from kaizen.inference.compress.compressor import LEVELS, Compressor
from kaizen.inference.compress.evidence import Agreement, Evidence
from tests.unit.inference.compress.requests import FILLER, GOLD, QUESTION, asking, passages

TASK = Options(task="lookup")
TEXT = f"Context:\n{passages()}\n\nQuestion: {QUESTION}"


def answered(request: Request, text: str) -> Reply:
    return Reply(model=request.model, text=text, usage=Usage(tokens_in=len(request.messages[-1].text.split())))


async def test_each_level_is_measured_and_kept() -> None:
    async def ask(request: Request) -> Reply:
        # one that misses a sentence which a strong level drops
        return answered(request, "known" if FILLER[5].strip() in request.messages[-1].text else "lost")

    evidence = Evidence()
    requests = [asking(f"{TEXT} {number}", options=TASK) for number in range(3)]
    found = await calibrate(ask, requests, Compressor(), evidence)
    assert [row.level for row in found.measured] == [level.name for level in LEVELS[1:]]
    assert all(row.agreement.compared == 3 for row in found.measured)
    assert found.measured[-1].agreement.differed == 3
    assert all(row.after < row.before for row in found.measured)
    assert (found.asked, found.failed) == (3 * len(LEVELS), 0)
    assert evidence.of(LOCAL, "mine/large", "lookup")[4] == Agreement(3, 3)


async def test_what_no_level_shortens_says_nothing_and_what_two_levels_send_is_asked_once() -> None:
    asked: list[str] = []

    async def ask(request: Request) -> Reply:
        asked.append(request.messages[-1].text)
        return answered(request, "same")

    short = asking("Hello there.", options=TASK)
    twice = asking(f"<text>\n{GOLD}\n{GOLD}\n</text>\nWork on it.", options=TASK)
    found = await calibrate(ask, [short, twice], Compressor(), Evidence(), at_once=1)
    assert len(asked) == found.asked == 2
    assert "Hello there." not in asked  # not even whole: there is nothing to compare it with
    assert [row.agreement.compared for row in found.measured] == [1] * 4


@pytest.mark.parametrize("budget", [0, 1, 2, 7, 100])
async def test_no_more_calls_are_made_than_allowed(budget: int) -> None:
    asked: list[Request] = []
    told: list[tuple[int, int]] = []

    async def ask(request: Request) -> Reply:
        asked.append(request)
        await asyncio.sleep(0)
        return answered(request, "same")

    requests = [asking(f"{TEXT} {number}", options=TASK) for number in range(4)]
    found = await calibrate(
        ask,
        requests,
        Compressor(),
        Evidence(),
        budget=budget,
        told=lambda calls, prompts: told.append((calls, prompts)),
    )
    assert len(asked) == found.asked == (0 if budget < 2 else min(budget, 4 * len(LEVELS)))
    assert (len(told), told[-1]) == (4, (found.asked, 4))
    assert bool(found.measured) == (budget >= 2)


async def test_a_model_that_is_gone_is_a_failure_and_a_spent_budget_ends_it() -> None:
    async def gone(request: Request) -> Reply:
        raise NotFound("no provider 'mine'")

    async def spent(request: Request) -> Reply:
        raise BudgetExceeded("nothing left")

    requests = [asking(f"{TEXT} {number}", options=TASK) for number in range(3)]
    found = await calibrate(gone, requests, Compressor(), Evidence())
    assert (found.asked, found.failed, found.measured) == (3, 3, [])
    with pytest.raises(BudgetExceeded):
        await calibrate(spent, requests, Compressor(), Evidence())


async def test_the_answer_of_another_model_is_no_evidence() -> None:
    async def ask(request: Request) -> Reply:
        return replace(answered(request, "same"), model="a/b" if request.messages[-1].text == TEXT else "c/d")

    found = await calibrate(ask, [asking(TEXT, options=TASK)], Compressor(), Evidence())
    assert (found.measured, found.asked) == ([], len(LEVELS))


async def test_calls_that_fail_count_for_nothing() -> None:
    async def ask(request: Request) -> Reply:
        if request.messages[-1].text.endswith("down") or len(request.messages[-1].text) < len(TEXT):
            raise Unavailable("down")
        return answered(request, "up")

    request = asking(TEXT, options=TASK)
    found = await calibrate(
        ask, [request, replace(request, messages=asking(f"{TEXT} down").messages)], Compressor(), Evidence()
    )
    assert found.measured == []
    assert found.failed == found.asked - 1 == len(LEVELS)
