"""What comes on ``/v1/responses``: the shapes of OpenAI's parameters, and how they are decoded."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from kaizen.core.request import Effort, OutputSchema, ToolChoice, ToolSpec
from kaizen.serve.http.wires.chat_body import Count, ObjectFormat, PlainFormat, Strict
from kaizen.serve.http.wires.wire import absent, check_depth, decoded


class InputText(Strict, tag_field="type", tag="input_text"):
    """Text."""

    text: str


class OutputText(Strict, tag_field="type", tag="output_text"):
    """As an earlier answer had it; what was noted beside the text says nothing to a model."""

    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(Strict, tag_field="type", tag="refusal"):
    """What an assistant said instead of an answer."""

    refusal: str


class InputImage(Strict, tag_field="type", tag="input_image"):
    """An image."""

    image_url: str
    detail: Literal["auto", "low", "high"] | None = None


class InputFile(Strict, tag_field="type", tag="input_file"):
    """A file, as a ``data:`` URL or by its address."""

    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


class Item(Strict):
    """A message, a call or a call's result; the type may be left out of a message."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[InputText | OutputText | Refusal | InputImage | InputFile] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputText] | None = None
    id: str | None = None
    status: str | None = None


class SchemaFormat(Strict, tag_field="type", tag="json_schema", rename={"body": "schema"}):
    """JSON of a schema."""

    name: Annotated[str, Meta(min_length=1)]
    body: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextParam(Strict):
    """What the text has to be."""

    format: PlainFormat | ObjectFormat | SchemaFormat | None = None


class Reasoning(Strict):
    """How much to reason."""

    effort: Effort | None = None


class FunctionTool(Strict):
    """A tool."""

    name: Annotated[str, Meta(min_length=1)]
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    type: Literal["function"] = "function"


class FunctionChoice(Strict):
    """The tool that has to be called."""

    name: str
    type: Literal["function"] = "function"


class StreamOptions(Strict):
    """What a stream holds."""

    include_obfuscation: Literal[False] | None = None


class ResponsesBody(Strict):
    """The parameters that are supported. Those of a Literal alone take the value that changes nothing."""

    model: str
    input: str | list[Item]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    tools: msgspec.Raw = msgspec.field(default_factory=absent)
    tool_choice: msgspec.Raw = msgspec.field(default_factory=absent)
    parallel_tool_calls: bool | None = None
    text: msgspec.Raw = msgspec.field(default_factory=absent)
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None


BODY: Final = msgspec.json.Decoder(ResponsesBody)
_tool_list: Final = msgspec.json.Decoder(list[FunctionTool])
_choice: Final[msgspec.json.Decoder[Literal["auto", "required", "none"] | FunctionChoice]] = msgspec.json.Decoder(
    Literal["auto", "required", "none"] | FunctionChoice
)
_text: Final = msgspec.json.Decoder(TextParam)


def tools_of(raw: bytes) -> tuple[ToolSpec, ...]:
    """The tools that are offered."""
    specs: list[ToolSpec] = []
    for at, tool in enumerate(decoded(_tool_list, raw, "tools")):
        schema = tool.parameters or {"type": "object", "properties": {}}
        check_depth(schema, f"tools[{at}].parameters")
        specs.append(ToolSpec(tool.name, tool.description or "", schema, tool.strict))
    return tuple(specs)


def choice_of(raw: bytes) -> tuple[ToolChoice, str | None]:
    """Whether one has to be called, and which."""
    found = decoded(_choice, raw, "tool_choice")
    return ("required", found.name) if isinstance(found, FunctionChoice) else (found, None)


def format_of(raw: bytes) -> tuple[OutputSchema | None, bool]:
    """The schema, and whether any JSON object is wanted."""
    found = decoded(_text, raw, "text").format
    match found:
        case SchemaFormat():
            check_depth(found.body, "text.format.schema")
            return OutputSchema(found.name, found.body, found.description), False
        case ObjectFormat():
            return None, True
        case _:
            return None, False
