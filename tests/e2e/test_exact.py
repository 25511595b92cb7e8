"""The exact cache, switched on and off: what a real server was asked, and what was stored."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

from kaizen import Signature, context
from kaizen.app import App, build
from kaizen.core.errors import ConfigError, Unavailable
from kaizen.core.identity import Identity
from kaizen.core.ids import new_id
from kaizen.core.message import Message
from kaizen.core.record import Record, RecordQuery
from kaizen.core.request import Options, Reply, Request
from kaizen.core.scope import Scope
from kaizen.settings import load_settings
from kaizen.testing.fault_server import Fault, FaultServer, slow, status

Make = Callable[..., App]
MESSAGE = "Someone stole my card"
ON = {"exact": {"enabled": True}, "attempts": 1}
COST = (20 * 10 + 7 * 30) / 1e6


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer('{"team": "cards", "urgency": 5}') as running:
        yield running


@pytest.fixture
def settings(server: FaultServer, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": "mine/large",
        "tenant": new_id(),  # Redis and PostgreSQL are the session's
        "home": str(tmp_path / "home"),
        "providers": {"mine": {"kind": "openai", "base_url": server.base_url, "api_key": "k"}},
        "models": {"mine/large": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0}},
        "defaults": {"temperature": 0.0},
        "inference": ON,
    }


@pytest.fixture
def app(settings: dict[str, Any], tmp_path: Path) -> Make:
    return lambda **overrides: build(load_settings(tmp_path, {}, settings | overrides))


class Triage(Signature):
    """Name the team that owns a bank customer's message, and how urgent it is."""

    message: str = context.input("what the customer wrote")
    team: Literal["cards", "transfers", "accounts"] = context.output("the team that owns it")
    urgency: int = context.output("1 can wait .. 5 now", ge=1, le=5)


async def records(app: App, kind: str = "model", scope: Scope | None = None) -> list[Record]:
    return [one async for one in app.ledger.records(scope or app.scope, RecordQuery()) if one.kind == kind]


async def ask(app: App, text: str = "hello", scope: Scope | None = None, **options: Any) -> Reply:
    """A lone call, as the gateway makes it."""
    scope = scope or app.scope
    messages = (Message.of("user", text),)
    request = Request(scope=scope, model="mine/large", messages=messages, options=Options(**{"exact": True, **options}))
    return await app.context(Identity(scope=scope, principal="key:1")).complete(request)


@pytest.mark.parametrize(("exact", "count"), [({"enabled": True}, 1), ({"enabled": False}, 3), ({}, 3)])
async def test_on_or_off_is_one_call_or_three(
    app: Make, server: FaultServer, exact: dict[str, Any], count: int
) -> None:
    here = app(inference={"exact": exact})
    for _ in range(3):
        answer = await here.run(Triage, {"message": MESSAGE})
        assert (answer.outputs["team"], answer.outputs["urgency"]) == ("cards", 5)
    assert server.count == count
    calls = await records(here)
    hits = [one for one in calls if one.cache_tier == "exact"]
    assert (len(calls), len(hits)) == (3, 3 - count)
    assert sum(one.cost_usd or 0.0 for one in calls) == pytest.approx(count * COST)
    for hit in hits:
        assert (hit.cost_usd, hit.saved_usd, hit.attempts) == (0.0, pytest.approx(COST), 0)
        assert (hit.tokens_in, hit.tokens_out) == (20, 7)
        (stage,) = hit.stages
        assert stage.layer == "exact"
        assert stage.note["age_s"] >= 0
    # what a provider counted is what was recorded as asked of a model
    assert sum(one.tokens_in for one in calls if one.cache_tier == "model") == 20 * server.count
    last = (await records(here, "program"))[-1]
    assert (last.cache_tier, last.cost_usd == 0.0) == (("exact", True) if hits else ("model", False))
    await here.close()


async def test_a_call_that_asks_is_kept_where_the_setting_is_open(app: Make, server: FaultServer) -> None:
    here = app(inference={})
    assert [(await ask(here)).tier for _ in range(2)] == ["model", "exact"]
    assert [(await ask(here, exact=None)).tier for _ in range(2)] == ["model", "model"]
    assert [(await ask(here, exact=False)).tier for _ in range(2)] == ["model", "model"]
    assert (await ask(here, refresh=True)).tier == "model"
    assert server.count == 6
    await here.close()


async def test_a_program_that_asks_is_kept_where_the_setting_is_open(app: Make, server: FaultServer) -> None:
    here = app(inference={})
    for program in (Triage, Triage.using(options=Options(exact=True))):
        for _ in range(2):
            await here.run(program, {"message": MESSAGE})
    assert server.count == 3
    assert [one.cache_tier for one in await records(here)] == ["model", "model", "model", "exact"]
    await here.close()


async def test_other_inputs_models_schemas_and_params_are_other_calls(app: Make, server: FaultServer) -> None:
    here = app()
    for program, message in (
        (Triage, MESSAGE),
        (Triage, "Where is my money?"),
        (Triage.using(max_tokens=99), MESSAGE),
        (Triage.using(model="mine/small"), MESSAGE),
        (Triage.using(instructions="Be quick."), MESSAGE),
        (Triage.using(output_mode="json"), MESSAGE),
    ):
        for _ in range(2):
            await here.run(program, {"message": message})
    assert server.count == 6
    await here.close()


async def test_calls_at_once_are_one_call_each_with_its_record(app: Make, server: FaultServer) -> None:
    here = app()
    server.queue(slow(0.2))
    answers = await asyncio.gather(*[here.run(Triage, {"message": MESSAGE}) for _ in range(12)])
    assert server.count == 1
    assert {answer.outputs["team"] for answer in answers} == {"cards"}
    calls = await records(here)
    assert sorted(one.cache_tier for one in calls) == ["exact"] * 11 + ["model"]
    assert sum(one.cost_usd or 0.0 for one in calls) == pytest.approx(COST)
    assert len({one.id for one in calls}) == 12
    await here.close()


async def test_calls_at_once_fail_as_one(app: Make, server: FaultServer) -> None:
    here = app()
    server.queue(Fault("status", delay=0.1, status=503))
    calls = [here.run(Triage, {"message": MESSAGE}) for _ in range(6)]
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in failed] == [Unavailable] * 6
    assert server.count == 1
    kept = await records(here)
    assert [one.status for one in kept] == ["error"] * 6
    assert sum(one.attempts for one in kept) == 1
    programs = {one.id for one in await records(here, "program")}
    assert {one.record.id for one in failed if isinstance(one, Unavailable) and one.record} == programs
    await here.run(Triage, {"message": MESSAGE})  # a failure is not kept
    assert server.count == 2
    await here.close()


async def test_readers_of_one_stream_see_it_grow(app: Make, server: FaultServer) -> None:
    here = app()
    server.queue(Fault("drip", delay=0.01))

    async def read() -> tuple[int, dict[str, Any]]:
        seen = [item async for item in here.stream(Triage, {"message": MESSAGE})]
        return len(seen), dict(seen[-1].outputs)

    first = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    late = await asyncio.gather(read(), read())
    assert server.count == 1
    assert [outputs for _, outputs in (await first, *late)] == [{"team": "cards", "urgency": 5}] * 3
    assert min(pieces for pieces, _ in (await first, *late)) > 2
    assert [one.cache_tier for one in await records(here)].count("exact") == 2
    await read()
    assert server.count == 1
    await here.close()


async def test_a_caller_who_leaves_takes_the_call_along_only_if_alone(app: Make, server: FaultServer) -> None:
    here = app()
    server.queue(slow(0.3), slow(5))
    pair = [asyncio.create_task(here.run(Triage, {"message": MESSAGE})) for _ in range(2)]
    await asyncio.sleep(0.1)
    pair[0].cancel()
    assert (await pair[1]).outputs["team"] == "cards"
    assert [one.status for one in await records(here)].count("cancelled") == 1
    (paid,) = [one for one in await records(here) if one.status == "ok"]
    assert (paid.cache_tier, paid.cost_usd) == ("model", pytest.approx(COST))
    alone = asyncio.create_task(here.run(Triage, {"message": "another"}))
    await asyncio.sleep(0.1)
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    await server.until(lambda: server.open_connections <= 1)
    assert server.count == 2
    await here.close()


async def test_an_answer_of_a_model_that_stood_in_is_not_kept(app: Make, server: FaultServer) -> None:
    here = app(inference=ON | {"failover": {"fallbacks": {"mine/large": ["mine/small"]}}})
    server.queue(status(503))
    first = await ask(here)
    assert (first.model, first.tier, server.count) == ("mine/small", "model", 2)
    again = [await ask(here) for _ in range(2)]
    assert [(one.model, one.tier) for one in again] == [("mine/large", "model"), ("mine/large", "exact")]
    assert server.count == 3
    await here.close()


async def test_no_tenant_gets_anothers_answer(app: Make, server: FaultServer) -> None:
    here = app()
    numbers = itertools.count()
    server.reply = lambda _: f"answer {next(numbers)}"
    scopes = [Scope(new_id()), Scope(new_id()), Scope(here.scope.tenant, "prod")]
    first = [(await ask(here, scope=scope)).text for scope in scopes]
    again = [(await ask(here, scope=scope)).text for scope in scopes]
    assert first == again == ["answer 0", "answer 1", "answer 2"]
    assert server.count == 3
    await here.cache.invalidate(scopes[0])
    assert [(await ask(here, scope=scope)).tier for scope in scopes] == ["model", "exact", "exact"]
    for scope in scopes:
        assert {one.scope for one in await records(here, scope=scope)} == {scope}
    await here.close()


async def test_an_answer_outlives_the_app_and_goes_with_its_document(
    app: Make, server: FaultServer, tmp_path: Path
) -> None:
    here = app()
    await ask(here, tags=("document:7f",))
    await here.close()
    there = app()
    assert (await ask(there, tags=("document:7f",))).tier == "exact"
    assert await there.cache.invalidate(there.scope, ["document:7f"]) == 1
    assert (await ask(there)).tier == "model"
    await there.close()
    forgetful = app(inference={"exact": {"disk_bytes": 0}}, home=str(tmp_path / "other"))
    assert [(await ask(forgetful)).tier for _ in range(2)] == ["model", "exact"]
    assert not (tmp_path / "other" / "cache.db").exists()
    await forgetful.close()
    assert server.count == 3


class Worker:
    """A process of its own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        words = [sys.executable, str(Path(__file__).with_name("exact_worker.py")), json.dumps(settings)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("\n", timeout=20)
        assert self.process.returncode == 0

    def __call__(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.mark.parametrize("shared", ["sqlite", "redis"])
def test_processes_share_answers_and_invalidations(
    settings: dict[str, Any], server: FaultServer, shared: str, request: pytest.FixtureRequest
) -> None:
    if shared == "redis":
        settings["storage"] = {"redis_url": request.getfixturevalue("redis_url")}
    numbers = itertools.count(1)
    server.reply = lambda _: f"answer {next(numbers)}"
    with ExitStack() as stack:
        one, other = (stack.enter_context(Worker(settings)) for _ in range(2))
        assert one("ask hello") == "model answer 1"
        assert other("ask hello") == "exact answer 1"
        assert [worker("ask hello") for worker in (one, other, other)] == ["exact answer 1"] * 3
        assert server.count == 1
        assert one("drop document:7f") == "1"
        assert other("ask hello") == "model answer 2"  # though it had the first in memory
        assert one("ask hello") == "exact answer 2"
        assert other("drop model:mine/large") == "1"
        assert one("ask hello") == "model answer 3"
        assert server.count == 3


async def test_a_cache_that_can_not_be_reached_fails_no_call(app: Make, server: FaultServer) -> None:
    here = app(storage={"redis_url": "redis://:secret@127.0.0.1:9/0"})
    assert [(await ask(here)).tier for _ in range(2)] == ["model", "model"]
    assert server.count == 2
    await here.close()


async def test_a_cache_on_a_full_or_broken_disk_fails_no_call(app: Make, server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "cache.db").write_bytes(b"no database" * 1000)
    here = app()
    assert [(await ask(here)).tier for _ in range(2)] == ["model", "model"]
    assert server.count == 2
    await here.close()


async def test_records_lie_in_postgres_where_the_settings_say_so(
    app: Make, server: FaultServer, postgres_url: str, tmp_path: Path
) -> None:
    server.queue(status(503))
    here = app(storage={"database_url": postgres_url}, inference={"exact": {"enabled": True}, "backoff": 0.001})
    await here.run(Triage, {"message": MESSAGE})
    await here.run(Triage, {"message": MESSAGE})
    assert server.count == 2
    kept = await records(here)
    assert [(one.cache_tier, one.attempts) for one in kept] == [("model", 2), ("exact", 0)]
    assert await here.ledger.payload(here.scope, kept[0].output_digest) is not None
    await here.close()
    assert not (tmp_path / "home" / "ledger.db").exists()
    again = app(storage={"database_url": postgres_url})
    assert await records(again) == kept
    await again.close()


def test_an_address_without_its_client_says_what_to_install(app: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaizen.stores.cache.redis", None)
    monkeypatch.setitem(sys.modules, "kaizen.stores.postgres.store", None)
    with pytest.raises(ConfigError, match=r"storage.redis_url .*kaizen-engine\[redis\]"):
        app(storage={"redis_url": "redis://127.0.0.1"})
    with pytest.raises(ConfigError, match=r"storage.database_url .*kaizen-engine\[postgres\]"):
        app(storage={"database_url": "postgresql://127.0.0.1"})
