"""Anthropic's Message Batches API: calls are handed in in one body, and results fetched as JSON lines.

https://docs.claude.com/en/api/creating-message-batches
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json

from kaizen.core.errors import ProviderError
from kaizen.core.request import Reply, Request
from kaizen.providers.batches.exchange import Exchange, model_of
from kaizen.providers.wire import WireProvider

_PAGE: Final = 100
# A clock of theirs may be behind ours by so many seconds.
_SKEW: Final = 300.0


class AnthropicBatches:
    """A ``BatchApi`` over Anthropic's messages API.

    A batch has no place for a name of ours. It is found again by the ids of its calls, which can be read once it has
    ended; until then a batch of the time in question that nobody knows may be it.

    Args:
        provider: the one whose calls these are.
    """

    def __init__(self, provider: WireProvider) -> None:
        self._exchange = Exchange(provider)
        self._wire, self._origin = provider.wire, provider.origin
        self._path = f"{provider.wire.path}/batches"

    async def submit(self, key: str, calls: Mapping[str, Request], /) -> str:
        """Hand the calls in; the batch's id."""
        about = model_of(calls)
        items = [
            b'{"custom_id":%b,"params":%b}' % (to_json(call), self._wire.encode(request, stream=False))
            for call, request in calls.items()
        ]
        return self._id(await self._exchange.post(self._path, b'{"requests":[%b]}' % b",".join(items), about), about)

    async def find(self, key: str, since: float, known: Collection[str], /) -> tuple[str | None, bool]:
        """The batch whose calls' ids begin with our name; not sure while one that may be it has not ended."""
        sure, after = True, ""
        while True:
            page = await self._exchange.get(f"{self._path}?limit={_PAGE}{after}")
            batches: list[Any] = page.get("data") or []
            for batch in batches:
                if batch.get("id") in known or _made(batch) < since - _SKEW:
                    continue
                if batch.get("processing_status") != "ended":
                    sure = False
                elif await self._is(batch, key):
                    return self._id(batch, self._path), True
            # newest first
            if not page.get("has_more") or not batches or _made(batches[-1]) < since - _SKEW:
                return None, sure
            after = f"&after_id={self._id(batches[-1], self._path)}"

    async def ended(self, batch_id: str, /) -> bool:
        """Whether every call was answered, failed, expired or was cancelled."""
        return (await self._exchange.get(f"{self._path}/{batch_id}")).get("processing_status") == "ended"

    async def results(self, batch_id: str, wanted: Mapping[str, Request], /) -> Mapping[str, Reply | ProviderError]:
        """The answers to these calls."""
        found: dict[str, Reply | ProviderError] = {}
        async for line in self._exchange.lines(f"{self._path}/{batch_id}/results"):
            request = wanted.get(line.get("custom_id"))
            if request is not None:
                found[line["custom_id"]] = self._result(line.get("result") or {}, request)
        return found

    async def cancel(self, batch_id: str, /) -> None:
        """Have it stopped."""
        await self._exchange.post(f"{self._path}/{batch_id}/cancel", b"", batch_id)

    async def _is(self, batch: Any, key: str) -> bool:
        """Whether an ended batch is the one with our name: all its calls' ids begin with it."""
        if not batch.get("results_url"):
            return False
        async for line in self._exchange.lines(f"{self._path}/{self._id(batch, self._path)}/results"):
            return str(line.get("custom_id")).startswith(f"{key}-")
        return False

    def _result(self, result: Any, request: Request) -> Reply | ProviderError:
        match result.get("type"):
            case "succeeded":
                return self._exchange.reply(result.get("message"), request)
            case "errored":
                return self._origin.reported(request.model, result.get("error"))
            case kind:
                return self._origin.broken(request.model, f"not answered in the batch ({kind})")

    def _id(self, body: Any, about: str) -> str:
        value = body.get("id")
        if not isinstance(value, str):
            raise self._origin.broken(about, "the answer has no id")
        return value


def _made(batch: Any) -> float:
    """When a batch was made, in Unix seconds; now-ish where it does not say, so that it is looked at."""
    try:
        return datetime.fromisoformat(str(batch.get("created_at"))).timestamp()
    except ValueError:
        return float("inf")
