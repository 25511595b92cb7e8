"""A LiteLLM proxy's ``config.yaml`` as the settings that do the same here.

The format: https://docs.litellm.ai/docs/proxy/configs. What has no counterpart is noted, never dropped in silence, and
no key is copied from one file into the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from kaizen.core.errors import InvalidInput

# LiteLLM's prefix -> the provider that the settings have already.
_BUILT_IN: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "gemini": "gemini",
}
# Prefixes of servers that speak OpenAI's wire at an address of their own.
_OPENAI_LIKE: Final = {
    "openai",
    "hosted_vllm",
    "openai_like",
    "litellm_proxy",
    "llamafile",
    "lm_studio",
    "custom_openai",
    "xinference",
}
_ADDRESSES: Final = {
    "ollama": "http://127.0.0.1:11434/v1",
    "ollama_chat": "http://127.0.0.1:11434/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
}
_ENVIRON: Final = "os.environ/"
_MTOK: Final = 1e6
_PRICES: Final = {
    "input_cost_per_token": "input_usd_per_mtok",
    "output_cost_per_token": "output_usd_per_mtok",
    "cache_read_input_token_cost": "cached_input_usd_per_mtok",
    "cache_creation_input_token_cost": "cache_write_usd_per_mtok",
}
_LIMITS: Final = {"max_input_tokens": "context_tokens", "max_output_tokens": "max_output_tokens"}
_KNOWN: Final = {"model", "api_base", "base_url", "api_key", "timeout", "custom_llm_provider", *_PRICES, *_LIMITS}


@dataclass(frozen=True, slots=True)
class Converted:
    """Settings as TOML, and what the reader has to know or do by hand."""

    text: str
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Tree:
    """Settings in the making."""

    providers: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    models: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    aliases: dict[str, str] = field(default_factory=dict[str, str])
    fallbacks: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    inference: dict[str, Any] = field(default_factory=dict[str, Any])
    layers: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    notes: list[str] = field(default_factory=list[str])

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def convert(config: object) -> Converted:
    """The settings for a parsed ``config.yaml``.

    Raises:
        InvalidInput: if it is no such configuration, with the place of the mistake.
    """
    whole = _table(config, "the file")
    tree = _Tree()
    for place, entry in enumerate(_list(whole.get("model_list") or [], "model_list")):
        _model(tree, _table(entry, f"model_list[{place}]"), f"model_list[{place}]")
    for section, read in (("litellm_settings", _litellm), ("router_settings", _router), ("general_settings", _general)):
        read(tree, _table(whole.get(section) or {}, section))
    for name in whole.keys() - {"model_list", "litellm_settings", "router_settings", "general_settings"}:
        tree.note(f"{name} has no counterpart")
    return Converted(_toml(tree), tuple(tree.notes))


def _model(tree: _Tree, entry: Mapping[str, Any], where: str) -> None:
    name = entry.get("model_name")
    params = _table(entry.get("litellm_params") or {}, f"{where}.litellm_params")
    model = params.get("model")
    if not isinstance(name, str) or not isinstance(model, str):
        raise InvalidInput(f"{where} needs model_name and litellm_params.model")
    if "*" in name + model:
        tree.note(f"{name}: callers here name any model of a provider as provider/model; the wildcard is left out")
        return
    ref = _ref(tree, name, model, params)
    prices = {**params, **_table(entry.get("model_info") or {}, where)}
    for key, ours in _PRICES.items():
        if isinstance(usd := prices.get(key), int | float):
            tree.models.setdefault(ref, {})[ours] = round(usd * _MTOK, 9)
    _whole_price(tree, name, ref)
    for key, ours in _LIMITS.items():
        if isinstance(tokens := prices.get(key), int):
            tree.models.setdefault(ref, {})[ours] = tokens
    for key in sorted(params.keys() - _KNOWN):
        what = (
            "limits stand with keys: kaizen keys create --requests-per-minute ..."
            if key in ("rpm", "tpm")
            else "has no counterpart"
        )
        tree.note(f"{name}: {key} {what}" if what.startswith("has") else f"{name}: {key}: {what}")
    if name not in tree.aliases:
        tree.aliases[name] = ref
    elif (first := tree.aliases[name]) != ref:
        tree.fallbacks.setdefault(first, []).append(ref)
        tree.note(f"{name} has several deployments: the first is asked, the others when it fails; they share no load")


def _whole_price(tree: _Tree, name: str, ref: str) -> None:
    """A price here has both sides; LiteLLM takes one that is not named for nothing."""
    known = tree.models.get(ref, {})
    sides = [ours for ours in ("input_usd_per_mtok", "output_usd_per_mtok") if ours not in known]
    if not any(ours in known for ours in _PRICES.values()):
        return
    for ours in sides:
        known[ours] = 0.0
        tree.note(f"{name}: its price names no {ours.partition('_')[0]} tokens: they are taken to cost nothing")


def _ref(tree: _Tree, name: str, model: str, params: Mapping[str, Any]) -> str:
    """The ref of a deployment; its provider is added where the built-in ones don't do."""
    prefix, slash, rest = model.partition("/")
    if not slash:
        prefix, rest = str(params.get("custom_llm_provider") or "openai"), model
    base = params.get("api_base") or params.get("base_url")
    key = params.get("api_key")
    timeout = params.get("timeout")
    if base is None and key is None and timeout is None and prefix in _BUILT_IN:
        return f"{_BUILT_IN[prefix]}/{rest}"
    if prefix == "azure":
        if not isinstance(base, str):
            raise InvalidInput(f"{name}: an azure model needs api_base")
        base = base.rstrip("/") + ("" if base.rstrip("/").endswith("/v1") else "/openai/v1")
    elif prefix not in _BUILT_IN and prefix not in _OPENAI_LIKE:
        tree.note(f'{name}: {prefix} is asked through LiteLLM itself: pip install "kaizen-engine[litellm]"')
        return f"litellm/{model}"
    wanted: dict[str, Any] = {"kind": "anthropic" if prefix == "anthropic" else "openai"}
    if base is not None:
        wanted["base_url"] = _address(tree, name, str(base), wanted["kind"])
    elif prefix in _ADDRESSES:
        wanted["base_url"] = _ADDRESSES[prefix]
    elif prefix not in _BUILT_IN:
        raise InvalidInput(f"{name}: a {prefix} model needs api_base")
    if key is not None:
        wanted["api_key_env"] = _variable(tree, name, str(key), prefix)
    elif base is None and prefix not in ("ollama", "ollama_chat"):
        wanted["api_key_env"] = f"{prefix.upper()}_API_KEY"
    if isinstance(timeout, int | float):
        wanted["answer_timeout"] = float(timeout)
    return f"{_provider(tree, prefix, wanted)}/{rest}"


def _provider(tree: _Tree, prefix: str, wanted: dict[str, Any]) -> str:
    """The name of a provider with these settings, an earlier one where there is one."""
    for name, known in tree.providers.items():
        if known == wanted:
            return name
    stem = f"{prefix}-own" if prefix in _BUILT_IN else prefix
    name, number = stem, 2
    while name in tree.providers:
        name, number = f"{stem}-{number}", number + 1
    tree.providers[name] = wanted
    return name


def _address(tree: _Tree, name: str, base: str, kind: str) -> str:
    if base.startswith(_ENVIRON):
        variable = base.removeprefix(_ENVIRON)
        tree.note(f"{name}: api_base comes from ${variable}: write its value into base_url")
        return f"http://{variable.lower().replace('_', '-')}.invalid/v1"
    address = base.rstrip("/")
    return f"{address}/v1" if kind == "anthropic" and not address.endswith("/v1") else address


def _variable(tree: _Tree, name: str, key: str, prefix: str) -> str:
    """The variable that holds a key. A key in plain text is not copied."""
    if key.startswith(_ENVIRON):
        return key.removeprefix(_ENVIRON)
    variable = re.sub(r"\W", "_", f"{prefix}_{name}_API_KEY").upper()
    tree.note(f"{name}: its key stands in the file in plain text and is not copied: put it into ${variable}")
    return variable


def _litellm(tree: _Tree, settings: Mapping[str, Any]) -> None:
    rest = dict(settings)
    _patience(tree, rest)
    for key in ("fallbacks", "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
        _fallbacks(tree, rest.pop(key, None), key)
    cache = _table(rest.pop("cache_params", None) or {}, "litellm_settings.cache_params")
    if rest.pop("cache", False):
        tree.layers["exact"] = {"enabled": True}
        if isinstance(ttl := cache.get("ttl"), int | float):
            tree.layers["exact"]["ttl"] = float(ttl)
        kind = str(cache.get("type", "local"))
        if "semantic" in kind:
            tree.layers["semantic"] = {"enabled": True}
            tree.note("the semantic cache here holds a budget of wrong answers instead of a fixed similarity_threshold")
        if "redis" in kind:
            tree.note("a shared cache: set storage.redis_url (or $KAIZEN_STORAGE__REDIS_URL)")
    for key in sorted(rest):
        tree.note(f"litellm_settings.{key} has no counterpart")


def _router(tree: _Tree, settings: Mapping[str, Any]) -> None:
    rest = dict(settings)
    _patience(tree, rest)
    for key in ("fallbacks", "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
        _fallbacks(tree, rest.pop(key, None), key)
    for alias, target in _table(rest.pop("model_group_alias", None) or {}, "router_settings.model_group_alias").items():
        name = cast("Mapping[str, Any]", target).get("model") if isinstance(target, dict) else target
        ref = tree.aliases.get(str(name))
        if ref is None:
            tree.note(f"model_group_alias.{alias}: no model is called {name}")
        else:
            tree.aliases[str(alias)] = ref
    if any(rest.pop(key, None) for key in ("redis_host", "redis_url", "redis_port", "redis_password")):
        tree.note("shared state: set storage.redis_url (or $KAIZEN_STORAGE__REDIS_URL)")
    for key in sorted(rest):
        tree.note(f"router_settings.{key} has no counterpart")


def _general(tree: _Tree, settings: Mapping[str, Any]) -> None:
    rest = dict(settings)
    if rest.pop("master_key", None):
        tree.note("master_key: keys are made here with `kaizen keys create`, each with its tenant, limits and budget")
    if rest.pop("database_url", None):
        tree.note("database_url: set storage.database_url (or $KAIZEN_STORAGE__DATABASE_URL)")
    for key in sorted(rest):
        tree.note(f"general_settings.{key} has no counterpart")


def _patience(tree: _Tree, rest: dict[str, Any]) -> None:
    retries = rest.pop("num_retries", None)
    if isinstance(retries, int):
        tree.inference["attempts"] = retries + 1
    for key in ("request_timeout", "timeout"):
        seconds = rest.pop(key, None)
        if isinstance(seconds, int | float):
            for provider in tree.providers.values():
                provider.setdefault("answer_timeout", float(seconds))
            tree.note(f"{key} = {seconds}: set as answer_timeout of the providers named here, not of built-in ones")


def _fallbacks(tree: _Tree, chains: object, key: str) -> None:
    if chains is None:
        return
    if key == "content_policy_fallbacks":
        tree.note("content_policy_fallbacks has no counterpart: a withheld answer is an error here")
        return
    for chain in _list(chains, key):
        named = {"*": [chain]} if isinstance(chain, str) else _table(chain, key)
        for name, others in named.items():
            first = "*" if name == "*" else tree.aliases.get(str(name))
            refs = [tree.aliases.get(str(other)) for other in _list(others, key)]
            if first is None or None in refs:
                tree.note(f"{key}: {name} -> {others} names a model that model_list does not have")
                continue
            kept = tree.fallbacks.setdefault(first, [])
            kept += [ref for ref in refs if ref is not None and ref not in kept and ref != first]


def _toml(tree: _Tree) -> str:
    lines = ["# Made from a LiteLLM configuration by `kaizen import litellm`.", ""]
    lines += _lines("aliases", tree.aliases)
    for name, provider in tree.providers.items():
        lines += _lines(f"providers.{_key(name)}", provider)
    for ref, model in tree.models.items():
        lines += _lines(f"models.{_key(ref)}", model)
    lines += _lines("inference", tree.inference)
    for name, layer in tree.layers.items():
        lines += _lines(f"inference.{name}", layer)
    lines += _lines("inference.failover.fallbacks", tree.fallbacks)
    return "\n".join(lines).rstrip() + "\n"


def _lines(table: str, values: Mapping[str, Any]) -> Iterator[str]:
    if values:
        yield f"[{table}]"
        yield from (f"{_key(key)} = {_value(value)}" for key, value in values.items())
        yield ""


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: object) -> str:
    """A TOML value. JSON's strings, numbers, booleans and arrays are TOML's, but for the DEL character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} should be a mapping, not {type(value).__name__}")
    return cast("Mapping[str, Any]", value)


def _list(value: object, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"{where} should be a list, not {type(value).__name__}")
    return cast("Sequence[Any]", value)
