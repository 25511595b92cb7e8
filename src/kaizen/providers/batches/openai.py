"""OpenAI's Batch API: a file of calls is uploaded, a batch made of it, and files of answers fetched.

https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from pydantic_core import to_json

from kaizen.core.errors import ProviderError
from kaizen.core.request import Reply, Request
from kaizen.providers.batches.exchange import Exchange, model_of
from kaizen.providers.wire import WireProvider

# The name under which our own name of a batch stands in its metadata.
_MARK: Final = "kaizen"
_OVER: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_PAGE: Final = 100
# A clock of theirs may be behind ours by so many seconds.
_SKEW: Final = 300.0


class OpenAIBatches:
    """A ``BatchApi`` over a provider that speaks chat completions or the Responses API.

    A batch carries our own name of it in its metadata, by which it is found again.

    Args:
        provider: the one whose calls these are.
    """

    def __init__(self, provider: WireProvider) -> None:
        self._exchange = Exchange(provider)
        self._wire, self._origin = provider.wire, provider.origin

    async def submit(self, key: str, calls: Mapping[str, Request], /) -> str:
        """Upload the calls and make a batch of them; its id."""
        url, about = f"/v1{self._wire.path}", model_of(calls)
        lines = [
            b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}'
            % (to_json(call), to_json(url), self._wire.encode(request, stream=False))
            for call, request in calls.items()
        ]
        boundary = secrets.token_hex(16)
        form = _form(boundary, f"{_MARK}-{key}.jsonl", b"\n".join(lines) + b"\n")
        kind = f"multipart/form-data; boundary={boundary}"
        file = await self._exchange.post("/files", form, about, content_type=kind)
        batch = {
            "input_file_id": self._text(file, "id", about),
            "endpoint": url,
            "completion_window": "24h",
            "metadata": {_MARK: key},
        }
        return self._text(await self._exchange.post("/batches", to_json(batch), about), "id", about)

    async def find(self, key: str, since: float, known: Collection[str], /) -> tuple[str | None, bool]:
        """The batch with our name in its metadata: found, or surely not there."""
        after = ""
        while True:
            page = await self._exchange.get(f"/batches?limit={_PAGE}{after}")
            batches: list[Any] = page.get("data") or []
            for batch in batches:
                metadata: Any = batch.get("metadata") or {}
                if metadata.get(_MARK) == key:
                    return self._text(batch, "id", "/batches"), True
            # newest first
            if not page.get("has_more") or not batches or batches[-1].get("created_at", 0) < since - _SKEW:
                return None, True
            after = f"&after={self._text(batches[-1], 'id', '/batches')}"

    async def ended(self, batch_id: str, /) -> bool:
        """Whether it is completed, failed, expired or cancelled."""
        return (await self._exchange.get(f"/batches/{batch_id}")).get("status") in _OVER

    async def results(self, batch_id: str, wanted: Mapping[str, Request], /) -> Mapping[str, Reply | ProviderError]:
        """The answers to these calls, from the file of answers and that of errors."""
        batch = await self._exchange.get(f"/batches/{batch_id}")
        found: dict[str, Reply | ProviderError] = {}
        for file in filter(None, (batch.get("output_file_id"), batch.get("error_file_id"))):
            async for line in self._exchange.lines(f"/files/{file}/content"):
                request = wanted.get(line.get("custom_id"))
                if request is not None:
                    found[line["custom_id"]] = self._result(line, request)
        if batch.get("status") == "failed" and not found:
            errors: Any = batch.get("errors") or {}
            told = cast("list[Any]", errors.get("data") or [{}])
            error = self._origin.answered(model_of(wanted), 400, {}, to_json({"error": told[0]}))
            return dict.fromkeys(wanted, error)
        return found

    async def cancel(self, batch_id: str, /) -> None:
        """Have it stopped."""
        await self._exchange.post(f"/batches/{batch_id}/cancel", b"", batch_id)

    def _result(self, line: Any, request: Request) -> Reply | ProviderError:
        response: Any = line.get("response") or {}
        status = response.get("status_code")
        if status == 200:
            return self._exchange.reply(response.get("body"), request)
        if status is None:  # it was never asked, as when the batch expired
            error: Any = line.get("error") or {}
            return self._origin.broken(request.model, f"not answered in the batch ({error.get('code')})")
        return self._origin.answered(request.model, status, {}, to_json(response.get("body")))

    def _text(self, body: Any, name: str, about: str) -> str:
        value = body.get(name)
        if not isinstance(value, str):
            raise self._origin.broken(about, f"the answer has no {name}")
        return value


def _form(boundary: str, name: str, data: bytes) -> bytes:
    """A multipart form with a purpose and a file (RFC 7578)."""
    mark = f"--{boundary}\r\n".encode()
    return b"".join(
        [
            mark,
            b'content-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n',
            mark,
            f'content-disposition: form-data; name="file"; filename="{name}"\r\n'.encode(),
            b"content-type: application/jsonl\r\n\r\n",
            data,
            f"\r\n--{boundary}--\r\n".encode(),
        ]
    )
