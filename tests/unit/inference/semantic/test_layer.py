"""The layer round a scripted model: what it compares, gives, keeps and survives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.protocols import Embeddings
from kaizen.core.request import Chunk, Decoding, Options, OutputSchema, Reply, Request, ToolSpec, Usage
from kaizen.core.scope import LOCAL, Scope
from kaizen.inference.prices import Price, PriceTable
from kaizen.inference.semantic import EvidenceBook, Questions, Rules, SemanticCache
from kaizen.inference.semantic import layer as semantic_layer
from kaizen.inference.semantic.evidence import Sample
from kaizen.inference.semantic.journal import Journal
from kaizen.inference.semantic.likeness import FEATURES
from kaizen.providers.embed.wordllama import WordLlamaEmbedder
from kaizen.stores.cache.memory import MemoryCache
from kaizen.stores.vectors import MemoryVectors
from tests.unit.inference.calls import Scripted

EMBEDDER = WordLlamaEmbedder()
PRICES = PriceTable({"m/m": Price.per_mtok(1.0, 2.0)}, {})
ASKED, AGAIN = "How do I reset my password?", "Please tell me how I can reset my password"
ANSWER = Reply(model="m/m", text="Open the settings.", usage=Usage(tokens_in=1000, tokens_out=100))


def request(text: str = ASKED, **values: Any) -> Request:
    messages = values.pop("messages", (Message.of("system", "Help."), Message.of("user", text)))
    return replace(Request(scope=LOCAL, model="m/m", messages=messages), **values)


async def proved(book: EvidenceBook, task: str = "*", scope: Scope = LOCAL) -> None:
    """Evidence enough for anything."""
    less_alike = {"one": 1.0, "apart": 0.3, "gist_apart": 0.3, "rest": 0.3, "short": 0.4}
    features = tuple(less_alike.get(name, 0.0) for name in FEATURES)
    evidence = await book.evidence(scope)
    for number in range(400):
        evidence.add(Sample(f"{task}-{number}", f"{task}-{number}", task, features, agreed=True))


class House:
    """A layer, and what it stands on."""

    def __init__(self, *acts: Any, cache: MemoryCache | None = None, **rules: Any) -> None:
        self.model = Scripted(*(acts or (ANSWER,)), letters=2)
        self.cache, self.index = cache or MemoryCache(1 << 22), MemoryVectors()
        self.book = EvidenceBook(self.cache)
        self.judge: Callable[[Scope, Reply, Reply], Any] | None = None
        self.rules = Rules(**{"explore": 0.0} | rules)
        self.drawn = 0.5

    @property
    def questions(self) -> Questions:
        return Questions(cache=self.cache, index=self.index, embedder=EMBEDDER, book=self.book)

    def layer(self, questions: Questions | None = None) -> SemanticCache:
        return SemanticCache(
            self.model,
            questions=questions or self.questions,
            prices=PRICES,
            rules=self.rules,
            judge=self.judge,
            draw=lambda: self.drawn,
        )


async def tiers(layer: SemanticCache, *requests: Request) -> list[str]:
    return [(await layer.complete(one)).tier for one in requests]


async def test_without_evidence_it_asks_and_learns() -> None:
    house = House()
    layer = house.layer()
    assert await tiers(layer, request(), request(AGAIN)) == ["model", "model"]
    (sample,) = (await house.book.evidence(LOCAL)).samples
    assert (sample.agreed, sample.task) == (True, "*")
    assert house.book.counts(LOCAL).unproven == 1


async def test_with_evidence_it_gives_the_earlier_answer() -> None:
    house = House()
    await proved(house.book)
    layer = house.layer()
    await layer.complete(request())
    hit = await layer.complete(request(AGAIN))
    assert (hit.tier, hit.text, hit.cost_usd, hit.attempts) == ("semantic", ANSWER.text, 0.0, 0)
    assert hit.usage == ANSWER.usage
    (stage,) = hit.stages
    assert stage.saved_usd == pytest.approx((1000 + 200) / 1e6)
    assert stage.ms > 0
    assert set(stage.note) == {"similarity", "bound", "explored"}
    assert house.model.calls == 1


async def test_the_same_words_need_no_evidence() -> None:
    house = House()
    layer = house.layer()
    assert await tiers(layer, request(), request(f"  {ASKED}\n")) == ["model", "semantic"]
    assert await tiers(layer, request(options=Options(exact=False))) == ["model"]  # who wants no kept answer gets none


async def test_a_fresh_answer_that_differs_is_evidence_against() -> None:
    house = House(ANSWER, replace(ANSWER, text="Close the window."))
    layer = house.layer()
    await layer.complete(request())
    second = await layer.complete(request(AGAIN))
    assert second.stages[-1].note["agreed"] is False
    assert second.stages[-1].saved_usd == 0.0
    assert [one.agreed for one in (await house.book.evidence(LOCAL)).samples] == [False]


async def test_a_share_of_the_hits_is_asked_anew() -> None:
    house = House(explore=0.1)
    await proved(house.book)
    layer = house.layer()
    await layer.complete(request())
    house.drawn = 0.05
    explored = await layer.complete(request(AGAIN))
    assert (explored.tier, explored.stages[-1].note["explored"], explored.stages[-1].note["agreed"]) == (
        "model",
        True,
        True,
    )
    assert house.book.counts(LOCAL).explored == 1
    house.drawn = 0.15
    assert await tiers(layer, request("Tell me how can I reset my password")) == ["semantic"]


OTHERS: Sequence[tuple[str, dict[str, Any]]] = [
    ("system", {"messages": (Message.of("system", "Be rude."), Message.of("user", AGAIN))}),
    (
        "turns",
        {
            "messages": (
                Message.of("system", "Help."),
                Message.of("user", "Hi"),
                Message.of("assistant", "Hello"),
                Message.of("user", AGAIN),
            )
        },
    ),
    ("model", {"model": "m/other"}),
    ("tools", {"tools": (ToolSpec("t", "d", {}),)}),
    ("schema", {"output": OutputSchema("o", {"type": "object"})}),
    ("decoding", {"decoding": Decoding(temperature=0.0)}),
    ("tags", {"options": Options(tags=("document:1",))}),
    ("policy", {"options": Options(routing="guided", quality="high")}),
    ("scope", {"scope": Scope("other", "dev")}),
]


@pytest.mark.parametrize("values", [values for _, values in OTHERS], ids=[name for name, _ in OTHERS])
async def test_what_differs_beside_the_question_is_another_space(values: dict[str, Any]) -> None:
    house = House()
    await proved(house.book)
    await proved(house.book, scope=Scope("other", "dev"))
    layer = house.layer()
    await layer.complete(request())
    assert await tiers(layer, request(AGAIN, **values)) == ["model"]
    assert await tiers(layer, request(AGAIN)) == ["semantic"]


IMAGE = Media("image", "image/png", data="aGk=")


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (Message("user", (Text(ASKED), IMAGE)),),
        (Message("user", (IMAGE,)), Message.of("assistant", "Nice"), Message.of("user", ASKED)),
        (Message.of("user", ASKED), Message.of("assistant", "so")),
        (
            Message.of("user", ASKED),
            Message("assistant", (ToolCall("1", "t", "{}"),)),
            Message("tool", (ToolResult("1", "x"),)),
        ),
        (Message.of("user", "   "),),
        (Message.of("user", "long " * 500),),
    ],
)
async def test_what_is_no_plain_question_is_passed_on(messages: tuple[Message, ...]) -> None:
    house = House()
    layer = house.layer()
    assert await tiers(layer, *[request(messages=messages)] * 2) == ["model", "model"]
    assert (await house.cache.size(LOCAL)).entries == 0


async def test_wishes_are_honoured() -> None:
    house = House()
    await proved(house.book)
    layer = house.layer()
    assert await tiers(layer, request(options=Options(semantic=False)), request(AGAIN)) == ["model", "model"]
    assert await tiers(layer, request(AGAIN, options=Options(semantic=False))) == ["model"]
    assert await tiers(layer, request(AGAIN, options=Options(refresh=True))) == ["model"]
    assert await tiers(layer, request(options=Options(ttl=1e-9))) == ["model"]
    assert await tiers(layer, request(options=Options(ttl=100))) == ["semantic"]


@pytest.mark.parametrize(
    "reply", [replace(ANSWER, finish="length"), replace(ANSWER, finish="content_filter"), replace(ANSWER, tier="exact")]
)
async def test_what_is_no_whole_answer_of_a_model_is_not_kept(reply: Reply) -> None:
    house = House(reply)
    layer = house.layer()
    assert await tiers(layer, request(), request()) == [reply.tier] * 2
    assert house.model.calls == 2


async def test_an_answer_that_is_gone_takes_its_question_along() -> None:
    house = House()
    await proved(house.book)
    layer = house.layer()
    await layer.complete(request(options=Options()))
    assert await house.cache.invalidate(LOCAL, ["model:m/m"]) == 1
    assert await tiers(layer, request(AGAIN)) == ["model"]
    await house.cache.invalidate(LOCAL, ["model:m/m"])
    assert await tiers(layer, request()) == ["model"]  # the same words, too
    assert await tiers(layer, request(AGAIN)) == ["semantic"]


async def test_an_answer_made_of_what_was_invalidated_meanwhile_is_given_and_not_kept() -> None:
    house = House()
    layer = house.layer()
    invalidating = house.cache.invalidate

    def act() -> None:
        asyncio.get_running_loop().create_task(invalidating(LOCAL, ["document:1"]))

    house.model.acts = (act, ANSWER)
    house.model.wait = 0.01

    async def first() -> None:
        await layer.complete(request(options=Options(tags=("document:1",))))

    task = asyncio.ensure_future(first())
    await asyncio.sleep(0.005)
    await house.cache.invalidate(LOCAL, ["document:1"])
    await task
    assert await tiers(layer, request(options=Options(tags=("document:1",)))) == ["model"]


async def test_a_wrong_answer_s_cost_is_weighed_against_what_is_saved() -> None:
    house = House(wrong_usd={"medical": 10.0, "chat": 1e-6})
    for task in ("medical", "chat", "other"):
        await proved(house.book, task)
    layer = house.layer()
    for task, tier in (("medical", "model"), ("chat", "semantic"), ("other", "semantic")):
        options = Options(task=task)
        assert await tiers(layer, request(options=options), request(AGAIN, options=options)) == ["model", tier]
    assert house.book.counts(LOCAL).too_costly == 1


async def test_a_risk_that_can_not_be_weighed_is_not_taken() -> None:
    house = House(replace(ANSWER, model="unpriced/m"), wrong_usd={"*": 1.0})
    await proved(house.book)
    layer = house.layer()
    assert await tiers(layer, request(), request(AGAIN)) == ["model", "model"]


async def test_what_the_provider_bills_comes_before_the_table() -> None:
    house = House(replace(ANSWER, cost_usd=0.5))
    await proved(house.book)
    layer = house.layer()
    await layer.complete(request())
    assert (await layer.complete(request(AGAIN))).saved_usd == 0.5


async def test_a_price_that_has_to_be_read_is_read_off_the_loop() -> None:
    house = House(replace(ANSWER, model="nowhere/m"))
    await proved(house.book)
    layer = house.layer()
    await layer.complete(request())
    assert (await layer.complete(request(AGAIN))).saved_usd is None


async def test_types_of_tasks_prove_for_themselves() -> None:
    house = House()
    await proved(house.book, "billing")
    layer = house.layer()
    for task, tier in (("billing", "semantic"), ("other", "model")):
        await layer.complete(request(options=Options(task=task)))
        assert await tiers(layer, request(AGAIN, options=Options(task=task))) == [tier]


async def test_a_judge_of_one_s_own_decides_what_agrees() -> None:
    house = House()

    async def judge(scope: Scope, one: Reply, other: Reply) -> bool | None:
        return None if scope == LOCAL else one is other

    house.judge = judge
    layer = house.layer()
    await layer.complete(request())
    assert (await layer.complete(request(AGAIN))).stages[-1].note["agreed"] is None
    assert len(await house.book.evidence(LOCAL)) == 0


# -- streams --------------------------------------------------------------------------------------


async def read(layer: SemanticCache, asked: Request) -> list[Chunk]:
    return [chunk async for chunk in layer.stream(asked)]


async def test_a_stream_is_kept_when_it_is_whole_and_a_hit_streams() -> None:
    house = House()
    await proved(house.book)
    layer = house.layer()
    first = await read(layer, request())
    assert [chunk.text for chunk in first] == ["a", "b", ""]
    second = await read(layer, request(AGAIN))
    assert [chunk.text for chunk in second] == [ANSWER.text, ""]
    reply = second[-1].reply
    assert reply is not None
    assert reply.tier == "semantic"
    assert reply.first_token_ms is not None
    assert (house.model.calls, house.model.closed) == (1, 1)


async def test_a_stream_that_is_left_is_closed_below_and_not_kept() -> None:
    house = House()
    layer = house.layer()
    stream = layer.stream(request())
    assert (await anext(stream)).text == "a"
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert house.model.closed == 1
    assert await tiers(layer, request()) == ["model"]


async def test_a_hit_without_text_has_one_chunk() -> None:
    calling = replace(ANSWER, text="", tool_calls=(ToolCall("1", "t", "{}"),), finish="tool_calls")
    house = House(calling)
    await proved(house.book)
    layer = house.layer()
    await read(layer, request())
    (chunk,) = await read(layer, request(AGAIN))
    assert chunk.reply is not None
    assert (chunk.reply.tool_calls, chunk.reply.first_token_ms) == (calling.tool_calls, None)


async def test_what_is_no_question_streams_past() -> None:
    house = House()
    chunks = await read(house.layer(), request(messages=(Message("user", (IMAGE,)),)))
    assert len(chunks) == 3


# -- what fails -----------------------------------------------------------------------------------


class Broken:
    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        raise RuntimeError("no embedder")


async def test_whatever_fails_is_a_miss(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_layer, "_REST_S", 0.0)
    house = House()
    broken = Questions(cache=house.cache, index=house.index, embedder=Broken(), book=house.book)
    layer = house.layer(broken)
    assert await tiers(layer, request(), request()) == ["model", "model"]
    assert house.book.counts(LOCAL).failures == 2
    assert [record.message for record in caplog.records] == [
        "the semantic cache failed, calls go on without it: no embedder"
    ]


async def test_after_a_failure_no_call_waits_for_it_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    house, asked = House(), 0

    class Mending:
        async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise RuntimeError("out of reach")
            return await EMBEDDER.embed(scope, texts)

    monkeypatch.setattr(semantic_layer, "_REST_S", 0.05)
    layer = house.layer(Questions(cache=house.cache, index=house.index, embedder=Mending(), book=house.book))
    assert await tiers(layer, request(), request(), request()) == ["model"] * 3
    assert (asked, house.book.counts(LOCAL).failures) == (1, 1)
    await asyncio.sleep(0.06)
    assert await tiers(layer, request(), request()) == ["model", "semantic"]


async def test_an_answer_that_can_not_be_kept_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_layer, "_REST_S", 0.0)

    class Full(MemoryCache):
        async def put(self, *args: Any, **kwargs: Any) -> None:
            raise OSError("full")

    house = House(cache=Full(1 << 20))
    assert await tiers(house.layer(), request(), request()) == ["model", "model"]
    assert house.book.counts(LOCAL).failures == 2


async def test_an_entry_that_can_not_be_read_is_dropped() -> None:
    house = House()
    await proved(house.book)
    layer = house.layer()
    await layer.complete(request())
    questions = house.questions
    question = await questions.question(request(), ASKED)
    await house.cache.put(LOCAL, question.key, b'"x"\nrubbish')
    assert await tiers(layer, request(AGAIN)) == ["model"]


# -- restarts -------------------------------------------------------------------------------------


async def test_another_process_finds_what_was_kept() -> None:
    house = House()
    await proved(house.book)
    await house.layer().complete(request())
    later = House(cache=house.cache)
    await proved(later.book)
    assert await tiers(later.layer(), request(AGAIN)) == ["semantic"]
    assert later.model.calls == 0


async def test_a_text_that_is_no_longer_at_hand_is_read_with_its_answer() -> None:
    house = House()
    await proved(house.book)
    await house.layer().complete(request())
    # the index has the point, and a new process's memory has nothing; the journal was lost
    await house.cache.put(LOCAL, "semantic:pages", b"[]")
    layer = house.layer()
    assert await tiers(layer, request(AGAIN)) == ["semantic"]
    await house.cache.invalidate(LOCAL)
    assert await tiers(house.layer(), request("Tell me how can I reset my password")) == ["model"]


async def test_a_page_of_the_journal_ends_and_others_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.inference.semantic.journal._PAGE", 3)
    monkeypatch.setattr("kaizen.inference.semantic.journal._READ_EVERY_S", 0.0)
    cache = MemoryCache(1 << 20)
    one, other = Journal(cache, 100.0), Journal(cache, 100.0)
    for number in range(4):
        await one.add(LOCAL, (f"k{number}", "s", f"text {number}"), 10.0)
    assert [key for key, _, _ in await other.news(LOCAL)] == ["k0", "k1", "k2", "k3"]
    await one.add(LOCAL, ("k4", "s", "text 4"), 10.0)
    await other.add(LOCAL, ("k5", "s", "text 5"), 10.0)
    assert [key for key, _, _ in await other.news(LOCAL)] == ["k4"]
    assert [key for key, _, _ in await one.news(LOCAL)] == ["k5"]
    assert list(await one.news(Scope("other", "dev"))) == []


async def test_a_line_that_does_not_fit_its_text_is_not_taken_in() -> None:
    house = House()
    await proved(house.book)
    await Journal(house.cache, 100.0).add(LOCAL, ("semantic:forged", "space", ASKED), 10.0)
    assert await tiers(house.layer(), request(AGAIN)) == ["model"]
    assert house.book.counts(LOCAL).misses == 1
