"""The wire adapters against a real server of all three wires: llama.cpp's, with a real language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaizen.core.errors import ContextTooLong
from kaizen.core.message import Message
from kaizen.core.protocols import Provider
from kaizen.providers.anthropic import AnthropicProvider
from kaizen.providers.openai import OpenAIProvider
from kaizen.testing.provider_suite import ProviderSuite, read


@pytest.fixture(scope="module")
def base_url(weights: Path) -> Iterator[str]:
    xllamacpp: Any = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server  # ends with its last reference


class LlamaSuite(ProviderSuite):
    """What llama.cpp's server leaves out, with a model that has no tool template, on each wire."""

    model = "llama/smollm2"
    tools = False

    async def test_a_prompt_that_is_too_long(self, provider: Provider) -> None:
        request = self.request(messages=(Message.of("user", "hello " * 5000),))
        with pytest.raises(ContextTooLong):
            await provider.complete(request)
        with pytest.raises(ContextTooLong):
            await read(provider, request)


class TestChat(LlamaSuite):
    @pytest.fixture
    def provider(self, base_url: str) -> Provider:
        return OpenAIProvider("llama", base_url=base_url)


class TestResponses(LlamaSuite):
    bounded = False  # it calls a cut response "completed"
    structured = False
    logprobs = False

    @pytest.fixture
    def provider(self, base_url: str) -> Provider:
        return OpenAIProvider("llama", base_url=base_url, api="responses")


class TestMessages(LlamaSuite):
    structured = False
    logprobs = False

    @pytest.fixture
    def provider(self, base_url: str) -> Provider:
        return AnthropicProvider("llama", base_url=base_url)
