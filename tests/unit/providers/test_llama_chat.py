"""What is said to an embedded model can't pass itself off as another turn."""

from __future__ import annotations

import json

import pytest

from kaizen.core.message import Message, ToolCall, ToolResult
from kaizen.core.request import Request, ToolSpec
from kaizen.core.scope import LOCAL
from kaizen.providers.llama_chat import chat_body

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
    body = json.loads(chat_body(Request(scope=LOCAL, model="embedded/m", messages=messages, tools=tools)))
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
