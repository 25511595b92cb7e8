"""The semantic cache, switched on and off: what a real server was asked, and what was stored."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaizen import signature
from kaizen.app import App, build
from kaizen.app.semantic import make_book
from kaizen.core.ids import new_id
from kaizen.core.message import Message
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Options, Reply, Request
from kaizen.core.scope import Scope
from kaizen.settings import load_settings
from kaizen.testing.fault_server import FaultServer

Make = Callable[..., App]
# 3 over the budget is how many pieces of evidence it takes: 60 here, 300 at the default of 1 %.
BUDGET = 0.05
ENOUGH = 62
COST = (20 * 10 + 7 * 30) / 1e6
THINGS = [
    "password",
    "invoice",
    "address",
    "subscription",
    "card",
    "account",
    "voucher",
    "profile",
    "ticket",
    "licence",
]
DEEDS = ["reset", "print", "change", "cancel", "renew", "share", "restore", "verify", "rename", "export"]
TOPICS = [(deed, thing) for deed in DEEDS for thing in THINGS]


def asked(deed: str, thing: str) -> str:
    return f"How do I {deed} my {thing}?"


def again(deed: str, thing: str) -> str:
    return f"Please tell me how I can {deed} my {thing}"


def told(body: Any) -> str:
    """The same for the same deed and thing, however they were asked for."""
    words = set(body["messages"][-1]["content"].lower().strip("?").split())
    return f"Topic {' '.join(sorted(words.intersection([*DEEDS, *THINGS, 'on', 'off'])))}."


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(told) as running:
        yield running


@pytest.fixture
def app(server: FaultServer, tmp_path: Path) -> Make:
    def make(on: bool = True, tenant: str = "acme", tree: Any = None, **more: Any) -> App:
        semantic = {"enabled": on, "false_hits": BUDGET, "explore": 0.0} | more
        settings = {
            "model": "mine/large",
            "tenant": tenant,
            "home": str(tmp_path / "home"),
            "providers": {"mine": {"kind": "openai", "base_url": server.base_url, "api_key": "k"}},
            "models": {"mine/large": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0}},
            "inference": {"attempts": 1, "semantic": semantic},
        }
        return build(load_settings(tmp_path, {}, settings | (tree or {})))

    return make


async def ask(app: App, text: str, scope: Scope | None = None, **options: Any) -> Reply:
    messages = (Message.of("system", "You help customers."), Message.of("user", text))
    options.setdefault("exact", None)
    request = Request(scope=scope or app.scope, model="mine/large", messages=messages, options=Options(**options))
    return await app.provider.complete(request)


async def gather(app: App, topics: list[tuple[str, str]], scope: Scope | None = None) -> None:
    for topic in topics:
        await ask(app, asked(*topic), scope)
        await ask(app, again(*topic), scope)


async def records(app: App) -> list[Record]:
    return [one async for one in app.ledger.records(app.scope, RecordQuery()) if one.kind == "model"]


async def test_off_it_asks_and_on_it_answers_after_enough_evidence(app: Make, server: FaultServer) -> None:
    topics = TOPICS[: ENOUGH + 10]
    off = app(on=False)
    await gather(off, topics)
    assert server.count == 2 * len(topics)
    await off.close()

    on = app()
    await gather(on, topics[:ENOUGH])
    learnt = server.count - 2 * len(topics)
    assert 2 * ENOUGH - 4 <= learnt <= 2 * ENOUGH  # while there is little evidence, every question is asked
    for topic in topics[ENOUGH:]:
        before = server.count
        first = await ask(on, asked(*topic))
        assert (first.tier, server.count) == ("model", before + 1)
        second = await ask(on, again(*topic))
        assert (second.tier, second.text, server.count) == ("semantic", first.text, before + 1)
    await on.close()


async def test_a_hit_says_what_it_saved_and_how_sure_it_is(app: Make) -> None:
    on = app()
    await gather(on, TOPICS[:ENOUGH])
    learning = await ask(on, again(*TOPICS[ENOUGH]))
    assert [one.note["explored"] for one in learning.stages if one.layer == "semantic"] in ([], [True])
    await ask(on, asked(*TOPICS[75]))
    hit = await ask(on, again(*TOPICS[75]))
    (stage,) = hit.stages
    assert (hit.tier, hit.cost_usd, stage.layer, stage.note["explored"]) == ("semantic", 0.0, "semantic", False)
    assert stage.saved_usd == pytest.approx(COST)
    assert 0.0 < stage.note["bound"] <= BUDGET
    assert 0.7 < stage.note["similarity"] < 1.0
    await on.close()


async def test_what_a_program_asks_is_recorded_with_its_tier(app: Make, server: FaultServer) -> None:
    server.reply = lambda body: f'{{"answer": "{told(body)}"}}'
    on, helps = app(), signature("question -> answer")
    for topic in TOPICS[: ENOUGH + 1]:
        await on.run(helps, {"question": asked(*topic)})
        last = await on.run(helps, {"question": again(*topic)})
    assert (last.record.cache_tier, last.record.cost_usd, last.record.attempts) == ("semantic", 0.0, 0)
    kept = sorted(await records(on), key=lambda one: one.id)
    assert len(kept) == 2 * (ENOUGH + 1)
    assert (kept[-1].cache_tier, kept[-1].saved_usd, kept[-2].cache_tier) == ("semantic", pytest.approx(COST), "model")
    assert kept[-1].stages[0].layer == "semantic"
    await on.close()


async def test_opposites_are_asked_whatever_the_evidence(app: Make, server: FaultServer) -> None:
    on = app()
    await gather(on, TOPICS[:ENOUGH])
    one = await ask(on, "How do I turn on dark mode?")
    other = await ask(on, "How do I turn off dark mode?")
    assert (one.tier, other.tier) == ("model", "model")
    assert one.text != other.text
    await on.close()


async def test_a_restart_keeps_evidence_and_questions(app: Make, server: FaultServer) -> None:
    first = app()
    await gather(first, TOPICS[:ENOUGH])
    await ask(first, asked(*TOPICS[70]))
    await first.close()
    before = server.count
    second = app()
    assert (await ask(second, again(*TOPICS[70]))).tier == "semantic"
    assert server.count == before
    stats = await make_book(second.settings, second.cache).stats(second.scope)
    assert stats["budget"] == BUDGET
    assert stats["tasks"]["*"]["evidence"] >= ENOUGH - 1
    assert 0.0 < stats["tasks"]["*"]["bound"] <= BUDGET
    assert 0.0 < stats["tasks"]["*"]["share"] < 1.0
    await second.close()


@pytest.mark.parametrize("together", [True, False])
async def test_with_a_database_what_one_app_keeps_another_finds_at_once(
    app: Make, server: FaultServer, postgres_url: str, together: bool
) -> None:
    """Without one, it takes in what others kept every ten seconds."""
    tenant = new_id()
    storage = {"storage": {"database_url": postgres_url}} if together else {}
    one, other = app(tenant=tenant, tree=storage), app(tenant=tenant, tree=storage)
    await ask(other, "Where is my parcel?")  # by now it has looked for what others kept
    first = await ask(one, asked(*TOPICS[0]))
    same = await ask(other, asked(*TOPICS[0]).replace(" my ", "  my "))
    assert (same.tier, server.count) == (("semantic", 2) if together else ("model", 3))
    assert same.text == first.text
    # another tenant finds nothing of it
    assert (await ask(other, asked(*TOPICS[0]), Scope(f"{tenant}-too", "dev"))).tier == "model"
    await one.close()
    await other.close()


async def test_two_caches_do_not_drop_each_others_questions_from_one_database(
    app: Make, server: FaultServer, postgres_url: str, tmp_path: Path
) -> None:
    tenant, storage = new_id(), {"storage": {"database_url": postgres_url}}
    one = app(tenant=tenant, tree=storage)
    other = app(tenant=tenant, tree=storage | {"home": str(tmp_path / "elsewhere")})
    for where in (one, other, one, other):
        await ask(where, asked(*TOPICS[0]))
    assert server.count == 2  # each its own answer, kept in its own place
    await one.close()
    await other.close()


async def test_a_database_out_of_reach_costs_hits_and_no_answer(app: Make, server: FaultServer) -> None:
    on = app(tree={"storage": {"database_url": "postgresql://nobody@127.0.0.1:9/none"}})
    for _ in range(2):
        messages = (Message.of("user", "Where is my parcel?"),)
        request = Request(scope=on.scope, model="mine/large", messages=messages, options=Options(exact=False))
        assert (await on.provider.complete(request)).tier == "model"
    assert server.count == 2
    assert on.counted.semantic is not None
    assert on.counted.semantic.totals()["failures"] >= 1


async def test_invalidation_refresh_and_refusal_are_honoured(app: Make, server: FaultServer) -> None:
    on = app()
    await gather(on, TOPICS[:ENOUGH])
    topic = TOPICS[80]
    await ask(on, asked(*topic), tags=("document:7f",))
    assert (await ask(on, again(*topic), tags=("document:8a",))).tier == "model"  # of another document
    assert (await ask(on, again(*topic), tags=("document:7f",), semantic=False)).tier == "model"
    assert (await ask(on, again(*topic), tags=("document:7f",))).tier == "semantic"
    assert (await ask(on, asked(*topic), tags=("document:7f",), refresh=True)).tier == "model"
    assert await on.cache.invalidate(on.scope, ["document:7f"]) >= 1
    before = server.count
    assert (await ask(on, again(*topic), tags=("document:7f",))).tier == "model"
    assert server.count == before + 1
    await on.close()


async def test_tenants_share_neither_answers_nor_evidence(app: Make, server: FaultServer) -> None:
    """Fuzz: two tenants and two environments ask the same questions in a random order."""
    on, rng = app(), random.Random(11)
    scopes = [Scope("acme", "prod"), Scope("acme", "dev"), Scope("other", "prod")]
    server.reply = lambda body: f"{told(body)} {body['messages'][0]['content']}"
    kept: dict[Scope, set[str]] = {scope: set() for scope in scopes}
    await gather(on, TOPICS[:ENOUGH], scopes[0])
    crossed, hits = 0, dict.fromkeys(scopes, 0)
    for _ in range(240):
        scope, topic = rng.choice(scopes), rng.choice(TOPICS[70:80])
        text = rng.choice([asked, again])(*topic)
        before = server.count
        reply = await ask(on, text, scope)
        if server.count == before:
            hits[scope] += 1
            crossed += reply.text not in kept[scope]
        kept[scope].add(reply.text)
    assert crossed == 0
    assert all(hits.values())  # each by its own answers; but only who has evidence is given a paraphrase's
    book = make_book(on.settings, on.cache)
    shares = [(await book.stats(scope))["tasks"].get("*", {"share": 0.0})["share"] for scope in scopes]
    assert shares[0] > 0.0
    assert shares[1:] == [0.0, 0.0]
    await on.close()


async def test_a_hit_streams_and_a_stream_is_kept(app: Make, server: FaultServer) -> None:
    on = app()
    await gather(on, TOPICS[:ENOUGH])

    async def read(text: str) -> tuple[str, Reply | None]:
        messages = (Message.of("system", "You help customers."), Message.of("user", text))
        chunks = [
            chunk async for chunk in on.provider.stream(Request(scope=on.scope, model="mine/large", messages=messages))
        ]
        return "".join(chunk.text for chunk in chunks), chunks[-1].reply

    text, reply = await read(asked(*TOPICS[90]))
    assert reply is not None
    assert (reply.tier, reply.text) == ("model", text)
    before = server.count
    other, hit = await read(again(*TOPICS[90]))
    assert hit is not None
    assert (hit.tier, hit.text, other, server.count) == ("semantic", text, text, before)
    assert hit.first_token_ms is not None
    await on.close()
