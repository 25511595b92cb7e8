"""Asking through the LiteLLM library, over a real socket. An extra that weighs 40 MB: tested where it is there."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from kaizen.core.errors import ConfigError, ProviderError, RateLimited, Unavailable
from kaizen.core.message import Message
from kaizen.core.request import Decoding, Request
from kaizen.core.scope import LOCAL
from kaizen.providers.bridges.litellm import LiteLLMProvider
from kaizen.testing.fault_server import FaultServer, status

HERE = importlib.util.find_spec("litellm") is not None
needs = pytest.mark.skipif(not HERE, reason="the litellm extra is not installed")


def asking(model: str = "gpt-4o-mini") -> Request:
    hello = (Message.of("user", "hello"),)
    return Request(scope=LOCAL, model=f"litellm/openai/{model}", messages=hello, decoding=Decoding(max_tokens=9))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    with FaultServer() as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        yield server


@pytest.mark.skipif(HERE, reason="the litellm extra is installed")
def test_without_the_library_the_extra_is_named() -> None:
    with pytest.raises(ConfigError, match=r"kaizen-engine\[litellm\]"):
        LiteLLMProvider("litellm")


@needs
@pytest.mark.filterwarnings("ignore")
async def test_an_answer_its_usage_and_its_cost(server: FaultServer) -> None:
    reply = await LiteLLMProvider("litellm").complete(asking())
    assert reply.text
    assert (reply.usage.tokens_in > 0, reply.usage.estimated, server.count) == (True, False, 1)
    assert reply.cost_usd is not None
    assert reply.cost_usd > 0


@needs
@pytest.mark.filterwarnings("ignore")
async def test_a_stream_ends_with_its_reply(server: FaultServer) -> None:
    chunks: list[Any] = [chunk async for chunk in LiteLLMProvider("litellm").stream(asking())]
    assert "".join(chunk.text for chunk in chunks) == chunks[-1].reply.text != ""
    assert server.count == 1


@needs
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("code", "kind"), [(429, RateLimited), (503, Unavailable), (400, ProviderError)])
async def test_errors_are_of_the_house_and_nothing_is_sent_twice(
    server: FaultServer, code: int, kind: type[ProviderError]
) -> None:
    server.queue(status(code))
    with pytest.raises(kind):
        await LiteLLMProvider("litellm").complete(asking())
    assert server.count == 1
