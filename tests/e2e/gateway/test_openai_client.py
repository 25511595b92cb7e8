"""The real OpenAI client against the gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.gateway.conftest import Running

Make = Callable[..., Running]
HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
def here(gateway: Make) -> Running:
    return gateway()


@pytest.fixture
def client(here: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{here.address}/v1", api_key=here.key(), max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", ["mine/large", "answers/large", "claude/large"])
def test_chat_reaches_any_wire(client: openai.OpenAI, here: Running, model: str) -> None:
    reply = client.chat.completions.with_raw_response.create(model=model, messages=HELLO, max_tokens=50)
    answer = reply.parse()
    assert answer.choices[0].message.content == "Hello from the far side."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 7)
    record = here.records()[0]
    assert reply.headers["x-kaizen-record"] == record.id == answer.id.removeprefix("chatcmpl-")
    assert reply.headers["x-kaizen-model"] == record.model == model
    assert reply.headers["x-kaizen-cache"] == "miss"
    assert (record.scope.tenant, record.tokens_in, record.tokens_out) == ("acme", 20, 7)
    assert record.principal.startswith("key:")


@pytest.mark.parametrize("model", ["mine/large", "answers/large", "claude/large"])
def test_a_stream_has_pieces_usage_and_an_end(client: openai.OpenAI, here: Running, model: str) -> None:
    stream = client.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello from the far side."
    assert len(chunks) > 4
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 27
    assert stream.response.headers["x-kaizen-record"] == here.records()[0].id


def test_without_include_usage_no_chunk_has_one(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="mine/large", messages=HELLO, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("model", ["mine/large", "answers/large", "claude/large"])
def test_tools_go_there_and_calls_come_back(client: openai.OpenAI, here: Running, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=HELLO, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}
    )
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Paris"}')
    sent = here.upstream.calls[-1].json
    assert "weather" in str(sent["tool_choice"])
    again: Any = [
        *HELLO,
        message.model_dump(exclude_unset=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    client.chat.completions.create(model=model, messages=again, tools=[TOOL], parallel_tool_calls=False)
    assert "sunny" in here.upstream.calls[-1].body.decode()
    assert call.id in here.upstream.calls[-1].body.decode()


def test_streamed_tool_calls_are_put_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="mine/large", messages=HELLO, tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city":"Paris"}')
    assert final.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("model", ["mine/large", "answers/large", "claude/large"])
def test_structured_output_is_parsed(client: openai.OpenAI, here: Running, model: str) -> None:
    class Triage(BaseModel):
        team: str
        urgency: int

    here.upstream.reply = '{"team": "cards", "urgency": 5}'
    answer = client.chat.completions.parse(model=model, messages=HELLO, response_format=Triage)
    assert answer.choices[0].message.parsed == Triage(team="cards", urgency=5)
    assert "urgency" in here.upstream.calls[-1].body.decode()


def test_any_json_object_is_asked_for(client: openai.OpenAI, here: Running) -> None:
    here.upstream.reply = "{}"
    client.chat.completions.create(model="mine/large", messages=HELLO, response_format={"type": "json_object"})
    assert here.upstream.calls[-1].json["response_format"] == {"type": "json_object"}
    with pytest.raises(openai.BadRequestError, match="no place for JSON without a schema"):
        client.chat.completions.create(model="claude/large", messages=HELLO, response_format={"type": "json_object"})


@pytest.mark.parametrize("model", ["mine/large", "answers/large", "claude/large"])
def test_images_pass_through(client: openai.OpenAI, here: Running, model: str) -> None:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    messages: Any = [{"role": "user", "content": parts}]
    client.chat.completions.create(model=model, messages=messages)
    assert "iVBORw0KGgo=" in here.upstream.calls[-1].body.decode()


def test_every_parameter_arrives(client: openai.OpenAI, here: Running) -> None:
    client.chat.completions.create(
        model="mine/large",
        messages=[{"role": "developer", "content": "be brief"}, *HELLO],
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=50,
        seed=7,
        stop=["x", "y"],
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=2,
        reasoning_effort="low",
        user="u-1",
        metadata={"a": "b"},
        store=False,
    )
    sent = here.upstream.calls[-1].json
    assert sent["messages"][0] == {"role": "system", "content": "be brief"}
    assert sent["logit_bias"] == {"50256": -100.0}
    expected = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "seed": 7, "stop": ["x", "y"], "user": "u-1"}
    expected |= {"presence_penalty": 0.1, "frequency_penalty": -0.2, "logprobs": True, "top_logprobs": 2}
    assert expected.items() <= sent.items()
    assert sent["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    ("model", "asked", "param"),
    [
        ("claude/large", {"seed": 7}, "seed"),
        ("claude/large", {"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ("answers/large", {"seed": 7}, "seed"),
    ],
)
def test_what_a_provider_has_no_place_for_is_named_and_not_dropped(
    client: openai.OpenAI, here: Running, model: str, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=HELLO, **asked)
    assert (caught.value.param, caught.value.code) == (param, "unsupported")
    assert here.upstream.count == 0


def test_several_answers_are_several_calls(client: openai.OpenAI, here: Running) -> None:
    reply = client.chat.completions.with_raw_response.create(model="mine/large", messages=HELLO, n=3)
    answer = reply.parse()
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 3 * 27
    assert here.upstream.count == 3
    assert set(reply.headers["x-kaizen-record"].split(",")) == {one.id for one in here.records()}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"service_tier": "flex"}, "service_tier"),
        ({"store": True}, "store"),
        ({"n": 2, "stream": True}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"temperature": 5}, "temperature"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"extra_body": {"guided_json": {}}}, "guided_json"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "messages[0].name"),
        ({"model": "no/such"}, "model"),
    ],
)
def test_what_is_not_supported_is_named(client: openai.OpenAI, here: Running, body: dict[str, Any], param: str) -> None:
    given: Any = {"model": "mine/large", "messages": HELLO, **body}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        client.chat.completions.create(**given)
    assert param in str(caught.value)
    assert here.upstream.count == 0


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("429", openai.RateLimitError, "rate_limited"),
        ("503", openai.InternalServerError, "unavailable"),
        ("401", openai.InternalServerError, "auth_failed"),
        ("400", openai.BadRequestError, "provider_error"),
        ("hangup", openai.InternalServerError, "unavailable"),
        ("html", openai.InternalServerError, "unavailable"),
    ],
)
def test_a_providers_failure_has_its_own_status(
    client: openai.OpenAI, fault: str, error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(model=f"mine/{fault}", messages=HELLO)
    assert caught.value.code == code
    assert "sk-upstream-secret" not in str(caught.value)
    if fault == "429":
        assert caught.value.response.headers["retry-after"] == "1"


def test_a_wrong_key_is_told_so(here: Running) -> None:
    for key in ("kz_0000000000000000_nothing", "sk-else"):
        base = f"{here.address}/v1"
        with openai.OpenAI(base_url=base, api_key=key) as client, pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="mine/large", messages=HELLO)
        assert caught.value.response.headers["www-authenticate"].startswith("Bearer")
    assert here.upstream.count == 0


def test_models_are_those_that_the_key_may_ask(gateway: Make) -> None:
    here = gateway(aliases={"fast": "mine/large"})
    with openai.OpenAI(base_url=f"{here.address}/v1", api_key=here.key(models=["mine/*"]), max_retries=0) as client:
        names = [model.id for model in client.models.list()]
        assert {"mine/large", "fast"} <= set(names)
        assert not [name for name in names if name.startswith(("claude/", "embedded/"))]
        assert client.models.retrieve("mine/large").owned_by == "mine"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("claude/large")
        assert client.chat.completions.create(model="fast", messages=HELLO).model == "mine/large"
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="claude/large", messages=HELLO)
    assert here.upstream.count == 1


def test_embeddings_are_points_that_tell_what_is_alike(client: openai.OpenAI, here: Running) -> None:
    texts = ["The cat sat on the mat.", "A cat was sitting on a mat.", "Interest rates rose in May."]
    reply = client.embeddings.with_raw_response.create(model="embedded/wordllama", input=texts)
    cat, same, other = (one.embedding for one in reply.parse().data)
    assert sum(x * x for x in cat) == pytest.approx(1, abs=1e-3)

    def alike(one: list[float], two: list[float]) -> float:
        return sum(x * y for x, y in zip(one, two, strict=True))

    assert alike(cat, same) > alike(cat, other) + 0.3
    record = here.records()[0]
    assert (record.id, record.ref, record.cost_usd) == (reply.headers["x-kaizen-record"], "embedded/wordllama", 0.0)
    assert record.tokens_in == reply.parse().usage.prompt_tokens > 0
    plain = client.embeddings.create(model="embedded/wordllama", input=texts[0], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(cat)
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="embedded/wordllama", input="x", dimensions=3)
    with pytest.raises(openai.NotFoundError, match="no embedder"):
        client.embeddings.create(model="embedded/nothing", input="x")


def test_embeddings_count_against_a_keys_limits(here: Running) -> None:
    key = here.key(limits={"requests_per_minute": 1}, models=["embedded/*"])
    with openai.OpenAI(base_url=f"{here.address}/v1", api_key=key, max_retries=0) as client:
        client.embeddings.create(model="embedded/wordllama", input="x")
        with pytest.raises(openai.RateLimitError):
            client.embeddings.create(model="embedded/wordllama", input="x")
        with pytest.raises(openai.PermissionDeniedError):
            client.embeddings.create(model="mine/large", input="x")


# -- responses ---


@pytest.mark.parametrize("model", ["mine/large", "answers/large", "claude/large"])
def test_a_response(client: openai.OpenAI, here: Running, model: str) -> None:
    items: Any = [
        {"role": "user", "content": "what is it?"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"role": "user", "content": [{"type": "input_image", "image_url": PIXEL, "detail": "low"}]},
    ]
    answer = client.responses.create(model=model, instructions="be brief", input=items, metadata={"a": "b"})
    assert answer.output_text == "Hello from the far side."
    assert answer.status == "completed"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (20, 7)
    assert answer.metadata == {"a": "b"}
    sent = here.upstream.calls[-1].body.decode()
    assert all(word in sent for word in ("be brief", "sunny", "iVBORw0KGgo="))


def test_a_streamed_response_is_put_together(client: openai.OpenAI) -> None:
    with client.responses.stream(model="mine/large", input="hello") as stream:
        events = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "Hello from the far side."
    assert events[0] == "response.created"
    assert events[-1] == "response.completed"
    assert "response.output_text.delta" in events


def test_a_response_calls_tools(client: openai.OpenAI, here: Running) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": TOOL["function"]["parameters"], "strict": False}
    answer = client.responses.create(model="claude/large", input="hello", tools=[tool], tool_choice="required")
    call: Any = answer.output[0]
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city":"Paris"}')
    with client.responses.stream(model="mine/large", input="hello", tools=[tool]) as stream:
        call = stream.get_final_response().output[0]
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city":"Paris"}')


def test_a_response_of_a_schema(client: openai.OpenAI, here: Running) -> None:
    class Triage(BaseModel):
        team: str

    here.upstream.reply = '{"team": "cards"}'
    answer = client.responses.parse(model="mine/large", input="hello", text_format=Triage)
    assert answer.output_parsed == Triage(team="cards")


@pytest.mark.parametrize(
    ("body", "param"),
    [({"previous_response_id": "r"}, "previous_response_id"), ({"store": True}, "store"), ({"input": []}, "input")],
)
def test_a_response_can_not_be_gone_on_from(client: openai.OpenAI, body: dict[str, Any], param: str) -> None:
    given: Any = {"model": "mine/large", "input": "hello", **body}
    with pytest.raises(openai.BadRequestError, match=param):
        client.responses.create(**given)
