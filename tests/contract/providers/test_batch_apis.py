"""The vendors' batch APIs against a real server, and what it sends against the vendors' own SDKs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from kaizen.core.errors import ProviderError, Unavailable
from kaizen.core.message import Message
from kaizen.core.request import Reply, Request
from kaizen.core.scope import LOCAL
from kaizen.providers.anthropic import AnthropicProvider
from kaizen.providers.batches.anthropic import AnthropicBatches
from kaizen.providers.batches.openai import OpenAIBatches
from kaizen.providers.openai import OpenAIProvider
from kaizen.testing.batch_server import BatchServer
from kaizen.testing.fault_server import Fault, status

KINDS = ("chat", "responses", "messages")


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer(lambda body: f"heard {body['model']}") as running:
        yield running


Api = OpenAIBatches | AnthropicBatches


def api(server: BatchServer, kind: str) -> Api:
    if kind == "messages":
        return AnthropicBatches(AnthropicProvider("mine", base_url=server.base_url, api_key="k"))
    return OpenAIBatches(OpenAIProvider("mine", base_url=server.base_url, api_key="k", api=kind))  # type: ignore[arg-type] - one of two


def calls(key: str, count: int = 2) -> dict[str, Request]:
    request = Request(scope=LOCAL, model="mine/large", messages=(Message.of("user", "hello"),))
    return {f"{key}-{number}": request for number in range(count)}


def text(result: Reply | ProviderError) -> str:
    assert isinstance(result, Reply)
    return result.text


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_from_end_to_end(server: BatchServer, kind: str) -> None:
    one = api(server, kind)
    server.done = False
    wanted = calls("key")
    batch = await one.submit("key", wanted)
    assert not await one.ended(batch)
    server.done = True
    assert await one.ended(batch)
    results = await one.results(batch, wanted)
    assert {call: text(result) for call, result in results.items()} == dict.fromkeys(wanted, "heard large")
    reply = results["key-0"]
    assert isinstance(reply, Reply)
    assert (reply.model, reply.usage.tokens_in, reply.usage.tokens_out) == ("mine/large", 20, 7)
    assert await one.results(batch, {"other": wanted["key-0"]}) == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_is_found_by_our_name_of_it(server: BatchServer, kind: str) -> None:
    one = api(server, kind)
    since = time.time()
    assert await one.find("key", since, ()) == (None, True)
    await one.submit("other", calls("other"))
    batch = await one.submit("key", calls("key"))
    assert await one.find("key", since, ()) == (batch, True)
    assert await one.find("nobody", since, ()) == (None, True)
    assert await one.find("key", since + 1000.0, ()) in [
        (batch, True),
        (None, True),
    ]  # by then nobody looks so far back


async def test_what_has_not_ended_may_be_it_where_a_batch_has_no_name(server: BatchServer) -> None:
    one = api(server, "messages")
    server.done = False
    batch = await one.submit("key", calls("key"))
    assert await one.find("key", time.time(), ()) == (None, False)
    assert await one.find("key", time.time(), {batch}) == (None, True)  # it is known to be another
    named = api(server, "chat")
    assert await named.find("key", time.time(), ()) == (None, True)


@pytest.mark.parametrize("kind", KINDS)
async def test_pages_are_turned(server: BatchServer, kind: str) -> None:
    one = api(server, kind)
    batch = await one.submit("key", calls("key"))
    now = time.time()
    other = {"id": "b-9", "created_at": now, "metadata": None, "processing_status": "ended", "results_url": None}
    if kind == "messages":
        other["created_at"] = "2999-01-01T00:00:00Z"
    server.queue_for("/batches", Fault("body", message=json.dumps({"data": [other], "has_more": True})))
    assert await one.find("key", now, ()) == (batch, True)
    assert "=b-9" in server.calls[-2 if kind == "messages" else -1].path


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_batch_has_no_answers(server: BatchServer, kind: str) -> None:
    one = api(server, kind)
    server.done = False
    batch = await one.submit("key", calls("key"))
    await one.cancel(batch)
    assert (server.cancels, await one.ended(batch)) == (1, True)
    results = await one.results(batch, calls("key"))
    assert [type(result) for result in results.values()] == [Unavailable] * 2
    assert all(isinstance(result, ProviderError) and result.retryable for result in results.values())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_call_is_an_error_of_its_own(server: BatchServer, kind: str) -> None:
    one = api(server, kind)
    server.refused = "hello"
    results = await one.results(await one.submit("key", calls("key")), calls("key"))
    for result in results.values():
        assert isinstance(result, ProviderError)
        assert not result.retryable
        assert "told to refuse" in str(result)


async def test_a_batch_that_failed_is_an_error_of_every_call(server: BatchServer) -> None:
    one = api(server, "chat")
    batch = await one.submit("key", calls("key"))
    failed = {"status": "failed", "errors": {"data": [{"code": "empty_file", "message": "the file is empty"}]}}
    server.queue_for(f"/{batch}", Fault("body", message=json.dumps(failed)))
    results = await one.results(batch, calls("key"))
    assert ["the file is empty" in str(result) for result in results.values()] == [True, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fault",
    [status(404), status(500), Fault("html"), Fault("body", message="[]"), Fault("body", message="{}")],
    ids=["404", "500", "html", "list", "empty"],
)
async def test_what_is_no_answer_is_an_error(server: BatchServer, kind: str, fault: Fault) -> None:
    server.queue_for("/batches", fault)
    with pytest.raises(ProviderError):
        await api(server, kind).submit("key", calls("key"))


@pytest.mark.parametrize("kind", KINDS)
async def test_results_that_can_not_be_read_are_errors(server: BatchServer, kind: str) -> None:
    one = api(server, kind)
    batch = await one.submit("key", calls("key", 1))
    path = "/results" if kind == "messages" else "/content"
    lines: list[Any] = [{"custom_id": "key-0", "response": {"status_code": 200, "body": {}}}]
    if kind == "messages":
        lines = [{"custom_id": "key-0", "result": {"type": "succeeded", "message": {}}}]
    server.queue_for(path, Fault("body", message=json.dumps(lines[0])))  # without a line end
    [result] = (await one.results(batch, calls("key", 1))).values()
    assert isinstance(result, Unavailable)
    for fault in (status(503), Fault("body", message="no JSON\n")):
        server.queue_for(path, fault)
        with pytest.raises(Unavailable):
            await one.results(batch, calls("key", 1))


def test_the_vendors_own_libraries_read_the_servers_batches(server: BatchServer) -> None:
    theirs = openai.OpenAI(base_url=server.base_url, api_key="k")
    body = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = theirs.files.create(file=("a.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = theirs.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"kaizen": "x"}
    )
    found = theirs.batches.retrieve(batch.id)
    assert (found.status, found.metadata) == ("completed", {"kaizen": "x"})
    assert found.output_file_id is not None
    assert "heard large" in theirs.files.content(found.output_file_id).text
    assert [one.id for one in theirs.batches.list()] == [batch.id]
    other = anthropic.Anthropic(base_url=server.address, api_key="k")
    params: Any = {"model": "large", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    message = other.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
    assert other.messages.batches.retrieve(message.id).processing_status == "ended"
    [result] = list(other.messages.batches.results(message.id))
    assert (result.custom_id, result.result.type) == ("a", "succeeded")
    assert other.messages.batches.list().data[0].id == message.id
    theirs.close()
    other.close()
