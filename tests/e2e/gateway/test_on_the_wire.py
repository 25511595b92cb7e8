"""What no client library shows: broken streams, callers who leave, caches, limits, tenants, counts."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from kaizen.serve.http import protocol, workers
from kaizen.testing.fault_server import Fault, slow, status
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.http import Answer, ask, post

Make = Callable[..., Running]
HELLO = {"model": "mine/large", "messages": [{"role": "user", "content": "hello"}]}
MESSAGE = {**HELLO, "max_tokens": 50}
RESPONSE = {"model": "mine/large", "input": "hello"}
NATIVE = {"model": "mine/large", "prompt": "hello"}
WIRES = pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", HELLO),
        ("/v1/messages", MESSAGE),
        ("/v1/responses", RESPONSE),
        ("/api/v1/infer", NATIVE),
    ],
    ids=["chat", "messages", "responses", "infer"],
)
ENDS = (b"[DONE]", b"message_stop", b"response.completed", b"event: answer")


@WIRES
@pytest.mark.parametrize("fault", ["truncated", "error_event", "broken", "drip"])
def test_a_stream_that_fails_midway_ends_with_an_error(
    gateway: Make, path: str, body: dict[str, Any], fault: Any
) -> None:
    here = gateway()
    here.upstream.queue(Fault(fault))
    got = post(here, path, {**body, "stream": True}, key=here.key())
    assert got.status == 200
    ended = [mark for mark in ENDS if mark in got.body]
    if fault == "drip":
        assert len(ended) == 1
        return
    assert ended == []
    assert b"error" in got.body.splitlines()[-2]
    assert [(one.status, one.id) for one in here.records()] == [("error", got.headers["x-kaizen-record"])]


@WIRES
def test_what_fails_before_the_first_piece_has_a_status(gateway: Make, path: str, body: dict[str, Any]) -> None:
    here = gateway()
    here.upstream.queue(status(503))
    got = post(here, path, {**body, "stream": True}, key=here.key())
    assert got.status == 503
    assert got.headers["content-type"] == "application/json"


@WIRES
@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_ends_the_call_upstream(
    gateway: Make, path: str, body: dict[str, Any], stream: bool
) -> None:
    here = gateway()
    key = await asyncio.to_thread(here.key)
    here.upstream.queue(Fault("drip", delay=0.2) if stream else Fault("never"))
    connection = await asyncio.to_thread(ask, here, path, {**body, "stream": stream}, key=key)
    await here.upstream.until(lambda: here.upstream.count == 1)
    if stream:
        assert await asyncio.to_thread(connection.recv, 4096)
    connection.close()
    await here.upstream.until(lambda: here.upstream.cuts == 1)
    for _ in range(100):  # its record is written a moment later
        if kept := await asyncio.to_thread(here.records):
            break
        await asyncio.sleep(0.05)
    assert [one.status for one in kept] == ["cancelled"]


def test_the_exact_cache_answers_and_headers_say_so(gateway: Make) -> None:
    here = gateway()
    key = here.key()
    first, second = (post(here, "/v1/chat/completions", HELLO, key=key) for _ in range(2))
    assert (first.headers["x-kaizen-cache"], second.headers["x-kaizen-cache"]) == ("miss", "exact")
    assert here.upstream.count == 1
    cost = (20 * 10 + 7 * 30) / 1e6
    assert float(first.headers["x-kaizen-cost-usd"]) == pytest.approx(cost)
    assert float(second.headers["x-kaizen-cost-usd"]) == 0
    assert float(second.headers["x-kaizen-saved-usd"]) == pytest.approx(cost)
    other = post(here, "/v1/messages", MESSAGE, key=key)
    assert other.headers["x-kaizen-cache"] == "miss"  # max_tokens differs
    assert [one.cache_tier for one in here.records()] == ["model", "exact", "model"]


@pytest.mark.parametrize(
    ("said", "body", "calls"),
    [
        ("no-store", {}, 2),
        ("no-cache", {}, 2),
        ("max-age=1", {}, 1),
        ("", {"temperature": 0.7}, 2),
        ("", {"temperature": 0.7, "seed": 1}, 1),
        ("", {"temperature": 0}, 1),
    ],
)
def test_who_may_be_answered_from_the_cache(gateway: Make, said: str, body: dict[str, Any], calls: int) -> None:
    here = gateway()
    key = here.key()
    for _ in range(2):
        post(here, "/v1/chat/completions", {**HELLO, **body}, key=key, headers={"cache-control": said} if said else {})
    assert here.upstream.count == calls


@pytest.mark.parametrize("off", ["key", "settings"])
def test_switched_off_nothing_is_answered_from_the_cache(gateway: Make, off: str) -> None:
    layers: dict[str, Any] = {"attempts": 1, "exact": {"enabled": False}} if off == "settings" else {"attempts": 1}
    here = gateway(inference=layers)
    key = here.key(exact=off != "key")
    answers = [post(here, "/v1/chat/completions", HELLO, key=key) for _ in range(2)]
    assert [one.headers["x-kaizen-cache"] for one in answers] == ["miss", "miss"]
    assert here.upstream.count == 2


def test_a_key_that_forbids_the_cache_is_not_overruled(gateway: Make) -> None:
    here = gateway()
    key = here.key(exact=False)
    for _ in range(2):
        assert post(here, "/infer", {**NATIVE, "cache": {"exact": True}}, key=key).status == 200
    assert here.upstream.count == 2


def test_a_streamed_answer_from_the_cache_says_so_at_its_end(gateway: Make) -> None:
    here = gateway()
    key = here.key()
    for tier in (b'"cache":"miss"', b'"cache":"exact"'):
        got = post(here, "/v1/chat/completions", {**HELLO, "stream": True}, key=key)
        comment = next(line for line in got.body.splitlines() if line.startswith(b": kaizen "))
        assert tier in comment
        assert json.loads(comment[9:])["record"] == got.headers["x-kaizen-record"]
    assert here.upstream.count == 1


# -- tenants, keys and limits ---


def test_nothing_crosses_from_one_tenant_to_another(gateway: Make) -> None:
    here = gateway()
    acme, other = here.key("acme"), here.key("other")
    body = {**HELLO, "user": "acme", "metadata": {"tenant": "acme"}}
    mine = post(here, "/v1/chat/completions", body, key=acme)
    theirs = post(here, "/v1/chat/completions", body, key=other)
    assert (mine.headers["x-kaizen-cache"], theirs.headers["x-kaizen-cache"]) == ("miss", "miss")
    assert here.upstream.count == 2
    assert [one.id for one in here.records("acme")] == [mine.headers["x-kaizen-record"]]
    assert [one.id for one in here.records("other")] == [theirs.headers["x-kaizen-record"]]


def test_the_same_bytes_again_and_again_are_a_call_each_time(gateway: Make) -> None:
    here = gateway()
    acme, other = here.key("acme"), here.key("other")
    body = json.dumps(HELLO).encode()
    answers = [post(here, "/v1/chat/completions", body, key=key) for key in (acme, other) * 4]
    assert {one.status for one in answers} == {200}
    assert here.upstream.count == 2  # one for each tenant
    assert len({one.headers["x-kaizen-record"] for one in answers}) == 8
    for tenant, mine in (("acme", answers[::2]), ("other", answers[1::2])):
        records = here.records(tenant)
        assert [one.id for one in records] == [one.headers["x-kaizen-record"] for one in mine]
        assert [one.cache_tier for one in records] == ["model", "exact", "exact", "exact"]
        assert len({one.input_digest for one in records}) == 1
    first, second = here.records("acme")[0], here.records("other")[0]
    assert first.input_digest != second.input_digest
    anew = post(here, "/v1/chat/completions", body, key=acme, headers={"cache-control": "no-store"})
    assert anew.headers["x-kaizen-cache"] == "miss"
    narrow = here.key("acme", models=["answers/*"])
    assert post(here, "/v1/chat/completions", body, key=narrow).status == 403
    few = here.key("acme", limits={"requests_per_minute": 2})
    assert [post(here, "/v1/chat/completions", body, key=few).status for _ in range(4)] == [200, 200, 429, 429]


def test_limits_and_budgets_have_their_own_statuses(gateway: Make) -> None:
    here = gateway()
    fast, poor = here.key(limits={"requests_per_minute": 1}), here.key(limits={"usd_per_day": 1})
    assert post(here, "/v1/chat/completions", HELLO, key=fast).status == 200
    late = post(here, "/v1/chat/completions", HELLO, key=fast)
    assert late.status == 429
    assert 1 <= int(late.headers["retry-after"]) <= 60
    assert late.json["error"]["type"] == "rate_limit_error"
    broke = post(here, "/v1/messages", MESSAGE, key=poor)
    assert broke.status == 402
    assert broke.json["error"]["type"] == "billing_error"
    assert broke.headers["x-should-retry"] == "false"
    assert here.upstream.count == 1


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_comes_in_either_header(gateway: Make, header: str) -> None:
    here = gateway()
    value = f"bearer {here.key()}" if header == "authorization" else here.key()
    assert post(here, "/v1/chat/completions", HELLO, headers={header: value}).status == 200
    assert post(here, "/v1/chat/completions", HELLO).status == 401
    assert post(here, "/v1/chat/completions", HELLO, headers={header: "Basic eDp5"}).status == 401


def test_a_key_without_the_scope_may_not_ask(gateway: Make) -> None:
    here = gateway()
    key = here.key(scopes=frozenset({"metrics"}))
    assert post(here, "/v1/chat/completions", HELLO, key=key).status == 403


# -- what is malformed ---


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/infer", "/v1/embeddings"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": 5}', b"\xff", b"[" * 5000 + b"]" * 5000])
def test_what_is_no_call_is_400(gateway: Make, path: str, body: bytes) -> None:
    here = gateway()
    got = post(here, path, body, key=here.key())
    assert got.status == 400
    assert got.json["error"]["message"]


def test_a_body_too_large_is_413(gateway: Make) -> None:
    here = gateway(server={"max_body_bytes": 1000})
    key = here.key()
    assert post(here, "/v1/chat/completions", b"x" * 1001, key=key).status == 413
    pieces = b"".join(b"%x\r\n%b\r\n" % (500, b"x" * 500) for _ in range(3)) + b"0\r\n\r\n"
    got = post(here, "/v1/chat/completions", pieces, key=key, headers={"transfer-encoding": "chunked"})
    assert got.status == 413
    assert post(here, "/v1/chat/completions", HELLO, key=key).status == 200


def test_a_head_too_large_is_refused(gateway: Make) -> None:
    here = gateway()
    for headers in ({"x-a": "x" * 70_000}, {f"x-{number}": "y" for number in range(200)}):
        assert post(here, "/v1/chat/completions", HELLO, key="k", headers=headers).status == 431
    assert here.upstream.count == 0


def test_a_call_that_trickles_in_is_cut_off(gateway: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "ARRIVAL_S", 0.3)
    here = gateway()
    host, _, port = here.address.removeprefix("http://").partition(":")
    head = f"POST /v1/messages HTTP/1.1\r\nx-api-key: {here.key()}\r\ncontent-length: 9\r\n\r\n{{"
    for begun in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost:", head.encode()):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(begun)
            at = time.monotonic()
            assert connection.recv(1000) == b""
            assert 0.2 < time.monotonic() - at < 4


def test_a_connection_that_pauses_too_long_is_closed_and_one_that_works_is_not(
    gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_KEEP_ALIVE_S", 1)
    here = gateway()
    host, _, port = here.address.removeprefix("http://").partition(":")
    data = json.dumps(HELLO).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nx-api-key: {here.key()}\r\ncontent-length: {len(data)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for _ in range(4):  # longer together than a pause may be
            connection.sendall(head.encode() + data)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            time.sleep(0.4)
        here.upstream.queue(slow(1.5))
        other = json.dumps({**HELLO, "max_tokens": 9}).encode()
        connection.sendall(head.replace(str(len(data)), str(len(other))).encode() + other)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")  # a long answer is no pause
        at = time.monotonic()
        assert connection.recv(1000) == b""
        assert 0.8 < time.monotonic() - at < 3


def test_calls_leave_nothing_to_the_garbage_collector(gateway: Make) -> None:
    here = gateway()
    host, _, port = here.address.removeprefix("http://").partition(":")
    key, data = here.key(), json.dumps(HELLO).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nx-api-key: {key}\r\ncontent-length: {len(data)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as connection:

        def calls(count: int) -> None:
            for _ in range(count):
                connection.sendall(head.encode() + data)
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200")

        calls(3)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            calls(20)
            gc.collect()
            kinds = [type(one).__name__ for one in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.enable()
            gc.garbage.clear()
    assert kinds.count("RequestResponseCycle") < 3
    assert kinds.count("Task") < 5


def test_paths_and_methods_that_there_are_not(gateway: Make) -> None:
    here = gateway()
    assert post(here, "/v1/nothing", {}).status == 404
    assert post(here, "/v1/models", {}).status == 405
    assert post(here, "/v1/chat/completions", method="GET").status == 405


def test_a_request_keeps_its_id(gateway: Make) -> None:
    here = gateway()
    assert (
        post(here, "/health/live", method="GET", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    )
    made = post(here, "/health/live", method="GET", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert 16 < len(made) < 40


# -- health and counts ---


def test_it_is_ready_while_a_provider_answers(gateway: Make) -> None:
    here = gateway()
    got = post(here, "/health/ready", method="GET")
    assert got.status == 200
    assert got.json == {
        "status": "ok",
        "parts": {"store": "ok", "provider mine": "ok", "provider claude": "ok"},
        "worker": 0,
        "models": {},
    }
    assert post(here, "/health", method="GET").status == 200


def test_it_is_not_ready_when_no_provider_answers(gateway: Make) -> None:
    gone: Any = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}
    here = gateway(providers={"mine": gone, "claude": gone}, local=False)
    got = post(here, "/health", method="GET")
    assert (got.status, got.json) == (503, {"status": "unavailable"})
    seen = post(here, "/health", method="GET", key=here.key(scopes=frozenset({"metrics"})))
    assert seen.json["parts"]["provider mine"].startswith("can't be reached")
    assert post(here, "/health/live", method="GET").status == 200


def test_a_failing_model_shows_as_degraded_within_the_window(gateway: Make) -> None:
    here = gateway(local=False)
    key, watcher = here.key(), here.key(scopes=frozenset({"metrics"}))
    here.upstream.queue(*[status(503)] * 4)
    for number in range(14):
        post(here, "/v1/chat/completions", {**HELLO, "seed": number}, key=key)
    seen = post(here, "/health/ready", method="GET", key=watcher).json["models"]["mine/large"]
    assert (seen["state"], seen["why"], seen["calls"], seen["faults"]) == ("degraded", ["errors"], 14, 4)
    assert 0.0 < seen["p50_ms"] <= seen["p95_ms"]
    assert "models" not in post(here, "/health/ready", method="GET").json  # for those who may know


def test_what_the_caches_did_is_counted(gateway: Make) -> None:
    here = gateway(inference={"attempts": 1, "semantic": {"enabled": True}})
    key = here.key()
    for words in ("How do I reset my password?", "How do I reset my password?", "How do  I reset my password?"):
        post(here, "/v1/chat/completions", {**HELLO, "messages": [{"role": "user", "content": words}]}, key=key)
    lines = post(here, "/metrics", method="GET").body.decode().splitlines()
    assert here.upstream.count == 1
    for line in (
        'kaizen_layer_total{event="hits",layer="exact"} 1',
        'kaizen_layer_total{event="misses",layer="exact"} 2',
        'kaizen_layer_total{event="kept",layer="exact"} 1',
        'kaizen_layer_total{event="hits",layer="semantic"} 1',
        'kaizen_layer_total{event="misses",layer="semantic"} 1',
        'kaizen_layer_total{event="failures",layer="semantic"} 0',
    ):
        assert line in lines


def test_counts_are_open_on_loopback_only(gateway: Make) -> None:
    here = gateway(local=False)
    assert post(here, "/metrics", method="GET").status == 401
    assert post(here, "/metrics", method="GET", key=here.key()).status == 403
    assert post(here, "/metrics", method="GET", key=here.key(scopes=frozenset({"metrics"}))).status == 200


def test_what_was_done_is_counted(gateway: Make) -> None:
    here = gateway()
    key = here.key()
    for _ in range(3):
        post(here, "/v1/chat/completions", HELLO, key=key)
    post(here, "/v1/messages", {**MESSAGE, "stream": True}, key=key)
    here.upstream.queue(status(503))
    post(here, "/v1/chat/completions", {**HELLO, "seed": 1}, key=key)
    lines = post(here, "/metrics", method="GET").body.decode().splitlines()
    for line in (
        'kaizen_requests_total{route="chat",status="200"} 3',
        'kaizen_requests_total{route="chat",status="503"} 1',
        'kaizen_errors_total{code="unavailable",route="chat"} 1',
        'kaizen_cache_total{tier="exact"} 2',
        'kaizen_cache_total{tier="miss"} 2',
        'kaizen_tokens_total{kind="in",model="mine/large"} 40',
        'kaizen_tokens_total{kind="out",model="mine/large"} 14',
        'kaizen_request_seconds_count{route="chat"} 4',
        'kaizen_first_token_seconds_count{route="messages"} 1',
        "kaizen_requests_in_flight 1",
    ):
        assert line in lines
    spent = next(line for line in lines if line.startswith("kaizen_cost_usd_total"))
    assert float(spent.split()[1]) == pytest.approx(2 * (20 * 10 + 7 * 30) / 1e6)


def test_calls_in_the_air_end_before_the_gateway(gateway: Make) -> None:
    here = gateway()
    key = here.key()
    here.upstream.queue(slow(0.5))
    connection = ask(here, "/v1/chat/completions", HELLO, key=key)
    asyncio.run(here.upstream.until(lambda: here.upstream.count == 1))
    here.stop()
    assert Answer.read(connection).status == 200
    assert [one.status for one in here.records()] == ["ok"]
