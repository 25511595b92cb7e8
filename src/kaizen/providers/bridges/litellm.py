"""Models that only LiteLLM knows how to ask. Imported when a ref asks for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.core.errors import ConfigError, ProviderError
from kaizen.core.request import Chunk, Reply, Request
from kaizen.providers.errors import Origin
from kaizen.providers.openai_chat import ChatWire

_UNREACHED: Final = 503


class LiteLLMProvider:
    """A Provider that asks through the LiteLLM library: ``litellm/<LiteLLM's own model name>``.

    Keys come from the variables that LiteLLM reads for each vendor. It never retries, and refuses a parameter that
    a vendor has no place for.

    Args:
        name: its name in the settings, and the first segment of its models' refs.

    Raises:
        ConfigError: if the library is not installed.
    """

    def __init__(self, name: str) -> None:
        self._origin = Origin(name)
        self._wire = ChatWire(self._origin)
        self._library = _library()

    async def complete(self, request: Request, /) -> Reply:
        """The whole answer; see ``Provider.complete``."""
        answer = await self._ask(request, stream=False)
        reply = self._wire.decode(answer.model_dump(), request)
        hidden: Mapping[str, Any] = getattr(answer, "_hidden_params", None) or {}
        return replace(reply, cost_usd=hidden.get("response_cost"))

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk, None]:
        """The answer as it is written; see ``Provider.stream``."""
        begun, first = time.monotonic(), None
        reading = self._wire.reading(request)
        pieces = await self._ask(request, stream=True)
        try:
            async for piece in pieces:
                if text := reading.feed(piece.model_dump()):
                    first = first or (time.monotonic() - begun) * 1000
                    yield Chunk(text)
        except ProviderError:
            raise
        except Exception as error:  # noqa: BLE001 - the library has no common root for what it raises
            raise self._failed(request, error) from None
        finally:
            if (close := getattr(pieces, "aclose", None)) is not None:
                await close()
        if not reading.whole:
            raise self._origin.broken(request.model, "the event stream was cut before the answer was whole")
        yield Chunk(reply=replace(reading.reply(), first_token_ms=first))

    async def _ask(self, request: Request, *, stream: bool) -> Any:
        body: dict[str, Any] = from_json(self._wire.encode(request, stream=stream))
        timeout = None if request.deadline is None else max(0.001, request.deadline - time.monotonic())
        try:
            return await self._library.acompletion(**body, num_retries=0, max_retries=0, timeout=timeout)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise self._failed(request, error) from None

    def _failed(self, request: Request, error: Exception) -> ProviderError:
        """Its errors carry a status; they follow OpenAI's."""
        status = getattr(error, "status_code", None)
        said = to_json({"error": {"message": str(error), "code": getattr(error, "code", None)}})
        known = status if isinstance(status, int) and status >= 400 else _UNREACHED
        return self._origin.answered(request.model, known, {}, said)


def _library() -> Any:
    try:
        import litellm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError('this model needs LiteLLM: pip install "kaizen-engine[litellm]"') from None
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm
