"""What comes on ``/v1/chat/completions``: the shapes of OpenAI's parameters, and how they are decoded."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from kaizen.core.request import Effort, OutputSchema, ToolChoice, ToolSpec
from kaizen.serve.http.problem import Refused
from kaizen.serve.http.wires.wire import absent, check_depth, decoded

MOST_ANSWERS: Final = 16

Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=2**31)]


class Strict(Struct, forbid_unknown_fields=True):
    """What is not known here is refused by its name."""


class TextPart(Strict, tag_field="type", tag="text"):
    """Text."""

    text: str


class RefusalPart(Strict, tag_field="type", tag="refusal"):
    """What an assistant said instead of an answer."""

    refusal: str


class ImageUrl(Strict):
    """Where an image is."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict, tag_field="type", tag="image_url"):
    """An image."""

    image_url: ImageUrl


class InputAudio(Strict):
    """Sound, in base64."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(Strict, tag_field="type", tag="input_audio"):
    """Sound."""

    input_audio: InputAudio


class FileData(Strict):
    """A file as a ``data:`` URL."""

    file_data: str
    filename: str | None = None


class FilePart(Strict, tag_field="type", tag="file"):
    """A file."""

    file: FileData


class FunctionCall(Strict):
    """What is called, and with what."""

    name: str
    arguments: str


class CallParam(Strict):
    """A call of a tool."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"
    index: int | None = None


class System(Strict, tag_field="role", tag="system"):
    """Instructions."""

    content: str | list[TextPart]


class Developer(Strict, tag_field="role", tag="developer"):
    """Instructions, by their newer name."""

    content: str | list[TextPart]


class User(Strict, tag_field="role", tag="user"):
    """A user's turn."""

    content: str | list[TextPart | ImagePart | AudioPart | FilePart]


class Assistant(Strict, tag_field="role", tag="assistant"):
    """The other fields are those that a client sends back of an answer; none of them says anything here."""

    content: str | list[TextPart | RefusalPart] | None = None
    tool_calls: list[CallParam] | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class Tool(Strict, tag_field="role", tag="tool"):
    """What a tool gave."""

    content: str | list[TextPart]
    tool_call_id: str


class StreamOptions(Strict):
    """What a stream holds."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class ChatBody(Strict):
    """The parameters that are supported. Those of a Literal alone take the value that changes nothing."""

    model: str
    messages: list[System | Developer | User | Assistant | Tool]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Count | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_ANSWERS)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: msgspec.Raw = msgspec.field(default_factory=absent)
    tool_choice: msgspec.Raw = msgspec.field(default_factory=absent)
    parallel_tool_calls: bool | None = None
    response_format: msgspec.Raw = msgspec.field(default_factory=absent)
    reasoning_effort: Effort | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    modalities: tuple[Literal["text"]] | None = None


class FunctionParam(Strict):
    """A function."""

    name: Annotated[str, Meta(min_length=1)]
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolParam(Strict):
    """A tool."""

    function: FunctionParam
    type: Literal["function"] = "function"


class FunctionName(Strict):
    """A function's name."""

    name: str


class NamedChoice(Strict):
    """The tool that has to be called."""

    function: FunctionName
    type: Literal["function"] = "function"


class SchemaParam(Strict, rename={"body": "schema"}):
    """A schema with its name."""

    name: Annotated[str, Meta(min_length=1)]
    body: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class PlainFormat(Strict, tag_field="type", tag="text"):
    """Any text."""


class ObjectFormat(Strict, tag_field="type", tag="json_object"):
    """Any JSON object."""


class SchemaFormat(Strict, tag_field="type", tag="json_schema"):
    """JSON of a schema."""

    json_schema: SchemaParam


BODY: Final = msgspec.json.Decoder(ChatBody)
_tool_list: Final = msgspec.json.Decoder(list[ToolParam])
_choice: Final[msgspec.json.Decoder[Literal["auto", "required", "none"] | NamedChoice]] = msgspec.json.Decoder(
    Literal["auto", "required", "none"] | NamedChoice
)
_format: Final[msgspec.json.Decoder[PlainFormat | ObjectFormat | SchemaFormat]] = msgspec.json.Decoder(
    PlainFormat | ObjectFormat | SchemaFormat
)


def tools_of(raw: bytes) -> tuple[ToolSpec, ...]:
    """The tools that are offered."""
    found = decoded(_tool_list, raw, "tools")
    specs: list[ToolSpec] = []
    for at, tool in enumerate(found):
        schema = tool.function.parameters or {"type": "object", "properties": {}}
        check_depth(schema, f"tools[{at}].function.parameters")
        specs.append(ToolSpec(tool.function.name, tool.function.description, schema, tool.function.strict))
    return tuple(specs)


def choice_of(raw: bytes) -> tuple[ToolChoice, str | None]:
    """Whether one has to be called, and which."""
    found = decoded(_choice, raw, "tool_choice")
    return ("required", found.function.name) if isinstance(found, NamedChoice) else (found, None)


def format_of(raw: bytes) -> tuple[OutputSchema | None, bool]:
    """The schema, and whether any JSON object is wanted."""
    found = decoded(_format, raw, "response_format")
    if not isinstance(found, SchemaFormat):
        return None, isinstance(found, ObjectFormat)
    said = found.json_schema
    if said.body is None:
        raise Refused(400, "invalid_request", "response_format.json_schema.schema is missing", param="schema")
    check_depth(said.body, "response_format.json_schema.schema")
    return OutputSchema(said.name, said.body, said.description), False
