"""``POST /v1/traces``: other applications' OpenTelemetry traces, into the same ledger (OTLP over HTTP)."""

from __future__ import annotations

import asyncio
import base64
import zlib
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.errors import InvalidInput
from kaizen.core.identity import INFER, TRACE, Identity
from kaizen.core.protocols import Need, Policy
from kaizen.ledger.ledger import Ledger
from kaizen.ledger.otel import Taken, records_of
from kaizen.programs.calls import leased
from kaizen.serve.http.backend import Contexts
from kaizen.serve.http.call import JSON, Call
from kaizen.serve.http.door import Door
from kaizen.serve.http.problem import Refused

_NEED: Final = Need(1, 0, 0.0)
_PROTOBUF: Final = b"application/x-protobuf"
_IDS: Final = ("traceId", "spanId", "parentSpanId")


class Traces:
    """Takes spans as records of the caller's tenant.

    Args:
        ledger: where they go.
        door: lets callers in.
        max_body: bytes of a request at most, unpacked.
        contexts: surroundings for calls.
        policy: asked before each: a request counts as a call, of no tokens and no cost.
    """

    def __init__(
        self, ledger: Ledger, door: Door, max_body: int, *, contexts: Contexts, policy: Policy | None = None
    ) -> None:
        self._ledger, self._door, self._max_body = ledger, door, max_body
        self._contexts, self._policy = contexts, policy

    async def take(self, call: Call) -> None:
        """Keep an export request's spans; what can't be read is counted in ``partialSuccess``."""
        identity = await self._door.enter(call, INFER)
        lease = await leased(self._policy, self._contexts(identity), TRACE, "traces", _NEED)
        try:
            await self._taken(call, identity)
        finally:
            if lease is not None:
                await lease.settle(_NEED)

    async def _taken(self, call: Call, identity: Identity) -> None:
        body = await call.body(self._max_body)
        kind = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind not in (b"application/json", _PROTOBUF):
            raise Refused(415, "unsupported_media_type", "send application/json or application/x-protobuf")
        coding = call.headers.get(b"content-encoding", b"")
        # in a thread: thousands of spans take a while, and other callers wait for the loop
        taken = await asyncio.to_thread(self._read, identity, body, coding, kind)
        if taken.records:
            await self._ledger.append(identity.scope, taken.records, taken.payloads)
        if kind == _PROTOBUF:
            await call.answer(200, _answer(taken.refused, taken.why), ((b"content-type", _PROTOBUF),))
            return
        partial = {"partialSuccess": {"rejectedSpans": str(taken.refused), "errorMessage": taken.why}}
        await call.answer(200, to_json(partial if taken.refused else {}), (JSON,))

    def _read(self, identity: Identity, body: bytes, coding: bytes, kind: bytes) -> Taken:
        data = _unpacked(body, coding, self._max_body)
        export = _from_protobuf(data) if kind == _PROTOBUF else _from_json(data)
        return records_of(export, identity.scope, identity.principal, self._ledger.seal)


def _unpacked(body: bytes, coding: bytes, limit: int) -> bytes:
    """The body, unpacked to at most ``limit`` bytes: a small one may hold a very large one.

    Raises:
        Refused: if it is larger, or packed in another way.
    """
    match coding.strip().lower():
        case b"" | b"identity":
            return body
        case b"gzip":
            unpacking = zlib.decompressobj(wbits=31)
            try:
                data = unpacking.decompress(body, limit + 1)
            except zlib.error:
                raise InvalidInput("the body is no gzip") from None
            if len(data) > limit:
                raise Refused(413, "too_large", f"the body has more than {limit} bytes, unpacked")
            if not unpacking.eof or unpacking.unused_data:
                raise InvalidInput("the body is no gzip, or not all of it")
            return data
        case _:
            raise Refused(415, "unsupported_media_type", "the body may be packed with gzip, or not at all")


def _from_json(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        raise InvalidInput("the body is no JSON") from None


def _from_protobuf(body: bytes) -> Any:
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except (DecodeError, RecursionError):
        raise InvalidInput("the body is no export request of traces") from None
    export: Any = MessageToDict(request)
    for group in export.get("resourceSpans", ()):
        for scoped in group.get("scopeSpans", ()):
            for span in scoped.get("spans", ()):
                # protobuf's own JSON has bytes in base64, OTLP's has ids in hexadecimal
                span |= {name: base64.b64decode(span[name]).hex() for name in _IDS if name in span}
    return export


def _answer(refused: int, why: str) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    if refused:
        answer.partial_success.rejected_spans = refused
        answer.partial_success.error_message = why
    return answer.SerializeToString()
