"""What comes on ``/v1/messages``: the shapes of Anthropic's parameters, and how they are decoded."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from kaizen.core.message import Mark
from kaizen.core.request import OutputSchema, ToolSpec
from kaizen.serve.http.wires.chat_body import Count, Strict
from kaizen.serve.http.wires.wire import absent, check_depth, decoded


class CacheControl(Strict):
    """That the provider keeps the prompt up to here."""

    type: Literal["ephemeral"] = "ephemeral"
    ttl: Mark | None = None


class TextBlock(Strict, tag_field="type", tag="text"):
    """Text."""

    text: str
    cache_control: CacheControl | None = None
    citations: None = None


class Source(Strict):
    """Bytes, an address, or plain text."""

    type: Literal["base64", "url", "text"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class ImageBlock(Strict, tag_field="type", tag="image"):
    """An image."""

    source: Source
    cache_control: CacheControl | None = None


class DocumentBlock(Strict, tag_field="type", tag="document"):
    """A document."""

    source: Source
    title: str | None = None
    cache_control: CacheControl | None = None


class ToolUseBlock(Strict, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: msgspec.Raw
    cache_control: CacheControl | None = None
    caller: dict[str, Any] | None = None


class ToolResultBlock(Strict, tag_field="type", tag="tool_result"):
    """What a tool gave."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


Block = TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock


class Turn(Strict):
    """A turn."""

    role: Literal["user", "assistant"]
    content: str | list[Block]


class ToolParam(Strict):
    """A tool."""

    name: Annotated[str, Meta(min_length=1)]
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


class Choice(Strict):
    """Which tool to call."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class SchemaFormat(Strict, rename={"body": "schema"}):
    """JSON of a schema."""

    body: dict[str, Any]
    type: Literal["json_schema"] = "json_schema"


class OutputConfig(Strict):
    """What the text has to be."""

    format: SchemaFormat | None = None


class Metadata(Strict):
    """For whom the call is."""

    user_id: str | None = None


class Thinking(Strict):
    """That it does not think aloud."""

    type: Literal["disabled"]


class MessagesBody(Strict):
    """The parameters that are supported. Those of a Literal alone take the value that changes nothing."""

    model: str
    messages: list[Turn]
    max_tokens: Count = 0
    system: str | list[TextBlock] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Count | None = None
    stop_sequences: list[str] | None = None
    tools: msgspec.Raw = msgspec.field(default_factory=absent)
    tool_choice: Choice | None = None
    output_config: msgspec.Raw = msgspec.field(default_factory=absent)
    metadata: Metadata | None = None
    thinking: Thinking | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


BODY: Final = msgspec.json.Decoder(MessagesBody)
_tool_list: Final = msgspec.json.Decoder(list[ToolParam])
_config: Final = msgspec.json.Decoder(OutputConfig)


def mark_of(control: CacheControl | None) -> Mark | None:
    """How long the provider keeps the prompt up to here."""
    return None if control is None else control.ttl or "5m"


def tools_of(raw: bytes) -> tuple[ToolSpec, ...]:
    """The tools that are offered."""
    specs: list[ToolSpec] = []
    for at, tool in enumerate(decoded(_tool_list, raw, "tools")):
        check_depth(tool.input_schema, f"tools[{at}].input_schema")
        mark = mark_of(tool.cache_control)
        specs.append(ToolSpec(tool.name, tool.description or "", tool.input_schema, tool.strict, mark))
    return tuple(specs)


def output_of(raw: bytes) -> OutputSchema | None:
    """The schema that the answer has to fit."""
    found = decoded(_config, raw, "output_config").format
    if found is None:
        return None
    check_depth(found.body, "output_config.format.schema")
    return OutputSchema("answer", found.body)
