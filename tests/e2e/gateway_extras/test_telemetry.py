"""Records on their way out to a collector over real sockets: what it is sent, and that no call waits for it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kaizen import errors, signature
from kaizen.app import App, build
from kaizen.app.serving import make_gateway
from kaizen.core.identity import Identity
from kaizen.core.message import Message
from kaizen.core.record import RecordQuery
from kaizen.ledger import exporter
from kaizen.ledger.otel import trace_id
from kaizen.serve.http.metrics import Metrics
from kaizen.serve.http.workers import address_of, bind, make_server
from kaizen.settings import load_settings
from kaizen.testing.fault_server import Fault, FaultServer, status
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.http import post

Triage = signature("message -> team", doc="Name the team.")


@pytest.fixture
def collector() -> Any:
    with FaultServer("ok") as server:
        server.default = Fault("body", message="{}")
        yield server


@asynccontextmanager
async def app(folder: Path, base_url: str, **telemetry: Any) -> AsyncGenerator[App]:
    made = build(
        load_settings(
            folder,
            {},
            {
                "model": "mine/large",
                "home": str(folder / "home"),
                "providers": {"mine": {"kind": "openai", "base_url": base_url, "api_key": "sk-upstream-secret"}},
                "inference": {"attempts": 1},
                "telemetry": telemetry,
            },
        )
    )
    try:
        yield made
    finally:
        await made.close()


def spans(body: Any) -> list[dict[str, Any]]:
    [group] = body["resourceSpans"]
    return group["scopeSpans"][0]["spans"]


def attributes(span: Any) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


async def test_a_program_and_its_model_call_are_one_trace_at_the_collector(
    tmp_path: Path, upstream: FaultServer, collector: FaultServer
) -> None:
    upstream.reply = '{"team": "cards"}'
    async with app(tmp_path, upstream.base_url, otlp_endpoint=collector.address, service="helpdesk") as here:
        answer = await here.run(Triage, {"message": "My card is gone, and my number is 4711"})
        assert answer.outputs["team"] == "cards"
        [run] = {one.run_id async for one in here.ledger.records(here.scope, RecordQuery())}
    [call] = collector.calls
    assert call.path == "/v1/traces"
    assert "4711" not in call.body.decode()  # contents stay here
    resource = call.json["resourceSpans"][0]["resource"]
    assert attributes(resource) == {"service.name": "helpdesk"}
    by_kind = {span["kind"]: span for span in spans(call.json)}
    program, model = by_kind[1], by_kind[3]
    assert model["parentSpanId"] == program["spanId"]
    assert {program["traceId"], model["traceId"]} == {trace_id(run)}
    said = attributes(model)
    assert (said["gen_ai.provider.name"], said["gen_ai.request.model"]) == ("mine", "large")
    assert int(said["gen_ai.usage.input_tokens"]) > 0


async def test_nothing_is_sent_unless_a_collector_is_named(
    tmp_path: Path, upstream: FaultServer, collector: FaultServer
) -> None:
    upstream.reply = '{"team": "cards"}'
    async with app(tmp_path, upstream.base_url) as here:
        await here.run(Triage, {"message": "hello"})
    assert (upstream.count, collector.count) == (1, 0)


async def test_a_collector_that_is_away_costs_no_call_anything(
    tmp_path: Path, upstream: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.reply = '{"team": "cards"}'
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING, "kaizen"):
        async with app(tmp_path, upstream.base_url, otlp_endpoint="http://127.0.0.1:9") as here:
            for _ in range(20):
                await here.run(Triage, {"message": "hello"})
            assert time.monotonic() - begun < 5
            kept = [one async for one in here.ledger.records(here.scope, RecordQuery())]
    assert (upstream.count, len(kept)) == (20, 40)
    assert "traces can't be exported" in caplog.text


async def test_a_collector_that_never_answers_is_not_waited_for(
    tmp_path: Path, upstream: FaultServer, collector: FaultServer
) -> None:
    async with app(tmp_path, upstream.base_url, otlp_endpoint=collector.address) as here:
        collector.default = status(503)
        ctx = here.context(Identity(here.scope, "key:1"))
        reply = await ctx.complete(ctx.request("mine/large", (Message.of("user", "hello"),)))
        assert reply.text
    assert collector.count == 1  # once more, as it closed


async def test_headers_for_the_collector_come_from_a_variable(
    tmp_path: Path, upstream: FaultServer, collector: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.reply = '{"team": "cards"}'
    monkeypatch.setenv("COLLECTOR_HEADERS", "authorization=Bearer%20sk-mine, x-team=a%2Cb")
    named = {"otlp_endpoint": collector.address, "headers_env": "COLLECTOR_HEADERS"}
    async with app(tmp_path, upstream.base_url, **named) as here:
        await here.run(Triage, {"message": "hello"})
    [call] = collector.calls
    assert (call.headers["authorization"], call.headers["x-team"]) == ("Bearer sk-mine", "a,b")


@pytest.mark.parametrize("said", ["", "Bearer sk-mine", "a b=c", "=c"])
async def test_a_variable_that_holds_no_headers_stops_the_start(
    tmp_path: Path, upstream: FaultServer, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("COLLECTOR_HEADERS", said)
    named = {"otlp_endpoint": "http://127.0.0.1:9", "headers_env": "COLLECTOR_HEADERS"}
    with pytest.raises(errors.ConfigError, match="COLLECTOR_HEADERS") as caught:
        async with app(tmp_path, upstream.base_url, **named):
            pass
    assert "sk-mine" not in str(caught.value)


async def test_one_kaizen_can_be_another_s_collector(
    tmp_path: Path, upstream: FaultServer, gateway: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.reply = '{"team": "cards"}'
    there = await asyncio.to_thread(gateway)
    key = await asyncio.to_thread(there.key)
    monkeypatch.setenv("COLLECTOR_HEADERS", f"authorization=Bearer%20{key}")
    named = {"otlp_endpoint": there.address, "headers_env": "COLLECTOR_HEADERS"}
    (tmp_path / "own").mkdir()
    async with app(tmp_path / "own", upstream.base_url, **named) as here:
        await here.run(Triage, {"message": "hello"})
    rows = {record.model_calls: record for record in await asyncio.to_thread(there.records)}
    assert {record.kind for record in rows.values()} == {"span"}
    assert rows[1].model == "large"
    assert rows[1].parent_id == rows[0].step


def test_a_gateway_that_is_its_own_collector_sends_each_call_once(
    tmp_path: Path, upstream: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_EVERY_S", 0.05)
    listener = bind("127.0.0.1", 0)
    tree = {
        "model": "mine/large",
        "home": str(tmp_path / "home"),
        "providers": {"mine": {"kind": "openai", "base_url": upstream.base_url, "api_key": "sk-upstream-secret"}},
        "telemetry": {"otlp_endpoint": address_of(listener), "headers_env": "COLLECTOR_HEADERS"},
    }
    settings = load_settings(tmp_path, {}, tree)
    here = Running(address_of(listener), settings, upstream, lambda: None)
    key = here.key()
    monkeypatch.setenv("COLLECTOR_HEADERS", f"authorization=Bearer%20{key}")
    server = make_server(make_gateway(settings, Metrics(tmp_path / "counts"), local=True), grace=2)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        body = {"model": "mine/large", "messages": [{"role": "user", "content": "hello"}]}
        assert post(here, "/v1/chat/completions", body, key=key).status == 200
        end = time.monotonic() + 5
        while len(here.records()) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)  # ten times what it waits before it sends
        assert sorted(record.kind for record in here.records()) == ["model", "span"]
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
