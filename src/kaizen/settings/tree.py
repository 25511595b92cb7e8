"""The settings: one frozen tree of values, made by ``kaizen.settings.reading``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from kaizen.core.params import OutputMode
from kaizen.core.protocols import Provider
from kaizen.settings.govern import AuthSettings, LimitSettings
from kaizen.settings.layers import InferenceSettings
from kaizen.settings.server import ServerSettings, StorageSettings, TelemetrySettings
from kaizen.settings.values import Address, Dollars, Name, Positive, Ref, RootedPath, Seconds, Share, Table, shared


class _Remote(Table):
    api_key: Annotated[SecretStr, Field(min_length=1)] | None = None
    api_key_env: Annotated[str, Field(min_length=1)] | None = None
    max_connections: Positive | None = None
    connect_timeout: Seconds = 10.0
    answer_timeout: Seconds = 600.0
    idle_timeout: Seconds = 60.0
    max_body_bytes: Positive = 16 * 1024 * 1024
    proxy: Annotated[SecretStr, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("give api_key or api_key_env, not both")
        return self


class OpenAISettings(_Remote):
    """A provider that speaks OpenAI's wire: OpenAI, Ollama, vLLM, llama.cpp and most vendors."""

    kind: Literal["openai"]
    base_url: Address = "https://api.openai.com/v1"
    api: Literal["chat", "responses"] = "chat"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None


class AnthropicSettings(_Remote):
    """A provider that speaks Anthropic's wire."""

    kind: Literal["anthropic"]
    base_url: Address = "https://api.anthropic.com/v1"
    max_tokens: Positive = 4096


class EmbeddedSettings(Table):
    """Models that run inside this process."""

    kind: Literal["embedded"]
    models: Mapping[Annotated[str, Field(min_length=1)], RootedPath] = Field(default_factory=dict)
    threads: Positive | None = None
    slots: Positive = 2
    context: Positive = 4096


class LiteLLMSettings(Table):
    """Models asked through the LiteLLM library, which reads the vendors' keys from variables of its own."""

    kind: Literal["litellm"]


RemoteSettings: TypeAlias = OpenAISettings | AnthropicSettings
ProviderSettings: TypeAlias = OpenAISettings | AnthropicSettings | EmbeddedSettings | LiteLLMSettings

BY_KIND: Final[Mapping[str, type[ProviderSettings]]] = {
    "openai": OpenAISettings,
    "anthropic": AnthropicSettings,
    "embedded": EmbeddedSettings,
    "litellm": LiteLLMSettings,
}
BUILT_IN: Final[Mapping[str, Mapping[str, Any]]] = {
    "embedded": {"kind": "embedded"},
    "litellm": {"kind": "litellm"},
    "openai": {"kind": "openai", "api_key_env": "OPENAI_API_KEY"},
    "anthropic": {"kind": "anthropic", "api_key_env": "ANTHROPIC_API_KEY"},
    "ollama": {"kind": "openai", "base_url": "http://127.0.0.1:11434/v1"},
    "gemini": {
        "kind": "openai",
        "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
        "api_key_env": "GEMINI_API_KEY",
    },
}


class ModelSettings(Table):
    """What is known of one model: it goes before the tables that Kaizen carries."""

    input_usd_per_mtok: Dollars | None = None
    output_usd_per_mtok: Dollars | None = None
    cached_input_usd_per_mtok: Dollars | None = None
    cache_write_usd_per_mtok: Dollars | None = None
    usd_per_call: Dollars | None = None
    batch_discount: Share | None = None
    output_mode: OutputMode | None = None
    context_tokens: Positive | None = None
    max_output_tokens: Positive | None = None
    tools: bool | None = None
    media: tuple[Literal["image", "audio", "file"], ...] | None = None

    @model_validator(mode="after")
    def _whole_price(self) -> Self:
        whole = self.input_usd_per_mtok is not None and self.output_usd_per_mtok is not None
        if not whole and any(getattr(self, name) is not None for name in type(self).model_fields if "_usd_" in name):
            raise ValueError("a price needs both input_usd_per_mtok and output_usd_per_mtok")
        return self


class DefaultSettings(Table):
    """Params of every program that does not set its own."""

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Positive | None = None
    seed: int | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    output_mode: OutputMode | None = None
    repairs: Annotated[int, Field(ge=0)] | None = None


class LedgerSettings(Table):
    """What is kept of each call."""

    payloads: bool = True


class LogSettings(Table):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error", "off"] = "off"


def _built_in() -> dict[str, ProviderSettings]:
    return {name: BY_KIND[tree["kind"]](**tree) for name, tree in BUILT_IN.items()}


class Settings(Table):
    """The whole tree. Made by ``load_settings`` and ``merge``; ``app.py`` cuts it into a value for each part."""

    model: Ref | None = None
    home: RootedPath = Field(default=Path(".kaizen"), validate_default=True)
    tenant: Name = "local"
    environment: Name = "dev"
    providers: Mapping[Name, Annotated[ProviderSettings, Field(discriminator="kind")]] = Field(
        default_factory=_built_in
    )
    models: Mapping[Ref, ModelSettings] = Field(default_factory=dict)
    aliases: Mapping[Name, Ref] = Field(default_factory=dict)
    inference: InferenceSettings = shared(InferenceSettings())
    server: ServerSettings = shared(ServerSettings())
    storage: StorageSettings = shared(StorageSettings())
    telemetry: TelemetrySettings = shared(TelemetrySettings())
    auth: AuthSettings = shared(AuthSettings())
    limits: LimitSettings = shared(LimitSettings())
    defaults: DefaultSettings = shared(DefaultSettings())
    ledger: LedgerSettings = shared(LedgerSettings())
    log: LogSettings = shared(LogSettings())

    _root: Path = PrivateAttr(default=Path())
    _custom: Mapping[str, Provider] = PrivateAttr(default={})  # pydantic copies it

    def model_post_init(self, context: Any, /) -> None:
        """Keep what is no setting: pydantic passes the validation context here."""
        if context is not None:
            self._root, self._custom = context["root"], context["custom"]

    @property
    def root(self) -> Path:
        """The project's root: the nearest folder above with a ``kaizen.toml``, else the working directory."""
        return self._root

    @property
    def custom(self) -> Mapping[str, Provider]:
        """By name, the Provider objects that were given to ``configure``."""
        return self._custom
