"""Traces of other applications, sent by the real OpenTelemetry SDK, become records of the key's tenant."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Status, StatusCode
from pydantic_core import to_json

from kaizen.core.record import Record
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.http import Answer, post

Start = Callable[..., Running]
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def here(gateway: Start) -> Running:
    return gateway()


def trace(here: Running, key: str, *, question: str = "Where is my card?", packed: bool = True) -> None:
    """An agent that searches and asks a model, as an application of somebody else's has it."""
    exporter = OTLPSpanExporter(
        endpoint=f"{here.address}/v1/traces",
        headers={"authorization": f"Bearer {key}"},
        compression=Compression.Gzip if packed else Compression.NoCompression,
    )
    provider = TracerProvider(resource=Resource.create({"service.name": "helpdesk"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("helpdesk")
    with tracer.start_as_current_span("answer a customer", attributes={"customer.question": question}):
        with tracer.start_as_current_span("search") as search:
            search.add_event("found", {"documents": 3})
            search.set_status(Status(StatusCode.ERROR, "index is stale"))
        with tracer.start_as_current_span("chat gpt-4o") as chat:
            chat.set_attribute("gen_ai.operation.name", "chat")
            chat.set_attribute("gen_ai.request.model", "gpt-4o")
            chat.set_attribute("gen_ai.response.model", "gpt-4o-2024-08-06")
            chat.set_attribute("gen_ai.usage.input_tokens", 120)
            chat.set_attribute("gen_ai.usage.output_tokens", 30)
    provider.shutdown()


def by_name(records: list[Record]) -> dict[str, Record]:
    return {record.ref: record for record in records}


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
def test_the_sdk_s_spans_become_a_run_with_its_tree_tokens_and_errors(here: Running, packed: bool) -> None:
    trace(here, here.key(), packed=packed)
    rows = by_name(here.records())
    top, search, chat = (rows[f"helpdesk: {name}"] for name in ("answer a customer", "search", "chat gpt-4o"))
    assert {record.kind for record in rows.values()} == {"span"}
    assert {record.run_id for record in rows.values()} == {top.run_id}
    assert top.parent_id is None
    assert (search.parent_id, chat.parent_id) == (top.step, top.step)
    assert (top.status, search.status, search.error_code, chat.status) == ("ok", "error", "error", "ok")
    assert (chat.model, chat.tokens_in, chat.tokens_out, chat.model_calls) == ("gpt-4o-2024-08-06", 120, 30, 1)
    assert top.principal.startswith("key:")
    assert top.latency_ms >= chat.latency_ms > 0
    assert here.upstream.count == 0


def test_the_page_shows_the_tree_and_the_attributes(here: Running) -> None:
    key = here.key(scopes=frozenset({"infer", "admin"}))
    trace(here, key)
    top = by_name(here.records())["helpdesk: answer a customer"]
    found = post(here, f"/api/v1/runs?id={top.run_id}", key=key, method="GET").json
    assert [(call["ref"], call["depth"]) for call in found["calls"]] == [
        ("helpdesk: answer a customer", 0),
        ("helpdesk: search", 1),
        ("helpdesk: chat gpt-4o", 1),
    ]
    kept = post(here, f"/api/v1/contents?id={top.id}", key=key, method="GET").json
    assert kept["input"]["attributes"] == {"customer.question": "Where is my card?"}
    assert kept["output"] is None


def test_each_tenant_has_its_own_spans_whatever_they_name(here: Running) -> None:
    trace(here, here.key(), question="of acme")
    trace(here, here.key("other"), question="of other")
    assert (len(here.records()), len(here.records("other"))) == (3, 3)
    assert {record.scope.tenant for record in here.records("other")} == {"other"}
    # the same trace sent by another tenant stays apart, too
    body = spans(name="twin", traceId="0af7651916cd43dd8448eb211c80319c")
    for tenant in ("acme", "other"):
        admin = here.key(tenant, scopes=frozenset({"infer", "admin"}))
        assert post(here, "/v1/traces", body, key=admin, headers=JSON).status == 200
        run = post(here, "/api/v1/runs?id=0af76519-16cd-43dd-8448-eb211c80319c", key=admin, method="GET").json
        assert len(run["calls"]) == 1


def test_an_export_is_a_request_of_its_key_s_minute(here: Running) -> None:
    key = here.key(limits={"requests_per_minute": 2, "usd_per_day": 1}, models=["openai/*"])
    for _ in range(2):
        assert post(here, "/v1/traces", spans(), key=key, headers=JSON).status == 200
    refused = post(here, "/v1/traces", spans(), key=key, headers=JSON)
    assert (refused.status, refused.json["error"]["code"]) == (429, "limit_reached")
    assert 0 < int(refused.headers["retry-after"]) <= 30
    assert len(here.records()) == 2
    other = here.key(limits={"concurrent": 1})
    assert [post(here, "/v1/traces", spans(), key=other, headers=JSON).status for _ in range(3)] == [200] * 3


def test_a_key_is_needed(here: Running) -> None:
    exporter = OTLPSpanExporter(endpoint=f"{here.address}/v1/traces", headers={"authorization": "Bearer no"})
    span = TracerProvider().get_tracer("x").start_span("x")
    span.end()
    assert exporter.export([span]) is SpanExportResult.FAILURE  # type: ignore[list-item]
    assert post(here, "/v1/traces", spans(), headers=JSON).status == 401
    assert post(here, "/v1/traces", spans(), key=here.key(scopes=frozenset({"admin"})), headers=JSON).status == 403
    assert here.records() == []


# -- limits ---


def spans(count: int = 1, **values: Any) -> dict[str, Any]:
    """An export request in JSON."""
    made = [
        {
            "traceId": "0af7651916cd43dd8448eb211c80319d",
            "spanId": f"{place + 1:016x}",
            "name": "work",
            "startTimeUnixNano": "1700000000000000000",
            "endTimeUnixNano": "1700000001000000000",
            **values,
        }
        for place in range(count)
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}


def send(here: Running, body: Any, **headers: str) -> Answer:
    given = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    return post(here, "/v1/traces", body, key=here.key(), headers=given)


def test_a_small_body_that_unpacks_to_a_large_one_is_refused(gateway: Start) -> None:
    here = gateway(server={"max_body_bytes": 100_000})
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    refused = send(here, bomb, content_encoding="gzip")
    assert (refused.status, refused.json["error"]["code"]) == (413, "too_large")
    assert send(here, b" " * 100_001).status == 413
    assert send(here, gzip.compress(to_json(spans())), content_encoding="gzip").status == 200
    assert len(here.records()) == 1


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 422),
        (b"[]", {}, 422),
        (b'"x"', {}, 422),
        (b'{"resourceSpans": 3}', {}, 422),
        (b'{"resourceSpans": [{"scopeSpans": [3]}]}', {}, 422),
        (b"[" * 50_000, {}, 422),
        (b"\xff\xff", {"content_type": "application/x-protobuf"}, 422),
        (b"not gzip", {"content_encoding": "gzip"}, 422),
        (gzip.compress(b"{}", mtime=0)[:-4], {"content_encoding": "gzip"}, 422),
        (gzip.compress(b"{}", mtime=0) * 2, {"content_encoding": "gzip"}, 422),
        (zlib.compress(b"{}"), {"content_encoding": "deflate"}, 415),
        (b"<x/>", {"content_type": "text/xml"}, 415),
    ],
)
def test_what_is_no_export_request_is_refused(here: Running, body: bytes, headers: dict[str, str], status: int) -> None:
    assert send(here, body, **headers).status == status
    assert here.records() == []


def test_too_many_spans_are_refused_whole(here: Running) -> None:
    refused = send(here, spans(10_001))
    assert refused.status == 422
    assert "10000 spans" in refused.json["error"]["message"]
    assert here.records() == []


def test_spans_that_can_t_be_read_are_counted_and_the_others_kept(here: Running) -> None:
    body = spans(2)
    good, bad = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    bad["traceId"] = "nothing hexadecimal"
    answer = send(here, body)
    assert answer.json["partialSuccess"]["rejectedSpans"] == "1"
    assert [record.step for record in here.records()] == [good["spanId"]]


def test_protobuf_is_answered_in_protobuf(here: Running) -> None:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.name, span.trace_id, span.span_id = "work", bytes(range(16)), b"12345678"
    span.start_time_unix_nano = 10**18
    short = request.resource_spans[0].scope_spans[0].spans.add()
    short.trace_id = b"short"
    answer = send(here, request.SerializeToString(), content_type="application/x-protobuf")
    assert answer.headers["content-type"] == "application/x-protobuf"
    told = ExportTraceServiceResponse.FromString(answer.body)
    assert told.partial_success.rejected_spans == 1
    assert [record.ref for record in here.records()] == ["work"]


def test_spans_nested_without_end_are_kept_and_shown(here: Running) -> None:
    body = spans(3000)
    nested = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    for above, below in pairwise(nested):
        below["parentSpanId"] = above["spanId"]
    nested[0]["attributes"] = [{"key": "deep", "value": deep(20)}]
    key = here.key(scopes=frozenset({"infer", "admin"}))
    answer = post(here, "/v1/traces", body, key=key, headers=JSON)
    assert answer.json["partialSuccess"]["rejectedSpans"] == "1"  # the one with the attribute
    [run] = {record.run_id for record in here.records()}
    found = post(here, f"/api/v1/runs?id={run}", key=key, method="GET").json
    assert (len(found["calls"]), found["more"]) == (1000, True)
    assert found["calls"][-1]["depth"] == 999


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(levels):
        value = {"arrayValue": {"values": [value]}}
    return value


def test_the_failures_of_others_are_not_logged_as_ours(here: Running, caplog: pytest.LogCaptureFixture) -> None:
    assert send(here, spans(2, status={"code": 2})).status == 200
    assert [record.status for record in here.records()] == ["error", "error"]
    assert caplog.records == []
