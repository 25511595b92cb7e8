"""A conversation with a part of every kind, for the tests of the dialects."""

from __future__ import annotations

from kaizen.core.message import Media, Message, Text, ToolCall, ToolResult
from kaizen.core.request import Decoding, OutputSchema, Request, ToolSpec
from kaizen.core.scope import LOCAL

IMAGE = Media("image", "image/png", data="aW1n")
IMAGE_URL = Media("image", "image/png", url="https://example.org/a.png")
AUDIO = Media("audio", "audio/mpeg", data="YXVk")
AUDIO_URL = Media("audio", "audio/wav", url="https://example.org/a.wav")
FILE = Media("file", "application/pdf", data="cGRm", name="a.pdf")
FILE_URL = Media("file", "application/pdf", url="https://example.org/a.pdf")

TOOL = ToolSpec("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
OUTPUT = OutputSchema("bank.Triage outputs", {"type": "object", "properties": {"n": {"type": "integer"}}})
FREE = OutputSchema("free", {"type": "object", "additionalProperties": {"type": "integer"}})

EVERYTHING = Request(
    scope=LOCAL,
    model="mine/org/large",
    messages=(
        Message.of("system", "Be brief."),
        Message("user", (Text("Look: "), IMAGE, IMAGE_URL)),
        Message(
            "assistant",
            (Text("I ask."), ToolCall("c1", "weather", '{"city":"Bern"}'), ToolCall("c2", "weather", "oops")),
        ),
        Message("tool", (ToolResult("c1", "sunny"), ToolResult("c2", "no city", is_error=True))),
        Message.of("user", "And now?"),
    ),
    output=OUTPUT,
    tools=(TOOL,),
    tool_choice="required",
    decoding=Decoding(temperature=0.5, top_p=0.9, max_tokens=64, seed=7, stop=("END",)),
    top_logprobs=2,
)  # fmt: skip

SMALL = Request(scope=LOCAL, model="mine/small", messages=(Message.of("user", "hello"),))


def with_media(*media: Media) -> Request:
    """A user's message of these."""
    return Request(scope=LOCAL, model="mine/small", messages=(Message("user", media),))
