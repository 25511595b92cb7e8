"""The calls that pass through the gateway: how they reach the provider that their model names."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaizen.app import App
from kaizen.app.adapters import own_prices, transport_of
from kaizen.core.protocols import Policy
from kaizen.programs.forward import Answering, Forwarding, Posted
from kaizen.serve.http.backend import Backend
from kaizen.serve.http.gateway import Gateway, Route
from kaizen.serve.http.through.passing import ROUTES, PassThrough
from kaizen.settings import OpenAISettings, Settings

if TYPE_CHECKING:
    from kaizen.providers.http import HttpTransport


@dataclass(frozen=True, slots=True)
class _Asked:
    """On whose behalf a call is made."""

    model: str
    deadline: float | None


class Forward:
    """Posts calls to providers of kind ``openai``, each over connections of its own; nothing is sent twice.

    Args:
        settings: the providers.
    """

    def __init__(self, settings: Settings) -> None:
        self._providers = {name: one for name, one in settings.providers.items() if isinstance(one, OpenAISettings)}
        self._lines: dict[str, HttpTransport] = {}

    def takes(self, ref: str) -> bool:
        """Whether a ref's provider is one of them."""
        return ref.partition("/")[0] in self._providers

    @asynccontextmanager
    async def __call__(self, posted: Posted, deadline: float | None) -> AsyncGenerator[Answering]:
        """Post a call; see ``Send``.

        Raises:
            ProviderError: there is no answer, or one of another status than 200.
        """
        line = self._line(posted.ref.partition("/")[0])
        asked = _Asked(posted.ref, deadline)
        call = line.open(posted.path, posted.body, asked, stream=posted.stream, content_type=posted.content_type)
        async with call as answer:
            if answer.status != 200:
                raise line.origin.answered(posted.ref, answer.status, answer.headers, await answer.read())
            yield answer

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
