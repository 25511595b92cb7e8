"""A LiteLLM proxy's configuration becomes settings that load; what has no counterpart is said, and no key is copied."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaizen.core.errors import InvalidInput
from kaizen.migrate.litellm import Converted, convert
from kaizen.settings import Settings, load_settings

CONFIG = """
model_list:
  - model_name: gpt
    litellm_params:
      model: openai/gpt-4o-mini
      rpm: 100
  - model_name: gpt
    litellm_params:
      model: azure/gpt-4o-mini
      api_base: https://firm.openai.azure.com/
      api_key: os.environ/AZURE_KEY
      api_version: "2024-10-21"
  - model_name: sonnet
    litellm_params: {model: anthropic/claude-sonnet, api_base: "https://proxy.example", api_key: sk-plain-text}
  - model_name: own
    litellm_params: {model: hosted_vllm/llama, api_base: "http://10.0.0.7:8000/v1", timeout: 30}
    model_info: {input_cost_per_token: 0.0000004, output_cost_per_token: 0.0000008, max_input_tokens: 8192}
  - model_name: far
    litellm_params: {model: vertex_ai/gemini-pro}
  - model_name: anything
    litellm_params: {model: "openai/*"}
litellm_settings:
  num_retries: 2
  request_timeout: 60
  cache: true
  cache_params: {type: redis-semantic, ttl: 600, similarity_threshold: 0.8}
  fallbacks: [{gpt: [sonnet, own]}, {gpt: [nobody]}]
  callbacks: [langfuse]
router_settings:
  routing_strategy: least-busy
  model_group_alias: {fast: own, slow: {model: sonnet, hidden: true}, lost: nobody}
general_settings:
  master_key: sk-1234
  database_url: os.environ/DB
environment_variables: {X: y}
"""


def settings(made: Converted, folder: Path) -> Settings:
    (folder / "kaizen.toml").write_text(made.text)
    return load_settings(folder, {}, {})


def test_half_a_price_is_made_whole_and_said(tmp_path: Path) -> None:
    info = {"input_cost_per_token": 2e-8, "mode": "embedding"}
    model = {"model_name": "points", "litellm_params": {"model": "openai/text-embedding"}, "model_info": info}
    made = convert({"model_list": [model]})
    known = settings(made, tmp_path).models["openai/text-embedding"]
    assert (known.input_usd_per_mtok, known.output_usd_per_mtok) == (0.02, 0.0)
    assert "points: its price names no output tokens: they are taken to cost nothing" in made.notes
    unpriced = convert({"model_list": [{**model, "model_info": {"max_input_tokens": 9}}]})
    assert "usd" not in unpriced.text


def test_models_become_aliases_of_refs_that_load(tmp_path: Path) -> None:
    made = convert(yaml.safe_load(CONFIG))
    loaded = settings(made, tmp_path)
    assert loaded.aliases == {
        "gpt": "openai/gpt-4o-mini",
        "sonnet": "anthropic-own/claude-sonnet",
        "own": "hosted_vllm/llama",
        "far": "litellm/vertex_ai/gemini-pro",
        "fast": "hosted_vllm/llama",
        "slow": "anthropic-own/claude-sonnet",
    }
    azure: Any = loaded.providers["azure"]
    assert (azure.kind, azure.base_url, azure.api_key_env) == (
        "openai",
        "https://firm.openai.azure.com/openai/v1",
        "AZURE_KEY",
    )
    own: Any = loaded.providers["hosted_vllm"]
    assert (own.base_url, own.answer_timeout, own.api_key_env) == ("http://10.0.0.7:8000/v1", 30.0, None)
    model = loaded.models["hosted_vllm/llama"]
    assert (model.input_usd_per_mtok, model.output_usd_per_mtok, model.context_tokens) == (0.4, 0.8, 8192)


def test_the_layers_are_set_as_the_proxy_had_them(tmp_path: Path) -> None:
    inference = settings(convert(yaml.safe_load(CONFIG)), tmp_path).inference
    assert (inference.attempts, inference.exact.enabled, inference.exact.ttl) == (3, True, 600.0)
    assert inference.semantic.enabled
    refs = ("azure/gpt-4o-mini", "anthropic-own/claude-sonnet", "hosted_vllm/llama")
    assert inference.failover.fallbacks == {"openai/gpt-4o-mini": refs}


def test_no_key_is_copied_and_what_is_left_is_said() -> None:
    made = convert(yaml.safe_load(CONFIG))
    said = "\n".join(made.notes)
    assert "sk-" not in made.text + said
    for what in (
        "put it into $ANTHROPIC_SONNET_API_KEY",
        "gpt: rpm: limits stand with keys",
        "gpt: api_version has no counterpart",
        "gpt has several deployments",
        "far: vertex_ai is asked through LiteLLM itself",
        "anything: callers here name any model",
        "instead of a fixed similarity_threshold",
        "storage.redis_url",
        "storage.database_url",
        "kaizen keys create",
        "nobody",
        "litellm_settings.callbacks has no counterpart",
        "router_settings.routing_strategy has no counterpart",
        "environment_variables has no counterpart",
    ):
        assert what in said


@pytest.mark.parametrize(
    ("params", "ref", "provider"),
    [
        ({"model": "gpt-4o"}, "openai/gpt-4o", None),
        ({"model": "ollama_chat/llama"}, "ollama/llama", None),
        ({"model": "gemini/gemini-flash"}, "gemini/gemini-flash", None),
        ({"model": "gemini/x", "api_key": "os.environ/K"}, "gemini-own/x",
         {"kind": "openai", "base_url": "https://generativelanguage.googleapis.com/v1beta/openai", "api_key_env": "K"}),
        ({"model": "ollama/x", "timeout": 5}, "ollama-own/x",
         {"kind": "openai", "base_url": "http://127.0.0.1:11434/v1", "answer_timeout": 5.0}),
        ({"model": "openai/x", "timeout": 5}, "openai-own/x",
         {"kind": "openai", "api_key_env": "OPENAI_API_KEY", "answer_timeout": 5.0}),
        ({"model": "openai/x", "api_base": "os.environ/BASE_URL"}, "openai-own/x",
         {"kind": "openai", "base_url": "http://base-url.invalid/v1"}),
        ({"model": "x", "custom_llm_provider": "anthropic"}, "anthropic/x", None),
    ],
)  # fmt: skip
def test_a_deployment_s_ref_and_provider(params: dict[str, Any], ref: str, provider: dict[str, Any] | None) -> None:
    made = tomllib.loads(convert({"model_list": [{"model_name": "m", "litellm_params": params}]}).text)
    assert made["aliases"] == {"m": ref}
    assert made.get("providers", {}) == ({ref.split("/")[0]: provider} if provider else {})


def test_equal_providers_are_one_and_others_get_names_of_their_own() -> None:
    servers = ["http://a/v1", "http://b/v1", "http://a/v1"]
    models = [
        {"model_name": f"m{n}", "litellm_params": {"model": f"openai/m{n}", "api_base": base}}
        for n, base in enumerate(servers)
    ]
    made = tomllib.loads(convert({"model_list": models}).text)
    assert made["aliases"] == {"m0": "openai-own/m0", "m1": "openai-own-2/m1", "m2": "openai-own/m2"}


def test_fallbacks_for_all_and_for_long_prompts() -> None:
    models = [{"model_name": n, "litellm_params": {"model": f"openai/{n}"}} for n in ("a", "b")]
    router = {"default_fallbacks": ["b"], "context_window_fallbacks": [{"a": ["b", "a"]}], "num_retries": 0}
    more = {"content_policy_fallbacks": [{"a": ["b"]}], "redis_host": "x"}
    made = convert({"model_list": models, "router_settings": {**router, **more}})
    tree = tomllib.loads(made.text)
    assert tree["inference"]["failover"]["fallbacks"] == {"*": ["openai/b"], "openai/a": ["openai/b"]}
    assert tree["inference"]["attempts"] == 1
    assert any("content_policy_fallbacks" in note for note in made.notes)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ([], "the file should be a mapping, not list"),
        ({"model_list": {}}, None),
        ({"model_list": {"a": 1}}, "model_list should be a list, not dict"),
        ({"model_list": [3]}, r"model_list\[0\] should be a mapping"),
        ({"model_list": [{"model_name": "a"}]}, r"model_list\[0\] needs model_name and litellm_params.model"),
        (
            {"model_list": [{"model_name": "a", "litellm_params": {"model": "azure/x"}}]},
            "a: an azure model needs api_base",
        ),
        ({"model_list": [{"model_name": "a", "litellm_params": {"model": "hosted_vllm/x"}}]}, "needs api_base"),
        ({"litellm_settings": {"fallbacks": "a"}}, "fallbacks should be a list, not str"),
    ],
)
def test_mistakes_are_named_with_their_place(config: Any, says: str | None) -> None:
    if says is None:
        assert convert(config).notes == ()
        return
    with pytest.raises(InvalidInput, match=says):
        convert(config)
