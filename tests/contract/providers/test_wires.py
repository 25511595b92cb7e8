"""Each wire adapter passes the conformance suite against a far side that misbehaves on command."""

from __future__ import annotations

import pytest

from kaizen.core.protocols import Provider
from kaizen.providers.anthropic import AnthropicProvider
from kaizen.providers.openai import OpenAIProvider
from kaizen.testing.fault_server import FaultServer
from kaizen.testing.provider_suite import WireSuite


class TestChat(WireSuite):
    @pytest.fixture
    def provider(self, server: FaultServer) -> Provider:
        return OpenAIProvider("mine", base_url=server.base_url, api_key=self.KEY)


class TestResponses(WireSuite):
    @pytest.fixture
    def provider(self, server: FaultServer) -> Provider:
        return OpenAIProvider("mine", base_url=server.base_url, api_key=self.KEY, api="responses")


class TestMessages(WireSuite):
    @pytest.fixture
    def provider(self, server: FaultServer) -> Provider:
        return AnthropicProvider("mine", base_url=server.base_url, api_key=self.KEY)
