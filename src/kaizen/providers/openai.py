"""OpenAI's wires, and everybody else's who speaks them: Ollama, vLLM, llama.cpp and most vendors."""

from __future__ import annotations

from typing import Final, Literal

from kaizen.providers.errors import Origin, Secret
from kaizen.providers.http import HttpTransport, TransportSettings
from kaizen.providers.openai_chat import ChatWire, MaxTokensField
from kaizen.providers.openai_responses import ResponsesWire
from kaizen.providers.wire import Wire, WireProvider

_OPENAI: Final = "https://api.openai.com/v1"


class OpenAIProvider(WireProvider):
    """A Provider that speaks OpenAI's chat completions or its Responses API.

    Usage is what the provider counted, streams included (they ask for it with ``include_usage``); where none
    came it is a guess of a token for every four characters, and marked as ``estimated``.

    Args:
        name: its name in the settings, and the first segment of its models' refs.
        base_url: up to and with ``/v1``.
        api_key: sent as a bearer token; None sends none.
        api: "chat" for ``/chat/completions``, "responses" for ``/responses``.
        max_tokens_field: the name of the bound on written tokens on the chat wire. None is
            ``max_completion_tokens`` for OpenAI's own hosts (its reasoning models refuse the other) and
            ``max_tokens`` for all others (many know only that one).
        transport: timeouts and limits.

    Raises:
        ConfigError: if ``base_url`` or ``api_key`` can't be used.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str = _OPENAI,
        api_key: str | None = None,
        api: Literal["chat", "responses"] = "chat",
        max_tokens_field: MaxTokensField | None = None,
        transport: TransportSettings | None = None,
    ) -> None:
        origin = Origin(name, Secret(api_key) if api_key else None)
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        http = HttpTransport(base_url, headers, origin, transport or TransportSettings())
        field = max_tokens_field or _max_tokens_field(http.host)
        wire: Wire = ResponsesWire(origin) if api == "responses" else ChatWire(origin, field)
        super().__init__(wire, http, origin)


def _max_tokens_field(host: str) -> MaxTokensField:
    own = host.endswith(("openai.com", "openai.azure.com"))
    return "max_completion_tokens" if own else "max_tokens"
