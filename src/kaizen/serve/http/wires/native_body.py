"""What comes on ``/api/v1/infer``: its parameters, and how they are decoded."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from kaizen.core.request import Effort, Pace, Quality, Routing
from kaizen.serve.http.wires.chat_body import Assistant, Count, Developer, Penalty, Strict, System, Tool, User
from kaizen.serve.http.wires.wire import absent

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=31_536_000)]
Above: TypeAlias = Annotated[float, Meta(gt=0)]
DocumentId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]


class CacheSwitches(Strict):
    """Which caches may answer and keep the call. What is left out is as the gateway and the key have it."""

    exact: bool | None = None
    semantic: bool | None = None
    steps: bool | None = None
    refresh: bool = False
    ttl: Seconds | None = None


class NativeBody(Strict):
    """The native call.

    Exactly one of ``prompt`` and ``messages`` is given. ``documents`` are texts by id that the prompt is about;
    ``document_id`` names one, or several, that the answer depends on and whose text the prompt holds already.
    """

    prompt: str | None = None
    messages: list[System | Developer | User | Assistant | Tool] | None = None
    system: str | None = None
    document_id: DocumentId | list[DocumentId] | None = None
    documents: dict[DocumentId, str] | None = None
    decompose: bool | None = None
    # who answers
    routing_mode: Routing | None = None
    model: str | None = None
    quality_preference: Quality | None = None
    latency_preference: Pace | None = None
    quality_threshold: Annotated[float, Meta(ge=0, le=5)] | None = None
    latency_budget_ms: Above | None = None
    cost_budget_usd: Above | None = None
    task_type: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    fallback: bool = False
    # when, and what may be done about it
    deadline: Seconds | None = None
    cache: CacheSwitches | None = None
    optimize_tokens: bool | None = None
    batch: bool | None = None
    hedge: bool | None = None
    tags: list[Annotated[str, Meta(min_length=1, max_length=256)]] | None = None
    # how it is written
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Count | None = None
    max_tokens: Count | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    reasoning_effort: Effort | None = None
    output_schema: dict[str, Any] | None = None
    tools: msgspec.Raw = msgspec.field(default_factory=absent)
    tool_choice: msgspec.Raw = msgspec.field(default_factory=absent)
    stream: bool = False
    user: str | None = None


BODY: Final = msgspec.json.Decoder(NativeBody)
