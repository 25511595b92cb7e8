"""What the batch APIs share: small questions in JSON, and results that come as JSON lines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from kaizen.core.errors import ProviderError
from kaizen.core.request import Reply, Request
from kaizen.providers.http import HttpAnswer
from kaizen.providers.wire import WireProvider


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks when it is no single call: errors name this."""

    model: str
    deadline: float | None = None


class Exchange:
    """Questions to one provider beside its calls.

    Args:
        provider: whose wire, connections and key are used.
    """

    def __init__(self, provider: WireProvider) -> None:
        self.provider = provider
        self._transport, self._origin = provider.transport, provider.origin

    async def post(self, path: str, body: bytes, about: str, *, content_type: str = "application/json") -> Any:
        """What the provider answers to a POST, parsed.

        Raises:
            ProviderError: what it answered instead.
        """
        return await self._parsed(self._transport.open(path, body, _Asked(about), content_type=content_type), about)

    async def get(self, path: str) -> Any:
        """What the provider answers to a GET, parsed.

        Raises:
            ProviderError: what it answered instead.
        """
        return await self._parsed(self._transport.get(path), path)

    async def lines(self, path: str) -> AsyncGenerator[Any, None]:
        """The JSON lines of a file, each parsed as it comes.

        Raises:
            ProviderError: what the provider answered instead, or where a line is none.
        """
        async with self._transport.get(path) as answer:
            if answer.status != 200:
                raise self._origin.answered(path, answer.status, answer.headers, await answer.read())
            tail = b""
            while (piece := await answer.pieces()) is not None:
                *whole, tail = (tail + piece).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield self._json(line, path)
            if tail.strip():
                yield self._json(tail, path)

    def reply(self, body: Any, request: Request) -> Reply | ProviderError:
        """A call's answer out of a batch, or why it is none."""
        try:
            return self.provider.decoded(body, request)
        except ProviderError as error:
            return error

    async def _parsed(self, call: HttpAnswer, about: str) -> Any:
        async with call as answer:
            data = await answer.read()
        if answer.status != 200:
            raise self._origin.answered(about, answer.status, answer.headers, data)
        body = self._json(data, about)
        if not isinstance(body, dict):
            raise self._origin.broken(about, "the answer is no JSON object")
        return body  # pyright: ignore[reportUnknownVariableType] - whatever the vendor wrote

    def _json(self, data: bytes, about: str) -> Any:
        try:
            return from_json(data)
        except ValueError:
            raise self._origin.broken(about, "the answer is no valid JSON") from None


def model_of(calls: Mapping[str, Request]) -> str:
    """The model that all these calls are for, as errors name it."""
    return next(iter(calls.values())).model if calls else ""
