"""Which output mode a model gets."""

from __future__ import annotations

import pytest

from kaizen.inference.capabilities import Capabilities
from kaizen.inference.endpoint import Endpoint

ENDPOINTS = {
    "embedded": Endpoint("embedded"),
    "anthropic": Endpoint("anthropic", "https://api.anthropic.com"),
    "openai": Endpoint("openai", "https://api.openai.com/v1"),
    "ollama": Endpoint("openai", "http://127.0.0.1:11434/v1"),
    "rack": Endpoint("openai", "http://10.1.2.3:8000/v1"),
    "vendor": Endpoint("openai", "https://api.vendor.example/v1"),
}


@pytest.mark.parametrize(
    ("ref", "mode"),
    [
        ("embedded/smollm2-135m", "schema"),
        ("anthropic/claude-sonnet-4-5", "schema"),
        ("openai/gpt-5-mini", "schema"),
        ("openai/gpt-4o", "schema"),
        ("openai/gpt-4o-mini-2024-07-18", "schema"),
        ("openai/gpt-4.1", "schema"),
        ("openai/o3", "schema"),
        ("openai/gpt-4o-2024-05-13", "json"),
        ("openai/gpt-4", "json"),
        ("openai/gpt-4-0613", "json"),
        ("openai/gpt-4-turbo-2024-04-09", "json"),
        ("openai/gpt-3.5-turbo", "json"),
        ("openai/o1-mini", "json"),
        ("ollama/llama3", "schema"),
        ("rack/anything", "schema"),
        ("vendor/anything", "json"),
        ("mine/anything", "json"),
        ("vendor/known", "schema"),
        ("openai/plain", "text"),
    ],
)
def test_modes(ref: str, mode: str) -> None:
    capabilities = Capabilities({"vendor/known": "schema", "openai/plain": "text"}, ENDPOINTS)
    assert capabilities.output_mode(ref) == mode
    assert capabilities.output_mode(ref) == mode


@pytest.mark.parametrize(
    ("base_url", "local"),
    [
        ("", True),
        ("http://localhost:8000/v1", True),
        ("http://vllm:8000/v1", True),
        ("http://[::1]:8000", True),
        ("http://192.168.0.4", True),
        ("http://box.local/v1", True),
        ("https://8.8.8.8/v1", False),
        ("https://API.openai.com/v1", False),
        ("https://[2606:4700::1]/v1", False),
    ],
)
def test_local_is_what_no_vendor_serves(base_url: str, local: bool) -> None:
    assert Endpoint("openai", base_url).local is local
