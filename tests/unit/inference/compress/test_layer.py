from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.errors import BudgetExceeded, Unavailable
from kaizen.core.message import Message, ToolCall, ToolResult
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Options, OutputSchema, Reply, Request, Stage, ToolSpec, Usage
from kaizen.core.scope import LOCAL
from kaizen.inference.compress.compressor import Compressor
from kaizen.inference.compress.evidence import Evidence
from kaizen.inference.compress.layer import Compress, Risk, task_of
from kaizen.inference.compress.prefix import Prefixes
from kaizen.inference.prices import Price, PriceTable
from kaizen.testing.scripted import ScriptedProvider
from tests.unit.inference.compress.requests import GOLD, QUESTION, EveryWord, WordEmbedder, asking, passages

TEXT = f"Context:\n{passages()}\n\nQuestion: {QUESTION}"
REQUEST = asking(TEXT, options=Options(task="lookup"))


def reading(request: Request) -> Reply:
    """Answers with what it was sent, a token a word."""
    words = sum(len(one.text.split()) for one in request.messages)
    text = "1871" if GOLD.strip() in request.messages[-1].text else "unknown"
    return Reply(model=request.model, text=text, usage=Usage(tokens_in=words, tokens_out=1))


def layer(
    inner: Provider, *, level: int = 0, embedder: WordEmbedder | None = None, sample: float = 0.0, **more: Any
) -> Compress:
    evidence = more.pop("evidence", None) or proved(level)
    return Compress(
        inner,
        compressor=Compressor(embedder),
        evidence=evidence,
        prices=more.pop("prices", PriceTable({"mine/large": Price.per_mtok(10.0, 30.0)}, {})),
        risk=Risk(limit=0.2, sample=sample),
        draw=lambda: 0.5,
        **more,
    )


def proved(level: int) -> Evidence:
    evidence = Evidence()
    for number in range(1, level + 1):
        for _ in range(40):
            evidence.add(LOCAL, "mine/large", "lookup", number, agreed=True)
    return evidence


def stage_of(reply: Reply) -> Stage:
    (stage,) = reply.stages
    assert stage.layer == "compress"
    assert stage.ms >= 0
    return stage


async def streamed(provider: Provider, request: Request) -> Reply:
    chunks = [chunk async for chunk in provider.stream(request)]
    assert all(chunk.reply is None for chunk in chunks[:-1])
    assert chunks[-1].reply is not None
    return chunks[-1].reply


async def completed(provider: Provider, request: Request) -> Reply:
    return await provider.complete(request)


@pytest.mark.parametrize("ask", [completed, streamed])
async def test_the_strongest_level_that_is_safe_is_taken(ask: Callable[[Provider, Request], Any]) -> None:
    inner = ScriptedProvider(reading)
    lengths: list[int] = []
    for level in range(5):
        reply = await ask(layer(inner, level=level), REQUEST)
        lengths.append(len(inner.requests[-1].messages[-1].text))
        assert reply.text == "1871"
        if level:
            note = stage_of(reply).note
            assert note["level"] == ("light", "medium", "strong", "hard")[level - 1]
            assert note["before"] > note["after"] == reply.usage.tokens_in
        else:
            assert reply.stages == ()
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == len(TEXT)
    assert lengths[-1] < 0.5 * len(TEXT)


@pytest.mark.parametrize("ask", [completed, streamed])
async def test_a_caller_may_forbid_it(ask: Callable[[Provider, Request], Any]) -> None:
    inner = ScriptedProvider(reading)
    forbidden = replace(REQUEST, options=Options(task="lookup", compress=False))
    reply = await ask(layer(inner, level=4, sample=1.0), forbidden)
    assert inner.requests == [forbidden]
    assert reply.stages == ()


async def test_what_is_saved_is_counted_at_the_callers_own_price() -> None:
    reply = await layer(ScriptedProvider(reading), level=2).complete(REQUEST)
    stage = stage_of(reply)
    assert stage.saved_usd == pytest.approx((stage.note["before"] - stage.note["after"]) * 10e-6)
    whole = len(TEXT.split())
    assert stage.note["before"] == pytest.approx(whole, rel=0.05)
    unknown = await layer(ScriptedProvider(reading), level=2, prices=PriceTable({}, {})).complete(REQUEST)
    assert stage_of(unknown).saved_usd is None


async def test_tools_and_their_calls_count_among_what_was_sent() -> None:
    call = Message("assistant", (ToolCall("1", "look", '{"q": "lighthouse"}'),))
    result = Message("tool", (ToolResult("1", "nothing"),))
    tools = (ToolSpec("look", "looks " * 200, {}),)
    request = asking(TEXT, Message.of("user", "hi"), call, result, options=REQUEST.options, tools=tools)
    with_tools = stage_of(await layer(ScriptedProvider(reading), level=2).complete(request))
    without = stage_of(await layer(ScriptedProvider(reading), level=2).complete(replace(request, tools=())))
    saved = [one.note["before"] - one.note["after"] for one in (with_tools, without)]
    assert saved[0] < saved[1]


@pytest.mark.parametrize("sample", [0.0, 1.0])
async def test_an_embedder_that_fails_fails_no_call(sample: float) -> None:
    inner = ScriptedProvider(reading)
    broken = layer(inner, level=2, embedder=WordEmbedder(fails=True), sample=sample)
    reply = await broken.complete(REQUEST)
    assert inner.requests == [REQUEST]
    assert stage_of(reply).note["failed"] == Unavailable.code
    assert stage_of(reply).saved_usd == 0.0


async def test_a_sampled_call_gives_evidence_and_the_answer_to_the_whole_prompt() -> None:
    inner, evidence = ScriptedProvider(reading), proved(1)
    reply = await layer(inner, sample=0.6, evidence=evidence).complete(REQUEST)
    assert inner.count == 2
    assert REQUEST in inner.requests
    stage = stage_of(reply)
    assert reply.usage.tokens_in == stage.note["before"] + stage.note["after"]
    assert reply.attempts == 2
    assert stage.saved_usd == pytest.approx(-(stage.note["after"] * 10 + 30) * 1e-6)
    found = evidence.of(LOCAL, "mine/large", "lookup")
    assert (found[1].compared, found[2].compared, found[2].differed) == (40, 1, 0)


async def test_a_disagreement_is_kept_as_one() -> None:
    evidence = Evidence()
    inner = ScriptedProvider(lambda request: "yes" if request is REQUEST else "no")
    reply = await layer(inner, sample=1.0, evidence=evidence).complete(REQUEST)
    assert (reply.text, stage_of(reply).note["agreed"]) == ("yes", False)
    assert evidence.of(LOCAL, "mine/large", "lookup")[1].differed == 1


async def test_at_the_last_level_a_sample_asks_whether_it_still_holds() -> None:
    evidence = proved(4)
    await layer(ScriptedProvider(reading), sample=1.0, evidence=evidence).complete(REQUEST)
    assert evidence.of(LOCAL, "mine/large", "lookup")[4].compared == 41


@pytest.mark.parametrize(
    ("request_", "sample"),
    [
        (REQUEST, 0.5),  # the draw is not below it
        (replace(REQUEST, options=Options(task="lookup", cost_budget_usd=1.0)), 1.0),
        (replace(REQUEST, options=Options(task="lookup", latency_budget_ms=900)), 1.0),
        (asking("Hello there."), 1.0),  # nothing to take away
    ],
)
async def test_calls_that_can_not_or_must_not_be_doubled_are_asked_once(request_: Request, sample: float) -> None:
    inner = ScriptedProvider(reading)
    await layer(inner, sample=sample).complete(request_)
    assert inner.count == 1


async def test_a_probe_that_fails_is_only_no_evidence() -> None:
    evidence = Evidence()

    def answer(request: Request) -> Reply | Exception:
        return reading(request) if request is REQUEST else Unavailable("down")

    reply = await layer(ScriptedProvider(answer), sample=1.0, evidence=evidence).complete(REQUEST)
    assert (reply.text, reply.stages) == ("1871", ())
    assert evidence.of(LOCAL, "mine/large", "lookup") == {}


async def test_answers_of_two_models_say_nothing_of_the_prompt_and_each_costs_its_own_price() -> None:
    evidence = Evidence()
    prices = PriceTable({"mine/large": Price.per_mtok(10.0, 0.0), "mine/small": Price.per_mtok(1.0, 0.0)}, {})

    def answer(request: Request) -> Reply:
        return replace(reading(request), model="mine/large" if request is REQUEST else "mine/small", text="1871")

    reply = await layer(ScriptedProvider(answer), sample=1.0, evidence=evidence, prices=prices).complete(REQUEST)
    note = stage_of(reply).note
    assert (note["agreed"], evidence.of(LOCAL, "mine/large", "lookup")) == (None, {})
    assert reply.cost_usd == pytest.approx(note["before"] * 10e-6 + note["after"] * 1e-6)


async def test_where_only_the_shortened_prompt_is_answered_the_error_says_that_something_was_paid() -> None:
    def answer(request: Request) -> Reply | Exception:
        return Unavailable("down") if request is REQUEST else reading(request)

    with pytest.raises(Unavailable) as caught:
        await layer(ScriptedProvider(answer), sample=1.0).complete(REQUEST)
    assert caught.value.detail["billed"] is True
    with pytest.raises(Unavailable) as caught:
        await layer(ScriptedProvider(lambda _: Unavailable("down")), sample=1.0).complete(REQUEST)
    assert "billed" not in caught.value.detail


async def test_a_question_to_learn_from_that_is_refused_fails_nobodys_call() -> None:
    def answer(request: Request) -> Reply | Exception:
        return reading(request) if request is REQUEST else BudgetExceeded("the run's last call is taken")

    assert (await layer(ScriptedProvider(answer), sample=1.0).complete(REQUEST)).text == "1871"


async def test_costs_that_providers_report_are_added_up() -> None:
    inner = ScriptedProvider(lambda request: replace(reading(request), cost_usd=0.5))
    assert (await layer(inner, sample=1.0).complete(REQUEST)).cost_usd == 1.0


@pytest.mark.parametrize(
    ("request_", "level"),
    [
        (REQUEST, "words"),
        (replace(REQUEST, deadline=time.monotonic() + 3600), "words"),
        (replace(REQUEST, deadline=time.monotonic() + 5), "hard"),
        (replace(REQUEST, options=Options(task="lookup", latency_budget_ms=5000)), "hard"),
    ],
)
async def test_a_model_reads_only_for_callers_who_can_wait(request_: Request, level: str) -> None:
    reading_layer = Compress(
        ScriptedProvider(reading),
        compressor=Compressor(surprisal=EveryWord("the", "in", "was")),
        evidence=proved(5),
        prices=PriceTable({}, {}),
        risk=Risk(limit=0.2),
    )
    assert stage_of(await reading_layer.complete(request_)).note["level"] == level


async def test_a_long_prefix_is_marked_at_its_second_call() -> None:
    inner = ScriptedProvider(reading)
    marking = layer(inner, prefixes=Prefixes())
    request = asking("Hi.", Message.of("system", "Be exact. " * 600))
    first, second = [await marking.complete(request) for _ in range(2)]
    assert first.stages == ()
    assert list(stage_of(second).note["strategies"]) == ["prefix"]
    assert stage_of(second).saved_usd == 0.0
    assert "mark='5m'" in repr(inner.requests[1])


async def test_a_price_that_is_not_at_hand_is_looked_up() -> None:
    class Looked(PriceTable):
        def quote(self, ref: str) -> None:
            return None

        def look_up(self, ref: str) -> Any:
            return PriceTable({ref: Price.per_mtok(1.0, 1.0)}, {}).quote(ref)

    reply = await layer(ScriptedProvider(reading), level=1, prices=Looked({}, {})).complete(REQUEST)
    assert (stage_of(reply).saved_usd or 0) > 0


async def test_a_stream_is_closed_with_its_reader() -> None:
    ended: list[bool] = []

    class Endless:
        async def complete(self, request: Request, /) -> Reply:
            raise AssertionError

        async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
            try:
                while True:
                    yield Chunk("a")
            finally:
                ended.append(True)

    stream = layer(Endless()).stream(REQUEST)
    assert (await anext(aiter(stream))).text == "a"
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator
    assert ended == [True]


def test_calls_of_the_same_instructions_are_one_type_of_task() -> None:
    one, other = asking("a", Message.of("system", "s")), asking("b", Message.of("system", "s"))
    assert task_of(one) == task_of(other) != task_of(asking("a", Message.of("system", "t")))
    assert task_of(replace(one, output=OutputSchema("x", {}))) != task_of(one)
    assert task_of(REQUEST) == "lookup"
