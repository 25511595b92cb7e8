"""What each wire makes of a body and of a reply, where no client in the end-to-end tests goes."""

from __future__ import annotations

import json
from array import array
from base64 import b64decode
from typing import Any

import pytest

from kaizen.core.errors import InvalidInput, Unsupported
from kaizen.core.message import Media, Text, ToolCall, ToolResult
from kaizen.core.protocols import Embeddings
from kaizen.core.request import Options, Reply, Stage, TokenLogprob, Usage
from kaizen.core.scope import Scope
from kaizen.serve.http.problem import Problem, Refused
from kaizen.serve.http.wires import embeddings
from kaizen.serve.http.wires.anthropic import Messages
from kaizen.serve.http.wires.native import Native, takes_apart
from kaizen.serve.http.wires.openai_chat import ChatCompletions
from kaizen.serve.http.wires.openai_responses import Responses
from kaizen.serve.http.wires.wire import Asked, Caller, Wire, opened

ME = Caller(Scope("acme", "prod"), Options(exact=True, models=("mine/*",)), lambda name, vendor: f"{vendor}/{name}")
PIXEL = "data:image/png;base64,iVBORw0KGgo="
USAGE = Usage(20, 7, 5, 3, 2)
CALLS = (ToolCall("c1", "weather", '{"city":"Paris"}'), ToolCall("c2", "odd", "not json"))
LOGPROBS = (TokenLogprob("Hi", -0.1, (("Hi", -0.1), ("Ho", -2.0))),)
BROKEN = Problem(503, "unavailable", "it broke")


def chat(*messages: Any, **more: Any) -> Asked:
    return ChatCompletions().decode(json.dumps({"model": "x", "messages": messages, **more}).encode(), ME)


def response(**body: Any) -> Asked:
    return Responses().decode(json.dumps({"model": "x", "input": "hello", **body}).encode(), ME)


def message(content: Any, **more: Any) -> Asked:
    body = {"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": content}], **more}
    return Messages().decode(json.dumps(body).encode(), ME)


def native(layers: tuple[str, ...] = (), **body: Any) -> Asked:
    return Native(layers).decode(json.dumps(body).encode(), ME)


def events(data: bytes) -> list[Any]:
    lines = [line for line in data.splitlines() if line.startswith(b"data: {")]
    return [json.loads(line[6:]) for line in lines]


def written(wire: Wire, asked: Asked, *pieces: str, reply: Reply) -> bytes:
    opened(asked, "rec")
    writing = wire.writing(asked)
    return writing.begin() + b"".join(writing.text(piece) for piece in pieces) + writing.end(reply)


# -- chat ---


def test_every_part_of_a_chat_is_read() -> None:
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
    ]
    asked = chat(
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": "never"},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "sun"}, {"type": "text", "text": "ny"}],
        },
    )
    system, user, assistant, tool = asked.request.messages
    assert system.parts == (Text("a"), Text("b"))
    assert user.parts == (
        Text("look"),
        Media("image", "image/png", data="iVBORw0KGgo=", detail="low"),
        Media("image", "image/*", url="https://example.org/a.png"),
        Media("audio", "audio/mpeg", data="AA=="),
        Media("file", "application/pdf", data="AA==", name="a.pdf"),
    )
    assert assistant.parts == (Text("no"), Text("never"))
    assert tool.parts == (ToolResult("c1", "sunny"),)
    assert (asked.request.scope, asked.request.options.models) == (ME.scope, ("mine/*",))


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "messages[0].content[0].image_url.url"),
        ({"type": "file", "file": {"file_data": "AA=="}}, "messages[0].content[0].file.file_data"),
    ],
)
def test_what_can_not_be_fetched_is_refused(part: Any, param: str) -> None:
    with pytest.raises(Unsupported) as caught:
        chat({"role": "user", "content": [part]})
    assert caught.value.detail["param"] == param


def test_a_data_url_has_to_be_one() -> None:
    with pytest.raises(Refused, match="data: URL"):
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:nothing"}}]})


@pytest.mark.parametrize("absent", [None, [], ""])
def test_a_call_of_nothing_but_nulls_is_a_plain_one(absent: Any) -> None:
    hello = {"role": "user", "content": "x"}
    plain = chat(hello)
    assert chat(hello, tools=None, response_format={"type": "text"}, stop=absent).request == plain.request
    assert plain.request.decoding is chat({"role": "user", "content": "y"}).request.decoding


def test_a_schema_has_to_be_there() -> None:
    with pytest.raises(Refused, match="schema is missing"):
        chat({"role": "user", "content": "x"}, response_format={"type": "json_schema", "json_schema": {"name": "a"}})


def test_the_same_tools_are_one_object() -> None:
    wire = ChatCompletions()
    tool = {"type": "function", "function": {"name": "weather"}}
    body = json.dumps({"model": "x", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}).encode()
    first, second = (wire.decode(body, ME).request.tools for _ in range(2))
    assert first is second
    for number in range(300):  # it forgets them when they are too many
        wire.decode(body.replace(b"weather", b"w%d" % number), ME)
    assert wire.decode(body, ME).request.tools is not first


def test_a_whole_chat_answer_has_calls_and_log_probabilities() -> None:
    wire, asked = ChatCompletions(), chat({"role": "user", "content": "x"})
    opened(asked, "rec")
    reply = Reply(model="m/x", tool_calls=CALLS, finish="tool_calls", usage=USAGE, logprobs=LOGPROBS)
    choice = json.loads(wire.encode(asked, [reply]))["choices"][0]
    assert choice["message"]["content"] is None
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather", "odd"]
    assert choice["logprobs"]["content"][0]["top_logprobs"][1] == {"token": "Ho", "logprob": -2.0, "bytes": [72, 111]}


def test_a_streamed_chat_ends_with_calls_and_log_probabilities() -> None:
    reply = Reply(model="m/x", text="Hi", tool_calls=CALLS, finish="tool_calls", usage=USAGE, logprobs=LOGPROBS)
    data = written(ChatCompletions(), chat({"role": "user", "content": "x"}), "Hi", reply=reply)
    last = events(data)[-1]["choices"][0]
    assert (last["finish_reason"], last["logprobs"]["content"][0]["token"]) == ("tool_calls", "Hi")
    assert data.endswith(b"data: [DONE]\n\n")


# -- responses ---


def test_every_item_of_a_response_is_read() -> None:
    items = [
        {"role": "developer", "content": "a"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}, {"type": "refusal", "refusal": "c"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "sunny"}]},
        {
            "role": "user",
            "content": [
                {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
                {"type": "input_file", "file_url": "https://example.org/a.pdf"},
            ],
        },
    ]
    system, assistant, tool, user = response(input=items).request.messages
    assert (system.role, system.text) == ("system", "a")
    assert assistant.parts == (Text("b"), Text("c"), ToolCall("c1", "weather", "{}"))
    assert tool.parts == (ToolResult("c1", "sunny"),)
    assert [part.kind for part in user.parts if isinstance(part, Media)] == ["file", "file"]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "function_call", "name": "x", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "x"}, "input[0].output"),
        ({"content": "x"}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": [{"type": "input_file", "file_data": "AA"}]}, "input[0].content[0].file_data"),
        ({"role": "system", "content": [{"type": "input_image", "image_url": PIXEL}]}, "input[0].content"),
    ],
)
def test_an_item_that_lacks_something_is_named(item: Any, param: str) -> None:
    with pytest.raises((Refused, Unsupported), match=param.replace("[", r"\[").replace("]", r"\]")):
        response(input=[item])


def test_a_response_names_its_tool_and_its_format() -> None:
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    asked = response(tools=[tool], tool_choice={"type": "function", "name": "weather"}, top_logprobs=2)
    assert (asked.request.tool_choice, asked.request.tool, asked.request.top_logprobs) == ("required", "weather", 2)
    assert response(text={"format": {"type": "json_object"}}).request.json_object
    assert response(text={"format": {"type": "text"}}).request == response().request


def test_a_response_that_was_cut_is_incomplete() -> None:
    reply = Reply(model="m/x", text="Hi", finish="length", usage=USAGE, logprobs=LOGPROBS)
    found = events(written(Responses(), response(), "H", "i", reply=reply))
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert (found[-1]["type"], found[-1]["response"]["status"]) == ("response.incomplete", "incomplete")


def test_a_response_of_no_text_still_has_a_message() -> None:
    found = events(written(Responses(), response(), reply=Reply(model="m/x", usage=USAGE)))
    assert "response.output_item.added" in [one["type"] for one in found]
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == ""


# -- messages ---


def test_every_block_of_a_message_is_read() -> None:
    asked = message(
        [
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="}},
            {"type": "tool_result", "tool_use_id": "c1", "is_error": True},
        ],
        system="be brief",
        tools=[{"name": "w", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "none"},
        stop_sequences=["x"],
        top_k=5,
    )
    system, user = asked.request.messages
    assert system.text == "be brief"
    assert user.parts[0] == Text("a", "1h")
    assert user.parts[-1] == ToolResult("c1", "", True)
    assert (asked.request.tools[0].mark, asked.request.tool_choice) == ("5m", "none")
    assert (asked.request.decoding.top_k, asked.request.decoding.stop) == (5, ("x",))


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "text", "data": "x"}},
        {"type": "image", "source": {"type": "base64", "data": "x"}},
        {"type": "document", "source": {"type": "url"}},
    ],
)
def test_a_source_that_is_none_is_refused(block: Any) -> None:
    with pytest.raises(Unsupported, match=r"messages\[0\]\.content\[0\]\.source"):
        message([block])


def test_a_message_needs_a_bound() -> None:
    with pytest.raises(Refused, match="max_tokens is missing"):
        Messages().decode(b'{"model": "x", "messages": [{"role": "user", "content": "x"}]}', ME)


def test_a_call_whose_arguments_are_no_object_is_shown_as_it_was_written() -> None:
    wire, asked = Messages(), message("x")
    opened(asked, "rec")
    reply = Reply(model="m/x", text="so", tool_calls=CALLS, finish="tool_calls", usage=USAGE)
    content = json.loads(wire.encode(asked, [reply]))["content"]
    assert [block.get("input") for block in content] == [None, {"city": "Paris"}, {"arguments": "not json"}]
    data = written(wire, message("x"), "so", reply=reply)
    assert [one["type"] for one in events(data)][-2:] == ["message_delta", "message_stop"]


def test_a_streamed_message_of_no_text_has_an_empty_block() -> None:
    found = events(written(Messages(), message("x"), reply=Reply(model="m/x", usage=USAGE)))
    assert [one["type"] for one in found][1:4] == ["content_block_start", "content_block_delta", "content_block_stop"]
    assert found[-2]["usage"]["input_tokens"] == 12


def test_the_estimate_counts_calls_and_results_but_no_images() -> None:
    blocks = [
        {"type": "text", "text": "x" * 8},
        {"type": "tool_result", "tool_use_id": "c", "content": "y" * 8},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400}},
    ]
    turns = [
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "abcd", "input": {}}]},
    ]
    body = json.dumps({"model": "x", "max_tokens": 9, "messages": turns}).encode()
    assert json.loads(Messages().count(body, ME)) == {"input_tokens": 6}


# -- native ---


def test_wishes_become_options() -> None:
    layers = ("route", "compress", "batch", "failover", "exact", "semantic")
    asked = native(
        layers,
        prompt="x",
        documents={"7f": "text"},
        document_id=["8a"],
        routing_mode="autopilot",
        quality_preference="max",
        latency_preference="instant",
        quality_threshold=4.5,
        latency_budget_ms=100,
        cost_budget_usd=0.5,
        task_type="triage",
        deadline=60,
        cache={"exact": False, "semantic": True, "refresh": True, "ttl": 9},
        optimize_tokens=True,
        batch=True,
        hedge=True,
        tags=["program:x"],
    )
    options = asked.request.options
    assert (options.routing, options.quality, options.pace) == ("autopilot", "max", "instant")
    assert (options.quality_threshold, options.latency_budget_ms, options.cost_budget_usd) == (4.5, 100, 0.5)
    assert (options.exact, options.semantic, options.refresh, options.ttl) == (False, True, True, 9)
    assert (options.compress, options.batch, options.hedge, options.task) == (True, True, True, "triage")
    assert options.tags == ("document:8a", "document:7f", "program:x")
    assert options.models == ("mine/*",)
    assert asked.request.deadline is not None
    assert asked.request.messages[0].text == "text\n\nx"
    assert native(layers, prompt="x").request.options.routing == "guided"
    assert native(layers, prompt="x", model="y").request.options.routing == "explicit"


def test_a_native_call_takes_schemas_and_tools() -> None:
    tool = {"type": "function", "function": {"name": "weather"}}
    choice = {"type": "function", "function": {"name": "weather"}}
    asked = native(prompt="x", tools=[tool], tool_choice=choice, output_schema={"type": "object"}, stop="x")
    assert asked.request.output is not None
    assert (asked.request.tool, asked.request.decoding.stop) == ("weather", ("x",))
    assert native(messages=[{"role": "user", "content": "y"}], stop=["a"]).request.messages[0].text == "y"


def test_what_asks_for_a_layer_that_is_off_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"cache\.exact can't be met"):
        native(prompt="x", cache={"exact": True})
    assert native(("exact",), prompt="x", cache={"exact": True}).request.options.exact is True


@pytest.mark.parametrize(
    ("body", "apart"),
    [
        ({}, True),
        ({"decompose": True}, True),
        ({"decompose": False}, False),
        ({"cache": {"steps": False}}, False),
        ({"cache": {"steps": True}}, True),
        ({"max_tokens": 5}, False),
        ({"cache": {"refresh": True}}, False),
        ({"document_id": ["a", "b"]}, False),
        ({"document_id": "a"}, True),
    ],
)
def test_which_prompts_may_be_taken_apart(body: dict[str, Any], apart: bool) -> None:
    assert takes_apart(native(prompt="Who? What?", **body)) is apart


@pytest.mark.parametrize("body", [{"stream": True}, {"cache": {"refresh": True}}, {"routing_mode": "guided"}])
def test_what_is_about_one_call_does_not_go_with_several(body: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="is about one call"):
        takes_apart(native(("route",), prompt="x", decompose=True, **body))


def test_an_answer_says_what_each_layer_did() -> None:
    wire, asked = Native(("route", "semantic")), native(("route", "semantic"), prompt="x")
    opened(asked, "rec")
    stages = (
        Stage("route", 0.5, 0.2, {"alternatives": [{"model": "m/y"}], "reason": "cheapest", "task": "chat"}),
        Stage("semantic", 0.1, None, {"similarity": 0.97}),
    )
    reply = Reply(model="m/x", text="Hi", usage=USAGE, cost_usd=0.1, tier="semantic", stages=stages, record_id="rec")
    answer = json.loads(wire.encode(asked, [reply]))
    assert answer["alternatives"] == [{"model": "m/y"}]
    assert answer["why"] == {"routing_mode": "guided", "reason": "cheapest", "task": "chat"}
    assert (answer["task_type"], answer["cache"]) == ("chat", {"tier": "semantic", "similarity": 0.97})
    assert [layer["cost_without_usd"] for layer in answer["layers"]] == [pytest.approx(0.3), None]
    assert answer["saved_usd"] is None
    assert answer["latency_ms"]["stages"] == {"route": 0.5, "semantic": 0.1}


# -- embeddings ---


def test_points_are_given_as_numbers_or_in_base64() -> None:
    points = Embeddings("m/e", 2, array("f", [0.5, -1.0, 0.25, 2.0]).tobytes(), Usage(tokens_in=9))
    plain = embeddings.decode(b'{"model": "e", "input": ["a", "b"]}')
    answer = json.loads(embeddings.encode(plain, points))
    assert [one["embedding"] for one in answer["data"]] == [[0.5, -1.0], [0.25, 2.0]]
    assert (answer["usage"]["total_tokens"], answer["model"]) == (9, "m/e")
    coded = embeddings.decode(b'{"model": "e", "input": "a", "encoding_format": "base64", "dimensions": 2}')
    data = json.loads(embeddings.encode(coded, points))["data"][1]["embedding"]
    assert array("f", b64decode(data)).tolist() == [0.25, 2.0]
    with pytest.raises(Unsupported, match="dimensions of m/e are 2"):
        embeddings.encode(embeddings.decode(b'{"model": "e", "input": "a", "dimensions": 3}'), points)
    with pytest.raises(Refused, match="empty text"):
        embeddings.decode(b'{"model": "e", "input": ["a", ""]}')


@pytest.mark.parametrize("wire", [ChatCompletions(), Responses(), Messages(), Native(())], ids=lambda wire: wire.name)
def test_a_failure_is_told_in_the_wires_own_shape(wire: Wire) -> None:
    bodies: dict[str, Asked] = {
        "chat": chat({"role": "user", "content": "x"}),
        "responses": response(),
        "messages": message("x"),
        "infer": native(prompt="x"),
    }
    asked = bodies[wire.name]
    opened(asked, "rec")
    failed = wire.writing(asked).fail(BROKEN)
    assert b"it broke" in failed
    assert b"[DONE]" not in failed
    assert "it broke" in json.dumps(json.loads(wire.error(BROKEN, "req-1")))
