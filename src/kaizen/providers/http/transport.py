"""HTTP to one provider, in any number of loops.

Connections belong to the loop that opened them, so a transport keeps a pool for each loop it is used in. An open async
generator holds it: ``asyncio.run`` and ``asyncio.Runner`` end the open generators of their loop
(``loop.shutdown_asyncgens``), and with it the connections, without anybody closing anything.
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kaizen.core.errors import ConfigError
from kaizen.providers.errors import Origin
from kaizen.providers.http.address import Address, Heads, parse
from kaizen.providers.http.answer import Asked, HttpAnswer
from kaizen.providers.http.dial import Dial
from kaizen.providers.http.limits import TransportSettings
from kaizen.providers.http.pool import Pool

_JSON: Final = "application/json"

Loop = asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True)
class _Held:
    """What is held of one loop. ``keeper`` is the open generator whose end closes the pool."""

    pool: Pool
    keeper: AsyncGenerator[Pool, None]
    end: weakref.finalize[..., Any]


@dataclass(frozen=True, slots=True)
class _Get:
    """Who asks when it is no model."""

    model: str
    deadline: float | None


class HttpTransport:
    """Calls to one provider: one pool of connections in each event loop that uses it.

    It follows no redirect, keeps no cookie and sends nothing twice.

    Args:
        base_url: where the provider answers, such as ``https://api.openai.com/v1``.
        headers: sent with every request; they may hold the key.
        origin: names the provider in errors and hides its key.
        settings: limits.
        tls: how to encrypt; by default with the certificates that the system trusts.

    Raises:
        ConfigError: if ``base_url``, a header or the proxy can't be used.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        origin: Origin,
        settings: TransportSettings,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target = _checked_url(base_url, origin)
        self._proxy = _checked_proxy(settings.proxy, origin)
        self._heads = Heads(self._target, self._proxy, _checked_headers(headers, origin))
        self._origin = origin
        self._settings = settings
        self._tls = tls
        self._held: dict[Loop, _Held] = {}

    @property
    def base_url(self) -> str:
        """Where the provider answers, without the query."""
        return self._target.base

    @property
    def host(self) -> str:
        """The host's name."""
        return self._target.host

    @property
    def origin(self) -> Origin:
        """Whose errors these are."""
        return self._origin

    @property
    def settings(self) -> TransportSettings:
        """Limits."""
        return self._settings

    def open(
        self, path: str, body: bytes, request: Asked, *, stream: bool = False, content_type: str = _JSON
    ) -> HttpAnswer:
        """A POST to make with ``async with``: it is sent on entering and, if it is not over, cut on leaving.

        Args:
            path: what follows the base URL.
            body: what is posted.
            request: on whose behalf.
            stream: whether the answer comes bit by bit: then no piece may take longer than ``idle_timeout``, else
                the answer no longer than ``answer_timeout``.
            content_type: what the body is.
        """
        head = b"%b%d\r\n\r\n" % (self._heads("POST", path, content_type), len(body))
        return HttpAnswer(self, head, body, request, stream=stream)

    def get(self, path: str, *, deadline: float | None = None) -> HttpAnswer:
        """The same for a GET; errors name the path where those of a POST name the model."""
        head = self._heads("GET", path, "") + b"\r\n"
        return HttpAnswer(self, head, b"", _Get(path, deadline), stream=False)

    async def close(self) -> None:
        """Close the running loop's connections. Not needed where the loop shuts its generators down."""
        held = self._held.get(asyncio.get_running_loop())
        if held is not None:
            await held.keeper.aclose()

    async def pool(self) -> Pool:
        """The running loop's connections, none yet at the first call."""
        loop = asyncio.get_running_loop()
        held = self._held.get(loop)
        return held.pool if held is not None else await self._open_pool(loop)

    async def _open_pool(self, loop: Loop) -> Pool:
        for other in [held for held in self._held if held.is_closed()]:
            # closed without ending its generators; there is nothing left to close its connections with
            self.forget(other)
        made = Pool(loop, Dial(self._target, self._proxy, self._tls), self._settings.at_once)
        keeper = _keep(loop, weakref.ref(self), made)
        # runs up to its yield without giving way to another task, so no second pool is made meanwhile
        pool = await anext(keeper)
        # A transport may be dropped while its loop runs on, and be collected in one sweep with all it holds. This
        # keeps the pool out of that sweep, where its end could not be awaited; let go after it, the generator is
        # ended by its loop.
        end = weakref.finalize(self, _let_go, keeper)
        end.atexit = False
        self._held[loop] = _Held(pool, keeper, end)
        return pool

    def forget(self, loop: Loop) -> None:
        """This loop's connections are closed."""
        if (held := self._held.pop(loop, None)) is not None:
            held.end.detach()


async def _keep(loop: Loop, owner: weakref.ref[HttpTransport], pool: Pool) -> AsyncGenerator[Pool, None]:
    try:
        yield pool
    finally:
        if (transport := owner()) is not None:
            transport.forget(loop)
        await pool.close()


def _let_go(keeper: AsyncGenerator[Pool, None]) -> None:
    """Nothing: the reference that was held for this call is what goes."""


def _checked_url(base_url: str, origin: Origin) -> Address:
    try:
        address = parse(base_url)
    except ValueError:
        raise ConfigError(f"providers.{origin.name}.base_url is no http or https address") from None
    if address.credentials is not None:
        # it would be shown wherever the address is
        raise ConfigError(f"providers.{origin.name}.base_url holds a user or password: use api_key_env")
    return address


def _checked_proxy(proxy: str | None, origin: Origin) -> Address | None:
    try:
        return None if proxy is None else parse(proxy)
    except ValueError:
        # the cause is dropped: it can show the address with its password
        raise ConfigError(
            f"the proxy for providers.{origin.name} (its own, or that of a variable such as HTTPS_PROXY) is no http or "
            "https address"
        ) from None


def _checked_headers(headers: Mapping[str, str], origin: Origin) -> Mapping[str, str]:
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise ConfigError(
                f"providers.{origin.name}: the value of the header {name} has characters no header may hold"
            )
    return headers
