"""Records go out as spans and other applications' spans come in as records; a trace is a run both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import from_json

from kaizen.core.errors import InvalidInput
from kaizen.core.record import Payload, Record
from kaizen.core.scope import LOCAL, Scope
from kaizen.ledger.ledger import Ledger, trees
from kaizen.ledger.otel import MAX_SPANS, Taken, records_of, spans_of, trace_id
from kaizen.stores.memory import MemoryStore
from kaizen.testing.store_suite import make_record

LEDGER = Ledger(MemoryStore(), bytes(32))
TRACE, ROOT, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def call(**values: Any) -> Record:
    given = {
        "kind": "model",
        "ref": "mine/large",
        "model": "mine/served",
        "run_id": "0af76519-16cd-43dd-8448-eb211c80319c",
    }
    return replace(make_record(), **{**given, "started_at": 1e9, "latency_ms": 250.0, **values})


def attributes(span: Any) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


def sent(*records: Record) -> list[Any]:
    (group,) = spans_of(records)["resourceSpans"]
    assert attributes(group["resource"]) == {"service.name": "kaizen"}
    return group["scopeSpans"][0]["spans"]


def test_a_model_call_is_a_client_span_with_the_names_of_the_conventions() -> None:
    above = call(kind="program", ref="triage.Triage", id="a")
    below = call(parent_id="a", cost_usd=0.5, tokens_in=7, tokens_out=2, tokens_cached=3, principal="key:x")
    program, model = sent(above, below, call(kind="score"))
    assert (model["traceId"], model["parentSpanId"], model["kind"]) == (TRACE, program["spanId"], 3)
    assert model["name"] == "chat mine/served"
    assert int(model["endTimeUnixNano"]) - int(model["startTimeUnixNano"]) == 250_000_000
    said = attributes(model)
    assert {name: said[name] for name in said if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mine",
        "gen_ai.request.model": "large",
        "gen_ai.response.model": "served",
        "gen_ai.usage.input_tokens": "7",
        "gen_ai.usage.output_tokens": "2",
        "gen_ai.usage.cache_read.input_tokens": "3",
    }
    assert (said["kaizen.cost_usd"], said["kaizen.principal"]) == (0.5, "key:x")
    assert "parentSpanId" not in program
    assert attributes(program)["gen_ai.agent.name"] == "triage.Triage"


def test_an_error_is_the_span_s_status_and_exporting_twice_gives_the_same() -> None:
    failed = call(status="error", error_code="timeout", model=None)
    (span,) = sent(failed)
    assert span["status"] == {"code": 2, "message": "timeout"}
    assert attributes(span)["error.type"] == "timeout"
    assert sent(failed) == sent(failed)


def test_a_run_named_by_the_caller_is_a_trace_too() -> None:
    assert len(trace_id("nightly")) == 32
    assert trace_id("nightly") == trace_id("nightly") != trace_id("weekly")


# -- in ---


def span(own: str = ROOT, parent: str = "", **more: Any) -> dict[str, Any]:
    times = {"startTimeUnixNano": "1000000000000000000", "endTimeUnixNano": "1000000001500000000"}
    return {"traceId": TRACE, "spanId": own, "parentSpanId": parent, "name": "answer", **times, **more}


def export(*spans: Any, service: str = "shop") -> dict[str, Any]:
    named = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceSpans": [{"resource": named, "scopeSpans": [{"spans": list(spans)}]}]}


def took(body: Any, scope: Scope = LOCAL) -> Taken:
    return records_of(body, scope, "key:x", LEDGER.seal)


def asked(**values: Any) -> list[Any]:
    return [{"key": name.replace("__", "."), "value": value} for name, value in values.items()]


def test_a_span_becomes_a_record_of_the_sender_s_tenant() -> None:
    more = asked(
        gen_ai__request__model={"stringValue": "gpt-4o"},
        gen_ai__usage__input_tokens={"intValue": "12"},
        gen_ai__usage__output_tokens={"intValue": 3},
        kaizen__tenant={"stringValue": "somebody else"},
        nested={
            "kvlistValue": {"values": [{"key": "a", "value": {"arrayValue": {"values": [{"boolValue": True}, {}]}}}]}
        },
    )
    events = [{"name": "said", "attributes": asked(text={"stringValue": "hello"})}]
    taken = took(export(span(attributes=more, events=events)), Scope("acme", "prod"))
    (record,), (payload,) = taken.records, taken.payloads
    assert (record.kind, record.ref, record.scope) == ("span", "shop: answer", Scope("acme", "prod"))
    assert (record.run_id, record.step, record.parent_id) == ("0af76519-16cd-43dd-8448-eb211c80319c", ROOT, None)
    assert (record.started_at, record.latency_ms, record.principal) == (1e9, 1500.0, "key:x")
    assert (record.model, record.tokens_in, record.tokens_out, record.model_calls) == ("gpt-4o", 12, 3, 1)
    contents = from_json(payload.data)
    assert contents["attributes"]["nested"] == {"a": [True, None]}
    assert contents["events"] == [{"name": "said", "attributes": {"text": "hello"}}]
    assert record.input_digest == payload.digest


def test_a_child_that_comes_first_still_hangs_below_its_parent() -> None:
    late, early = took(export(span(CHILD, ROOT))).records, took(export(span())).records
    (tree,) = trees([*late, *early])
    assert (tree.record.step, [child.record.step for child in tree.children]) == (ROOT, [CHILD])
    (alone,) = trees(late)
    assert alone.record.step == CHILD


def test_spans_that_name_each_other_as_parents_do_no_harm() -> None:
    assert trees(took(export(span(ROOT, ROOT))).records)[0].children == ()
    assert trees(took(export(span(ROOT, CHILD), span(CHILD, ROOT))).records) == ()


def test_a_failed_span_is_an_error() -> None:
    (record,) = took(
        export(span(status={"code": 2}, attributes=asked(error__type={"stringValue": "TimeoutError"})))
    ).records
    assert (record.status, record.error_code) == ("error", "TimeoutError")
    (record,) = took(export(span(status={"code": "STATUS_CODE_ERROR"}))).records
    assert record.error_code == "error"


@pytest.mark.parametrize(
    "wrong",
    [
        {"traceId": "x" * 32},
        {"spanId": "12"},
        {"spanId": None},
        {"parentSpanId": "zz"},
        {"startTimeUnixNano": "soon"},
        {"startTimeUnixNano": str(2**70)},
        {"attributes": [{"value": {}}]},
        {"attributes": [{"key": "a", "value": {"intValue": "x"}}]},
        {"events": 3},
    ],
)
def test_a_span_that_can_t_be_read_is_counted_and_the_others_are_kept(wrong: dict[str, Any]) -> None:
    taken = took(export({**span(), **wrong}, span(CHILD)))
    assert (len(taken.records), taken.refused) == (1, 1)
    assert taken.why.startswith("span 0: ")


def test_an_attribute_that_is_nested_without_end_is_refused() -> None:
    value: Any = {"stringValue": "x"}
    for _ in range(30):
        value = {"arrayValue": {"values": [value]}}
    assert took(export(span(attributes=[{"key": "a", "value": value}]))).refused == 1


def test_absurd_counts_of_tokens_are_none() -> None:
    (record,) = took(export(span(attributes=asked(gen_ai__usage__input_tokens={"intValue": str(2**80)})))).records
    assert record.tokens_in == 0


@pytest.mark.parametrize(
    "body", [[], 3, {"resourceSpans": 3}, {"resourceSpans": [3]}, {"resourceSpans": [{"scopeSpans": [3]}]}]
)
def test_what_is_no_export_request_is_refused(body: Any) -> None:
    with pytest.raises(InvalidInput, match="no OTLP export request"):
        took(body)


def test_a_flood_of_spans_is_refused() -> None:
    with pytest.raises(InvalidInput, match="more than 10000 spans"):
        took(export(*[span()] * (MAX_SPANS + 1)))


def test_contents_of_what_went_out_come_back_as_the_same_trace() -> None:
    taken = took(spans_of([call()]))
    assert [record.run_id for record in taken.records] == ["0af76519-16cd-43dd-8448-eb211c80319c"]
    assert isinstance(taken.payloads[0], Payload)
