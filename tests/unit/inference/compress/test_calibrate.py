from __future__ import annotations

from dataclasses import replace

from kaizen.core.errors import Unavailable
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
    assert len(asked) == found.asked == 3
    assert [row.agreement.compared for row in found.measured] == [1] * 4


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
