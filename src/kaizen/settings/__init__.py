"""The settings: one frozen tree, read once from ``kaizen.toml``, the environment and ``kaizen.configure``."""

from kaizen.settings.reading import (
    data_home,
    editor_words,
    load_settings,
    merge,
    read,
    resolve_key,
    resolve_proxy,
    resolve_secret,
)
from kaizen.settings.tree import (
    AnthropicSettings,
    EmbeddedSettings,
    LiteLLMSettings,
    ModelSettings,
    OpenAISettings,
    ProviderSettings,
    RemoteSettings,
    Settings,
)

__all__ = [
    "AnthropicSettings",
    "EmbeddedSettings",
    "LiteLLMSettings",
    "ModelSettings",
    "OpenAISettings",
    "ProviderSettings",
    "RemoteSettings",
    "Settings",
    "data_home",
    "editor_words",
    "load_settings",
    "merge",
    "read",
    "resolve_key",
    "resolve_proxy",
    "resolve_secret",
]
