"""OpenTelemetry: records as spans with the ``gen_ai.*`` names, and other applications' spans as records.

The form is OTLP's JSON (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding), the names those of the
semantic conventions for generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic_core import to_json

from kaizen.core.errors import InvalidInput
from kaizen.core.ids import new_id
from kaizen.core.record import Payload, Record, Status
from kaizen.core.scope import Scope

MAX_SPANS: Final = 10_000
_NANO: Final = 1_000_000_000
_OK, _ERROR = 1, 2
_INTERNAL, _CLIENT = 1, 3
_DEPTH: Final = 16
_NAME: Final = 256

# -- out ------------------------------------------------------------------------------------------


def spans_of(records: Iterable[Record], service: str = "kaizen") -> dict[str, Any]:
    """Records as one OTLP export request. Scores are left out; contents are never in it.

    A run is a trace. Ids are made of the records' own, so that exporting twice gives the same spans.
    """
    spans = [_span(record) for record in records if record.kind != "score"]
    resource = {"attributes": [_attribute("service.name", service)]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "kaizen"}, "spans": spans}]}]}


def _span(record: Record) -> dict[str, Any]:
    begin = int(record.started_at * _NANO)
    model = record.kind == "model"
    made: dict[str, Any] = {
        "traceId": trace_id(record.run_id),
        "spanId": _span_id(record.id),
        "name": f"chat {record.model or record.ref}" if model else record.ref,
        "kind": _CLIENT if model else _INTERNAL,
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(begin + int(record.latency_ms * 1e6)),
        "attributes": [_attribute(name, value) for name, value in _attributes(record).items() if value is not None],
        "status": {"code": _OK}
        if record.status == "ok"
        else {"code": _ERROR, "message": record.error_code or record.status},
    }
    if record.parent_id is not None:
        made["parentSpanId"] = _span_id(record.parent_id)
    return made


def _attributes(record: Record) -> dict[str, str | int | float | None]:
    provider, _, asked = record.ref.partition("/")
    shared: dict[str, str | int | float | None] = {
        "gen_ai.usage.input_tokens": record.tokens_in,
        "gen_ai.usage.output_tokens": record.tokens_out,
        "gen_ai.usage.cache_read.input_tokens": record.tokens_cached or None,
        "error.type": record.error_code,
        "kaizen.record": record.id,
        "kaizen.step": record.step,
        "kaizen.tenant": record.scope.tenant,
        "kaizen.environment": record.scope.environment,
        "kaizen.principal": record.principal or None,
        "kaizen.cost_usd": record.cost_usd,
        "kaizen.saved_usd": record.saved_usd,
        "kaizen.cache_tier": record.cache_tier,
        "kaizen.task": record.task,
    }
    if record.kind != "model":
        return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": record.ref, **shared}
    answered = record.model.partition("/")[2] if record.model else None
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": asked,
        "gen_ai.response.model": answered,
        **shared,
    }


def _attribute(name: str, value: str | int | float) -> dict[str, Any]:
    match value:
        case bool():
            return {"key": name, "value": {"boolValue": value}}
        case int():
            return {"key": name, "value": {"intValue": str(value)}}
        case float():
            return {"key": name, "value": {"doubleValue": value}}
        case str():
            return {"key": name, "value": {"stringValue": value}}


def trace_id(run_id: str) -> str:
    """The trace of a run: its own 16 bytes where it is a UUID, else 16 bytes made of it."""
    plain = run_id.replace("-", "")
    return plain if _is_hex(plain, 32) else hashlib.blake2b(run_id.encode(), digest_size=16).hexdigest()


def _span_id(record_id: str) -> str:
    # a UUID has twice the bytes of a span's id, and the first half is mostly the time
    return hashlib.blake2b(record_id.encode(), digest_size=8).hexdigest()


# -- in -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """What was made of an export request.

    Args:
        records: a span each.
        payloads: their attributes and events.
        refused: spans that could not be read.
        why: what was wrong with the first of them.
    """

    records: Sequence[Record]
    payloads: Sequence[Payload]
    refused: int
    why: str


def records_of(export: object, scope: Scope, principal: str, seal: Callable[[Scope, bytes], Payload]) -> Taken:
    """The spans of an OTLP export request as records of ``scope``, whatever tenant the spans themselves name.

    A trace is a run. A span's step is its id in the trace, and its ``parent_id`` its parent's step, since children
    come before their parents.

    Args:
        export: the request's JSON.
        scope: whose records they become.
        principal: who sent them.
        seal: puts contents under their address.

    Raises:
        InvalidInput: if it is no export request, or holds too many spans.
    """
    records: list[Record] = []
    payloads: list[Payload] = []
    refused, why = 0, ""
    for place, (span, service) in enumerate(_spans(export)):
        if place >= MAX_SPANS:
            raise InvalidInput(f"more than {MAX_SPANS} spans in one request")
        try:
            record, payload = _taken(span, service, scope, principal, seal)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            refused, why = refused + 1, why or f"span {place}: {type(error).__name__}: {error}"[:200]
            continue
        records.append(record)
        payloads.append(payload)
    return Taken(records, payloads, refused, why)


def _spans(export: object) -> Iterator[tuple[Mapping[str, Any], str]]:
    try:
        tree = cast("Mapping[str, Any]", export)
        for group in tree.get("resourceSpans") or tree.get("resource_spans") or ():
            about: Mapping[str, Any] = group.get("resource") or {}
            resource = _values(about.get("attributes") or ())
            service = str(resource.get("service.name", ""))[:_NAME]
            for scoped in group.get("scopeSpans") or group.get("scope_spans") or ():
                for span in scoped.get("spans") or ():
                    yield span, service
    except (AttributeError, TypeError, ValueError):
        raise InvalidInput("this is no OTLP export request of traces") from None


def _taken(
    span: Mapping[str, Any], service: str, scope: Scope, principal: str, seal: Callable[[Scope, bytes], Payload]
) -> tuple[Record, Payload]:
    trace, own, parent = span["traceId"].lower(), span["spanId"].lower(), (span.get("parentSpanId") or "").lower()
    if not _is_hex(trace, 32) or not _is_hex(own, 16) or (parent and not _is_hex(parent, 16)):
        raise ValueError("its ids are not hexadecimal")
    begin, end = int(span["startTimeUnixNano"]), int(span.get("endTimeUnixNano") or 0)
    if not 0 < begin < 2**63 or not 0 <= end < 2**63:
        raise ValueError("its times are out of range")
    values = _values(span.get("attributes") or ())
    events = [
        {"name": str(event.get("name", "")), "attributes": _values(event.get("attributes") or ())}
        for event in span.get("events") or ()
    ]
    contents = {"service": service, "attributes": values, "events": events}
    payload = seal(scope, to_json(contents, inf_nan_mode="null"))
    told: Mapping[str, Any] = span.get("status") or {}
    failed = told.get("code") in (_ERROR, "STATUS_CODE_ERROR")
    status: Status = "error" if failed else "ok"
    asked = values.get("gen_ai.request.model")
    model = values.get("gen_ai.response.model") or asked
    name = str(span.get("name") or "span")[:_NAME]
    record = Record(
        id=new_id(),
        kind="span",
        ref=f"{service}: {name}" if service else name,
        run_id=_as_uuid(trace),
        scope=scope,
        started_at=begin / _NANO,
        parent_id=parent or None,
        step=own,
        principal=principal,
        status=status,
        latency_ms=max(0, end - begin) / 1e6,
        model=str(model)[:_NAME] if model else None,
        tokens_in=_count(values, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        tokens_out=_count(values, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        model_calls=1 if model else 0,
        attempts=1 if model else 0,
        input_digest=payload.digest,
        error_code=str(values.get("error.type") or "error")[:_NAME] if failed else None,
    )
    return record, payload


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {str(one["key"]): _value(one.get("value") or {}, 0) for one in attributes}


def _value(value: Mapping[str, Any], depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError("an attribute is nested too deep")
    match value:
        case {"stringValue": text} | {"boolValue": text} | {"doubleValue": text} | {"bytesValue": text}:
            return text
        case {"intValue": number}:
            return int(number)
        case {"arrayValue": array}:
            return [_value(one, depth + 1) for one in array.get("values") or ()]
        case {"kvlistValue": pairs}:
            return {str(one["key"]): _value(one.get("value") or {}, depth + 1) for one in pairs.get("values") or ()}
        case _:
            return None


def _count(values: Mapping[str, Any], *names: str) -> int:
    """A count of tokens: what is no such count is none."""
    found = next((values[name] for name in names if name in values), 0)
    return found if isinstance(found, int) and 0 <= found < 2**40 else 0


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and all(char in "0123456789abcdef" for char in text)


def _as_uuid(trace: str) -> str:
    return f"{trace[:8]}-{trace[8:12]}-{trace[12:16]}-{trace[16:20]}-{trace[20:]}"
