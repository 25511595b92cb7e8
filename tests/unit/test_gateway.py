"""What a model's name stands for in a gateway, and how the gateway is put together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kaizen.app import build, gateway
from kaizen.app.gateway import Names, gateway_settings, is_loopback, layers_of, readiness
from kaizen.core.context import Context, Run
from kaizen.core.errors import Denied, NotFound, Unavailable
from kaizen.core.protocols import Allow, Ask, Decision, Deny, Embeddings, Need
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Usage
from kaizen.core.scope import LOCAL, Scope
from kaizen.ledger.ledger import Ledger
from kaizen.programs.calls import Suspension
from kaizen.programs.embed import Embedding
from kaizen.settings import Settings, load_settings
from kaizen.stores.memory import MemoryStore
from kaizen.testing.scripted import ScriptedProvider


def settings(folder: Path, **more: Any) -> Settings:
    tree: dict[str, Any] = {
        "model": "mine/large",
        "aliases": {"fast": "mine/small"},
        "providers": {"mine": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
        "models": {"mine/large": {}, "mine/twin": {}, "ollama/twin": {}},
        "home": str(folder / "home"),
    }
    return load_settings(folder, {}, tree | more)


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("mine/large", "mine/large"),
        ("mine/never-heard-of", "mine/never-heard-of"),
        ("fast", "mine/small"),
        ("default", "mine/large"),
        ("large", "mine/large"),
        ("embedded/smollm2-135m", "embedded/smollm2-135m"),
    ],
)
def test_what_a_name_stands_for(tmp_path: Path, name: str, ref: str) -> None:
    assert Names(settings(tmp_path)).resolve(name, "openai") == ref


def test_a_vendors_own_names_stand_for_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    names = Names(settings(tmp_path))
    assert names.resolve("gpt-4o-mini", "openai") == "openai/gpt-4o-mini"
    with pytest.raises(NotFound, match="no model is called 'claude-x'"):
        names.resolve("claude-x", "anthropic")
    with pytest.raises(NotFound, match="the provider 'anthropic' has no key"):
        names.resolve("anthropic/claude-x", "anthropic")


@pytest.mark.parametrize("name", ["", "twin-of-two", "nobody/x", "mine/"])
def test_a_name_that_stands_for_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        Names(settings(tmp_path)).resolve(name, "openai")


def test_models_are_listed_with_their_aliases(tmp_path: Path) -> None:
    found = {model.ref: model for model in Names(settings(tmp_path)).models()}
    assert found["mine/small"].aliases == ("fast",)
    assert found["mine/large"].kind == "openai"


def test_the_exact_cache_is_on_unless_it_is_switched_off(tmp_path: Path) -> None:
    assert gateway_settings(settings(tmp_path)).inference.exact.enabled is True
    off = settings(tmp_path, inference={"exact": {"enabled": False}})
    assert gateway_settings(off) is off
    assert "exact" not in layers_of(off)
    assert {"exact", "meter", "failover"} <= layers_of(settings(tmp_path))


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.org", False)],  # noqa: S104 - what is tested
)
def test_which_addresses_are_this_machines_own(host: str, local: bool) -> None:
    assert is_loopback(host) is local


async def test_a_provider_of_ones_own_is_ready_and_a_store_that_fails_is_not(tmp_path: Path) -> None:
    class Broken(MemoryStore):
        async def record(self, scope: Scope, record_id: str, /) -> Record | None:
            raise OSError("gone")

    own = settings(tmp_path, providers={"mine": ScriptedProvider([])}, models={}, aliases={})
    good, bad = build(own, store=MemoryStore()), build(own, store=Broken())
    assert (await readiness(good)).ready
    state = await readiness(bad)
    assert (state.ready, state.parts["store"]) == (False, "does not answer (OSError)")
    await good.close()
    await bad.close()


async def test_what_is_not_configured_is_not_ready(tmp_path: Path) -> None:
    app = build(settings(tmp_path, model="nobody/x", models={}, aliases={}), store=MemoryStore())
    assert (await readiness(app)).parts["provider nobody"] == "is not configured"
    await app.close()
    app = build(settings(tmp_path, model="embedded/nothing", models={}, aliases={}), store=MemoryStore())
    assert (await readiness(app)).parts["provider embedded"] == "has no weights for embedded/nothing"
    await app.close()


@pytest.mark.parametrize(("installed", "state"), [(True, "ok"), (False, "is not installed")])
async def test_litellm_has_no_address_to_be_asked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, state: str
) -> None:
    monkeypatch.setattr(gateway, "find_spec", lambda name: object() if installed else None)
    app = build(settings(tmp_path, model="litellm/vertex_ai/gemini", models={}, aliases={}), store=MemoryStore())
    ready = await readiness(app)
    assert (ready.parts["provider litellm"], ready.ready) == (state, installed)
    await app.close()


# -- embedding as a call ---


@dataclass
class Rule:
    """A policy that says one thing, and the lease it gives."""

    says: Decision | None = None
    settled: list[Need] = field(default_factory=list[Need])
    needs: list[Need | None] = field(default_factory=list[Need | None])

    async def decide(self, ctx: Context, action: str, target: str, need: Need | None = None, /) -> Decision:
        self.needs.append(need)
        return self.says or Allow(self)

    async def settle(self, used: Need, /) -> None:
        self.settled.append(used)


class Points:
    """An embedder; a text says how it goes."""

    async def embed(self, scope: Scope, texts: Sequence[str], /) -> Embeddings:
        if texts[0] == "fail":
            raise Unavailable("gone")
        if texts[0] == "odd":
            raise ZeroDivisionError
        if texts[0] == "wait":
            await asyncio.sleep(60)
        return Embeddings("m/e", 1, b"\0\0\0\0" * len(texts), Usage(tokens_in=3))


def embedding(rule: Rule | None = None) -> tuple[Embedding, Context, Ledger]:
    ledger = Ledger(MemoryStore(), b"k" * 32)
    made = Embedding({"m/e": Points}, ledger=ledger, policy=rule, cost=lambda _, usage: usage.tokens_in * 0.5)
    runtime: Any = None
    return made, Context(Run(runtime=runtime, scope=LOCAL, run_id="r1", principal="key:1", lone=True)), ledger


async def kept(ledger: Ledger) -> list[Record]:
    return [one async for one in ledger.records(LOCAL, RecordQuery())]


async def test_embedding_is_decided_counted_and_recorded() -> None:
    rule = Rule()
    embed, ctx, ledger = embedding(rule)
    assert (await embed(ctx, "m/e", ["a", "é"])).usage.tokens_in == 3
    assert (rule.needs, rule.settled) == ([Need(1, 3, 1.5)], [Need(1, 3, 1.5)])
    [record] = await kept(ledger)
    assert (record.id, record.ref, record.tokens_in, record.cost_usd, record.status) == ("r1", "m/e", 3, 1.5, "ok")
    assert embed.refs == ("m/e",)


@pytest.mark.parametrize(("text", "code"), [("fail", "unavailable"), ("odd", "exception")])
async def test_a_failure_is_recorded_and_its_lease_settled(text: str, code: str) -> None:
    rule = Rule()
    embed, ctx, ledger = embedding(rule)
    with pytest.raises((Unavailable, ZeroDivisionError)):
        await embed(ctx, "m/e", [text])
    [record] = await kept(ledger)
    assert (record.status, record.error_code, rule.settled) == ("error", code, [Need(1, 0, 0.0)])


async def test_a_call_that_is_cancelled_is_recorded_and_charged_in_full_since_nobody_knows() -> None:
    rule = Rule()
    embed, ctx, ledger = embedding(rule)
    task = asyncio.create_task(embed(ctx, "m/e", ["wait"]))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.status for one in await kept(ledger)] == ["cancelled"]
    assert rule.settled == rule.needs == [Need(1, 4, 2.0)]


@pytest.mark.parametrize(("says", "error"), [(Deny("no"), Denied), (Ask("may it?"), Suspension)])
async def test_policy_is_asked_first(says: Decision, error: type[BaseException]) -> None:
    embed, ctx, ledger = embedding(Rule(says))
    with pytest.raises(error):
        await embed(ctx, "m/e", ["a"])
    assert await kept(ledger) == []


async def test_an_embedder_that_there_is_not() -> None:
    embed, ctx, _ = embedding()
    with pytest.raises(NotFound, match="there are m/e"):
        await embed(ctx, "m/x", ["a"])
