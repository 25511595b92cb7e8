"""The models the settings name, and whether they are ready."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from kaizen.app.adapters import DEFAULT_MODEL, capabilities, default_params, embedded_models, endpoint_of, own_prices
from kaizen.core.errors import ConfigError
from kaizen.core.params import Params
from kaizen.inference.prices import PriceTable
from kaizen.serve.doors import ModelInfo
from kaizen.settings import (
    AnthropicSettings,
    EmbeddedSettings,
    LiteLLMSettings,
    OpenAISettings,
    Settings,
    data_home,
    resolve_key,
)


def known_models(settings: Settings) -> list[ModelInfo]:
    """The models the settings name, the embedded ones, and a line for each provider of which none is named."""
    default = settings.model or DEFAULT_MODEL
    refs = {default, *settings.models}
    for name, provider in settings.providers.items():
        if isinstance(provider, EmbeddedSettings):
            refs.update(f"{name}/{model}" for model in embedded_models(provider))
        elif not any(ref.startswith(f"{name}/") for ref in refs):
            refs.add(f"{name}/...")
    endpoints = {name: endpoint_of(one) for name, one in settings.providers.items()}
    prices = PriceTable(own_prices(settings), endpoints)
    modes = default_params(settings, capabilities(settings, endpoints))
    return [_model_info(settings, ref, prices, modes) for ref in sorted(refs)]


def _model_info(
    settings: Settings, ref: str, prices: PriceTable, defaults: Callable[[str | None], Params]
) -> ModelInfo:
    name, _, model = ref.partition("/")
    ready, note = _readiness(settings, name, model)
    price = prices.look_up(ref).price if model != "..." and name in settings.providers else None
    output = price.rates.output if price else None
    return ModelInfo(
        ref=ref,
        kind=settings.providers[name].kind if name in settings.providers else "custom",
        default=ref == (settings.model or DEFAULT_MODEL),
        ready=ready,
        note=note,
        output_mode=defaults(ref).output_mode if model != "..." else None,
        input_usd_per_mtok=price.rates.input * 1e6 if price else None,
        output_usd_per_mtok=None if output is None else output * 1e6,
    )


def _readiness(settings: Settings, name: str, model: str) -> tuple[bool, str]:
    """Whether weights or key are there, and what to know about it; never the key itself."""
    provider = settings.providers.get(name)
    match provider:
        case None:
            return name in settings.custom, "" if name in settings.custom else f"no provider is called {name}"
        case EmbeddedSettings():
            path = embedded_models(provider).get(model)
            if path is None or not path.is_file():
                return False, f"no weights: kaizen models pull {name}/{model}" if path is None else f"no file {path}"
            if importlib.util.find_spec("xllamacpp") is None:
                return False, 'not installed: pip install "kaizen-engine[embedded]"'
            return True, str(path)
        case LiteLLMSettings():
            ready = importlib.util.find_spec("litellm") is not None
            return ready, "" if ready else 'not installed: pip install "kaizen-engine[litellm]"'
        case OpenAISettings() | AnthropicSettings():
            try:
                key = resolve_key(provider)
            except ConfigError:
                return False, f"no key: the variable {provider.api_key_env} is not set"
            return True, f"{provider.base_url}, {'with a key' if key else 'without a key'}"
        case _:
            assert_never(provider)


async def pull_model(name: str, on_progress: Callable[[str], None]) -> Path:
    """Bring an embedded model's weights into the user's data folder; see ``kaizen.providers.weights``."""
    from kaizen.providers.weights import pull_weights

    return await pull_weights(name, data_home(), on_progress)
