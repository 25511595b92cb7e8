"""What ``build`` joins: the adapters to models, prices, and the params programs fall back to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from pydantic import SecretStr

from kaizen.core.params import OutputMode, Params
from kaizen.core.protocols import Provider
from kaizen.inference.capabilities import Capabilities
from kaizen.inference.endpoint import Endpoint
from kaizen.inference.prices import Price
from kaizen.settings import (
    AnthropicSettings,
    EmbeddedSettings,
    LiteLLMSettings,
    OpenAISettings,
    ProviderSettings,
    RemoteSettings,
    Settings,
    data_home,
    resolve_key,
    resolve_proxy,
)

if TYPE_CHECKING:
    from kaizen.providers.http import HttpTransport, TransportSettings

DEFAULT_MODEL: Final = "embedded/smollm2-135m"


def endpoint_of(provider: ProviderSettings) -> Endpoint:
    """What the layers know of a provider."""
    match provider:
        case EmbeddedSettings():
            return Endpoint("embedded")
        case LiteLLMSettings():
            return Endpoint("litellm")
        case OpenAISettings() | AnthropicSettings():
            return Endpoint(provider.kind, provider.base_url)
        case _:
            assert_never(provider)


def make_adapter(settings: Settings, name: str, provider: ProviderSettings) -> Provider:
    """The adapter of a configured provider. Each is imported when it is first used."""
    match provider:
        case EmbeddedSettings():
            from kaizen.providers.embedded import EmbeddedProvider

            models = {model: path for model, path in embedded_models(provider).items() if path is not None}
            return EmbeddedProvider(
                name, models, threads=provider.threads, slots=provider.slots, context=provider.context
            )
        case LiteLLMSettings():
            from kaizen.providers.bridges.litellm import LiteLLMProvider

            return LiteLLMProvider(name)
        case OpenAISettings():
            from kaizen.providers.openai import OpenAIProvider

            return OpenAIProvider(
                name,
                base_url=provider.base_url,
                api_key=_revealed(resolve_key(provider)),
                api=provider.api,
                max_tokens_field=provider.max_tokens_field,
                transport=_transport(provider),
            )
        case AnthropicSettings():
            from kaizen.providers.anthropic import AnthropicProvider

            return AnthropicProvider(
                name,
                base_url=provider.base_url,
                api_key=_revealed(resolve_key(provider)),
                max_tokens=provider.max_tokens,
                transport=_transport(provider),
            )
        case _:
            assert_never(provider)


def capabilities(settings: Settings, endpoints: Mapping[str, Endpoint]) -> Capabilities:
    """Which output mode each model gets."""
    modes: dict[str, OutputMode] = {
        ref: model.output_mode for ref, model in settings.models.items() if model.output_mode is not None
    }
    return Capabilities(modes, endpoints)


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _transport(provider: RemoteSettings) -> TransportSettings:
    from kaizen.providers.http import TransportSettings

    return TransportSettings(
        connections=provider.max_connections,
        connect_timeout=provider.connect_timeout,
        answer_timeout=provider.answer_timeout,
        idle_timeout=provider.idle_timeout,
        max_body=provider.max_body_bytes,
        proxy=_revealed(resolve_proxy(provider)),
    )


def transport_of(name: str, provider: OpenAISettings) -> HttpTransport:
    """HTTP to a provider, for calls that no adapter writes."""
    from kaizen.providers.errors import Origin, Secret
    from kaizen.providers.http import HttpTransport

    key = _revealed(resolve_key(provider))
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return HttpTransport(provider.base_url, headers, Origin(name, Secret(key) if key else None), _transport(provider))


def own_prices(settings: Settings) -> dict[str, Price]:
    """The prices that the settings name."""
    return {
        ref: Price.per_mtok(
            model.input_usd_per_mtok or 0.0,
            model.output_usd_per_mtok or 0.0,
            model.cached_input_usd_per_mtok,
            model.cache_write_usd_per_mtok,
            model.usd_per_call or 0.0,
        )
        for ref, model in settings.models.items()
        if model.input_usd_per_mtok is not None or model.usd_per_call is not None
    }


def same(provider: Provider) -> Provider:
    """A factory's answer for a Provider object that is there already."""
    return provider


def default_params(settings: Settings, known: Capabilities) -> Callable[[str | None], Params]:
    """The params a program falls back to: the settings', and the way its model can answer."""
    own = settings.defaults
    fallback = Params(
        temperature=own.temperature,
        top_p=own.top_p,
        max_tokens=own.max_tokens,
        seed=own.seed,
        stop=own.stop,
        output_mode=own.output_mode,
        repairs=1 if own.repairs is None else own.repairs,
    )

    def defaults(model: str | None) -> Params:
        ref = model or settings.model or DEFAULT_MODEL
        mode = fallback.output_mode or known.output_mode(ref)
        return replace(fallback, model=ref, output_mode=mode)

    return defaults


def embedded_models(provider: EmbeddedSettings) -> dict[str, Path | None]:
    """The weights of each embedded model, None where they are missing; the settings' own files go first."""
    from kaizen.providers.weights import PINNED, find_weights

    return {model: find_weights(model, data_home()) for model in PINNED} | dict(provider.models)
