from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from kaizen.core.errors import AuthFailed, ProviderError, RateLimited
from kaizen.core.message import Message
from kaizen.core.request import Request
from kaizen.core.scope import LOCAL
from kaizen.providers.anthropic import AnthropicProvider
from kaizen.providers.openai import OpenAIProvider
from kaizen.testing.fault_server import OK, Fault, FaultServer, main, named, slow, status
from kaizen.testing.provider_suite import read


def request(model: str = "mine/any") -> Request:
    return Request(scope=LOCAL, model=model, messages=(Message.of("user", "hello"),))


def test_faults_by_name() -> None:
    assert named("never") == Fault("never")
    assert named("slow-0.5") == slow(0.5)
    assert named("503") == status(503)
    assert named("429") == status(429, retry_after="1")
    assert [named(name) for name in ("gpt-5", "200", "600", "slow-", "")] == [None] * 5


async def test_faults_are_taken_in_order_then_all_is_well() -> None:
    with FaultServer(lambda body: body["messages"][0]["content"].upper()) as server:
        provider = OpenAIProvider("mine", base_url=server.base_url)
        server.queue(status(401), OK)
        with pytest.raises(AuthFailed):
            await provider.complete(request("mine/429"))
        assert (await provider.complete(request("mine/429"))).text == "HELLO"
        with pytest.raises(RateLimited):
            await provider.complete(request("mine/429"))
        assert (await provider.complete(request())).text == "HELLO"
        assert server.count == 4
        assert [call.json["model"] for call in server.calls] == ["429", "429", "429", "any"]


async def test_what_it_does_not_know_is_not_found() -> None:
    with FaultServer() as server:
        provider = OpenAIProvider("mine", base_url=f"{server.address}/v9/models")
        provider._wire.path = "/list"  # type: ignore[misc]
        with pytest.raises(ProviderError, match="404"):
            await provider.complete(request())


async def test_what_does_not_come_in_time_fails_the_test() -> None:
    with FaultServer() as server, pytest.raises(AssertionError, match="0 calls, 0 cut"):
        await server.until(lambda: server.count == 1, within=0.01)


async def test_an_answer_no_longer_wanted_is_not_sent() -> None:
    with FaultServer(default=slow(0.1)) as server:
        task = asyncio.create_task(OpenAIProvider("mine", base_url=server.base_url).complete(request()))
        await server.until(lambda: server.count == 1)
        task.cancel()
        await server.until(lambda: server.cuts == 1)
        await asyncio.sleep(0.15)
        assert server.cuts == 1


def test_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "kaizen.testing.fault_server", "--port", "0", "--reply", "hi", "--delay", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        async def ask() -> None:
            provider = AnthropicProvider("mine", base_url=f"{address}/v1")
            assert (await provider.complete(request())).text == "hi"
            assert (await read(provider, request()))[1].text == "hi"
            stats = OpenAIProvider("mine", base_url=address)
            stats._wire.path = "/stats"  # type: ignore[misc]
            with pytest.raises(ProviderError, match="another shape"):
                await stats.complete(request())

        asyncio.run(ask())
        process.terminate()


def test_main_serves_until_it_is_ended(capsys: pytest.CaptureFixture[str]) -> None:
    async def end_soon() -> None:
        await asyncio.sleep(0)

    asyncio.run(end_soon())
    timer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -INT {os.getpid()}"])
    with pytest.raises(KeyboardInterrupt):
        main(["--reply", "x"])
    timer.wait()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
