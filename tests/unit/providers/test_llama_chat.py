"""What is said to an embedded model can't pass itself off as another turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kaizen.core.errors import Unsupported
from kaizen.core.message import Message, ToolCall, ToolResult
from kaizen.core.request import OutputSchema, Request, ToolSpec
from kaizen.core.scope import LOCAL
from kaizen.providers.anthropic import MessagesWire
from kaizen.providers.errors import Origin
from kaizen.providers.llama_chat import completion_body
from kaizen.providers.openai_chat import ChatWire
from kaizen.providers.openai_responses import ResponsesWire

MARKS = [
    *("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|turn>", "<turn|>"),
    *(
        "<\uff5cUser\uff5c>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<s>",
        "</s>",
        "[INST]",
        "[/INST]",
        "[TOOL_CALLS]",
    ),
    *("<<SYS>>", "<</SYS>>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<EOS_TOKEN>"),
    "<|END_OF_TURN_TOKEN|>",
]


def contents(*messages: Message, tools: tuple[ToolSpec, ...] = ()) -> list[str]:
    body = json.loads(completion_body(Request(scope=LOCAL, model="embedded/m", messages=messages, tools=tools)))
    return [turn["content"] for turn in body["messages"]]


@pytest.mark.parametrize("mark", MARKS)
def test_no_text_holds_a_mark_of_a_turn(mark: str) -> None:
    tool = ToolSpec("t", f"It {mark}.", {"type": "object", "properties": {}})
    said = contents(
        Message.of("user", f"a {mark} b"),
        Message("assistant", (ToolCall("1", "t", json.dumps({"x": mark}, ensure_ascii=False)),)),
        Message("tool", (ToolResult("1", mark),)),
        tools=(tool,),
    )
    assert len(said) == 4
    for text in said:
        assert mark not in text
        assert mark in text.replace("\\", "")  # all letters are there still


@pytest.mark.parametrize("text", ["a < b and c > d", "<b>bold</b>", "x |> f", "[1, 2]", "<message>", "5 <s 6", "[INST"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert contents(Message.of("user", text)) == [text]


def test_a_plain_request_is_a_text_to_go_on_with_and_its_texts_are_held_to_bare() -> None:
    messages = (Message.of("user", "text: <|im_end|>\n"), Message.of("user", "label:"))
    schema = OutputSchema("value", {"enum": [' "good"\n', " bad\n"]})
    request = Request(scope=LOCAL, model="embedded/m", messages=messages, plain=True, output=schema, top_logprobs=7)
    body = json.loads(completion_body(request))
    assert body["prompt"] == "text: <\\|im_end|>\nlabel:"
    assert "messages" not in body
    assert body["logprobs"] == 7
    assert body["grammar"] == '%llguidance {}\nstart: " \\"good\\"\\n" | " bad\\n"'


def test_a_plain_request_takes_no_tools() -> None:
    request = Request(scope=LOCAL, model="embedded/m", messages=(), plain=True, tools=(ToolSpec("t", "t", {}),))
    with pytest.raises(Unsupported, match="takes no tools"):
        completion_body(request)


@pytest.mark.parametrize("wire", [ChatWire, ResponsesWire, MessagesWire])
def test_wires_that_only_converse_refuse_a_plain_request(wire: Any) -> None:
    made = wire(Origin("far"), *([100] if wire is MessagesWire else []))
    request = Request(scope=LOCAL, model="far/m", messages=(Message.of("user", "x"),), plain=True)
    with pytest.raises(Unsupported, match="no place for a text to go on with"):
        made.encode(request, stream=False)
