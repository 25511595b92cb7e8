"""The calls that pass through the gateway: how they reach the provider that their model names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaizen.app import App
from kaizen.app.adapters import own_prices, transport_of
from kaizen.app.layers import retries
from kaizen.core.errors import ProviderError
from kaizen.core.protocols import Policy
from kaizen.inference.retry import pause
from kaizen.programs.forward import Answering, Forwarding, Posted
from kaizen.serve.http.backend import Backend
from kaizen.serve.http.gateway import Gateway, Route
from kaizen.serve.http.through.passing import ROUTES, PassThrough
from kaizen.settings import OpenAISettings, Settings

if TYPE_CHECKING:
    from kaizen.providers.http import HttpAnswer, HttpTransport


@dataclass(frozen=True, slots=True)
class _Asked:
    """On whose behalf a call is made."""

    model: str
    deadline: float | None


class _Counted:
    """An answer, and how often its provider was asked for it."""

    def __init__(self, answer: HttpAnswer, attempts: int) -> None:
        self._answer, self.attempts = answer, attempts

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    async def read(self) -> bytes:
        return await self._answer.read()

    async def pieces(self) -> bytes | None:
        return await self._answer.pieces()


class Forward:
    """Posts calls to providers of kind ``openai``, each over connections of its own.

    What fails before any of it was sent is sent again, as often and as patiently as ``[inference]`` says, and so is a
    call whose answer comes of the request alone. No other is sent twice: an image would be made, and billed, twice.

    Args:
        settings: the providers.
    """

    def __init__(self, settings: Settings) -> None:
        self._providers = {name: one for name, one in settings.providers.items() if isinstance(one, OpenAISettings)}
        self._lines: dict[str, HttpTransport] = {}
        self._retries = retries(settings)

    def takes(self, ref: str) -> bool:
        """Whether a ref's provider is one of them."""
        return ref.partition("/")[0] in self._providers

    @asynccontextmanager
    async def __call__(self, posted: Posted, deadline: float | None) -> AsyncGenerator[Answering]:
        """Post a call; see ``Send``.

        Raises:
            ProviderError: there is no answer, or one of another status than 200.
        """
        async with AsyncExitStack() as stack:
            attempt = 1
            while (answer := await self._opened(stack, posted, deadline, attempt)) is None:
                attempt += 1
            yield _Counted(answer, attempt)

    async def _opened(
        self, stack: AsyncExitStack, posted: Posted, deadline: float | None, attempt: int
    ) -> HttpAnswer | None:
        """The answer, open until the stack closes; None where it is to be asked for again, after the wait for it."""
        line, asked = self._line(posted.ref.partition("/")[0]), _Asked(posted.ref, deadline)
        call = line.open(posted.path, posted.body, asked, stream=posted.stream, content_type=posted.content_type)
        try:
            async with AsyncExitStack() as trying:
                answer = await trying.enter_async_context(call)
                if answer.status != 200:
                    raise line.origin.answered(posted.ref, answer.status, answer.headers, await answer.read())
                stack.push_async_exit(trying.pop_all())
                return answer
        except ProviderError as error:
            wait = pause(error, attempt, self._retries, deadline)
            if call.sent and not posted.repeatable:
                raise
        await asyncio.sleep(wait)
        return None

    def _line(self, name: str) -> HttpTransport:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = transport_of(name, self._providers[name])
        return line


def add_passing(gateway: Gateway, app: App, backend: Backend, policy: Policy | None) -> None:
    """Have a gateway pass calls on.

    Args:
        gateway: gets the routes.
        app: whose records and settings.
        backend: what is behind the gateway.
        policy: asked before each call.
    """
    forward = Forward(app.settings)
    passing = PassThrough(
        door=gateway.door,
        contexts=backend.contexts,
        resolve=backend.resolve,
        takes=forward.takes,
        forwarding=Forwarding(forward, ledger=app.ledger, policy=policy, prices=own_prices(app.settings)),
        max_body=app.settings.server.max_body_bytes,
    )
    for path, name in ROUTES.items():
        gateway.add(path, Route(name, {"POST": passing.take}))
