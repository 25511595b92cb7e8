"""The native call: what can be asked for, what is answered, and what is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kaizen.testing.fault_server import Fault, slow, status
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.http import post

Make = Callable[..., Running]


def infer(here: Running, key: str, **body: Any) -> Any:
    got = post(here, "/api/v1/infer", body, key=key)
    assert got.status == 200, got.body
    return got.json


def test_the_answer_says_all_that_is_known(gateway: Make) -> None:
    here = gateway()
    key = here.key()
    first = infer(here, key, model="mine/large", prompt="hello", system="be brief", task_type="greeting")
    record = here.records()[0]
    assert first["text"] == "Hello from the far side."
    assert (first["record"], first["model"]) == (record.id, "mine/large")
    assert first["why"]["routing_mode"] == "explicit"
    assert first["cache"] == {"tier": "miss", "similarity": None}
    assert first["tokens"] == {"in": 20, "out": 7, "cached": 5, "reasoning": 2, "estimated": False}
    cost = (20 * 10 + 7 * 30) / 1e6
    assert first["cost_usd"] == pytest.approx(cost)
    assert first["latency_ms"]["total"] > 0
    assert (first["task_type"], record.task) == ("greeting", "greeting")
    again = infer(here, key, model="mine/large", prompt="hello", system="be brief", task_type="greeting")
    assert again["cache"]["tier"] == "exact"
    exact = next(layer for layer in again["layers"] if layer["layer"] == "exact")
    assert (exact["saved_usd"], exact["cost_without_usd"]) == (pytest.approx(cost), pytest.approx(cost))
    assert "exact" in again["latency_ms"]["stages"]


def test_without_a_model_the_default_answers(gateway: Make) -> None:
    here = gateway()
    assert infer(here, here.key(), prompt="hello")["model"] == "mine/large"


@pytest.mark.parametrize(
    "cache", [{"exact": False}, {"refresh": True}, {"ttl": 0.000001}], ids=["off", "refresh", "too old"]
)
def test_switches_reach_the_cache(gateway: Make, cache: dict[str, Any]) -> None:
    here = gateway()
    key = here.key()
    infer(here, key, prompt="hello")
    infer(here, key, prompt="hello", cache=cache)
    assert here.upstream.count == 2


def test_a_streamed_answer_ends_with_all_that_is_known(gateway: Make) -> None:
    here = gateway()
    got = post(here, "/infer", {"prompt": "hello", "stream": True}, key=here.key())
    events = [block.split(b"\n") for block in got.body.strip().split(b"\n\n")]
    names = [event[0].removeprefix(b"event: ").decode() for event in events]
    assert (names[0], names[-1], set(names[1:-1])) == ("begin", "answer", {"text"})
    text = "".join(json.loads(event[1][6:])["text"] for event in events[1:-1])
    last = json.loads(events[-1][1][6:])
    assert text == last["text"] == "Hello from the far side."
    assert last["record"] == got.headers["x-kaizen-record"] == json.loads(events[0][1][6:])["record"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, 400, "prompt"),
        ({"prompt": "x", "messages": []}, 400, "prompt"),
        ({"prompt": "x", "surprise": 1}, 400, "surprise"),
        ({"prompt": "x", "quality_threshold": 6}, 400, "quality_threshold"),
        ({"prompt": "x", "routing_mode": "explicit"}, 400, "model"),
        ({"prompt": "x", "routing_mode": "autopilot", "model": "mine/large"}, 400, "model"),
        ({"prompt": "x", "routing_mode": "autopilot"}, 422, "routing_mode"),
        ({"prompt": "x", "quality_preference": "high"}, 422, "quality_preference"),
        ({"prompt": "x", "latency_budget_ms": 100}, 422, "latency_budget_ms"),
        ({"prompt": "x", "cost_budget_usd": 1}, 422, "cost_budget_usd"),
        ({"prompt": "x", "optimize_tokens": True}, 422, "optimize_tokens"),
        ({"prompt": "x", "batch": True}, 422, "batch"),
        ({"prompt": "x", "cache": {"semantic": True}}, 422, "cache.semantic"),
        ({"messages": [{"role": "user", "content": "x"}], "documents": {"a": "b"}}, 400, "documents"),
        ({"prompt": "x? y?", "decompose": True, "max_tokens": 5}, 400, "max_tokens"),
    ],
)
def test_what_can_not_be_met_is_named(gateway: Make, body: dict[str, Any], code: int, param: str) -> None:
    here = gateway()
    got = post(here, "/infer", body, key=here.key())
    assert (got.status, got.json["error"]["param"]) == (code, param)
    assert here.upstream.count == 0


def test_a_fallback_does_without_what_can_not_be_met(gateway: Make) -> None:
    here = gateway()
    answer = infer(here, here.key(), prompt="hello", quality_threshold=4, fallback=True)
    assert answer["model"] == "mine/large"


def test_a_deadline_is_kept(gateway: Make) -> None:
    here = gateway()
    here.upstream.queue(slow(5))
    got = post(here, "/infer", {"prompt": "hello", "deadline": 0.2}, key=here.key())
    assert (got.status, got.json["error"]["code"]) == (504, "timeout")


def test_a_prompt_of_several_parts_is_done_part_by_part(gateway: Make) -> None:
    here = gateway()
    key = here.key()
    here.upstream.reply = '{"answer": "done"}'
    prompt = "Who wrote Hamlet? What is the capital of France?"
    both = infer(here, key, prompt=prompt)
    assert (here.upstream.count, len(both["steps"])) == (2, 2)
    assert both["record"] in {one.id for one in here.records()}
    assert both["text"] == "done\n\ndone"
    third = infer(here, key, prompt="Who wrote Hamlet? What is the capital of Spain?")
    assert here.upstream.count == 3  # one part was known
    assert [step["cache"] for step in third["steps"]] == ["step", "miss"]
    whole = infer(here, key, prompt=prompt, decompose=False)
    assert "steps" not in whole
    assert here.upstream.count == 4


def test_one_tenants_steps_are_not_anothers(gateway: Make) -> None:
    here = gateway()
    here.upstream.reply = '{"answer": "done"}'
    for tenant in ("acme", "other"):
        infer(here, here.key(tenant), prompt="Who wrote Hamlet? What is the capital of France?")
    assert here.upstream.count == 4
    assert {one.scope.tenant for one in here.records("other")} == {"other"}


def test_an_error_has_this_wires_shape(gateway: Make) -> None:
    here = gateway()
    here.upstream.queue(status(429, retry_after="3"))
    got = post(here, "/infer", {"prompt": "hello"}, key=here.key())
    assert got.status == 429
    assert got.json["error"]["retry_after"] == 3.0
    assert got.json["request_id"] == got.headers["x-request-id"]


def test_a_broken_stream_says_so(gateway: Make) -> None:
    here = gateway()
    here.upstream.queue(Fault("error_event"))
    got = post(here, "/infer", {"prompt": "hello", "stream": True}, key=here.key())
    assert b"event: error" in got.body
    assert b"event: answer" not in got.body
