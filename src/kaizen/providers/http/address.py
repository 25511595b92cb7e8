"""Where a server is, and how a request to it begins: addresses, request targets and heads. No I/O."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import idna

_PORTS: Final = {"http": 80, "https": 443}
# What a host of letters may hold. An underscore is no letter of a host name, but names of services have it.
_HOST: Final = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
# What may stand in a path or query as it is (RFC 3986, section 3.3); "%" too, so that nothing is escaped twice.
_SAFE: Final = "/%:@!$&'()*+,;=~?"
# The most heads kept: paths with an id in them would otherwise pile up.
_HEADS: Final = 256


@dataclass(frozen=True, slots=True)
class Address:
    """What an http or https URL says.

    Attributes:
        scheme: "http" or "https".
        host: in ASCII; an IPv6 address without its brackets.
        port: the given one or the scheme's.
        path: escaped, without a slash at its end.
        query: escaped, without its question mark.
        credentials: what a ``Basic`` header holds for the URL's user and password, or None.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str
    credentials: str | None = field(repr=False)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"

    @property
    def server(self) -> str:
        """Host and port, as CONNECT names them."""
        # the zone of an IPv6 address means something on this machine only
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def authority(self) -> str:
        """Host and port, the port left out where it is the scheme's."""
        return self.server.removesuffix(f":{_PORTS[self.scheme]}")

    @property
    def base(self) -> str:
        """The address without query and credentials, as it is shown."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse(url: str) -> Address:
    """Read an address.

    Raises:
        ValueError: if it is no http or https address of a host.
    """
    if _CONTROLS.search(url):
        raise ValueError("a control character")
    parts = urlsplit(url)
    port = parts.port  # raises where it is none
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise ValueError("no http or https address")
    credentials = None
    if parts.username is not None or parts.password is not None:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        credentials = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Address(
        scheme=parts.scheme,
        host=_host(parts.hostname),
        port=port or _PORTS[parts.scheme],
        path=quote(parts.path, safe=_SAFE).rstrip("/"),
        query=quote(parts.query, safe=_SAFE),
        credentials=credentials,
    )


def _host(host: str) -> str:
    if ":" in host:
        ipaddress.IPv6Address(host)
        return host
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode()
    if not _HOST.fullmatch(host):
        raise ValueError("no host's name")
    return host


class Heads:
    """The beginnings of requests, each written once.

    Args:
        target: the server asked.
        proxy: the proxy asked instead, or None.
        headers: sent with each request.
    """

    __slots__ = ("_common", "_kept", "_prefix", "_target")

    def __init__(self, target: Address, proxy: Address | None, headers: Mapping[str, str]) -> None:
        self._target = target
        self._prefix = ""
        own = {"host": target.authority, "accept": "*/*", "accept-encoding": "identity", "user-agent": "kaizen"}
        if proxy is not None and not target.tls:
            # a proxy is told the whole address (RFC 9112, section 3.2.2); through a tunnel nothing of it is seen
            self._prefix = f"http://{target.authority}"
            if proxy.credentials is not None:
                own["proxy-authorization"] = proxy.credentials
        # the host stands first (RFC 9110, section 7.2)
        lines = {"host": target.authority, **headers, **own}
        self._common = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._kept: dict[tuple[str, str, str], bytes] = {}

    def __call__(self, method: str, path: str, content_type: str) -> bytes:
        """All of a head up to the length of the body; of a GET, which has none, all but the empty line."""
        key = (method, path, content_type)
        head = self._kept.get(key)
        if head is None:
            if len(self._kept) >= _HEADS:
                self._kept.clear()
            head = self._kept[key] = self._write(method, path, content_type)
        return head

    def _write(self, method: str, path: str, content_type: str) -> bytes:
        if not content_type.isascii() or not content_type.isprintable():
            raise ValueError("a content type is printable ASCII")
        target = quote(self._target.path + path, safe=_SAFE) or "/"
        if self._target.query:
            target += f"{'&' if '?' in target else '?'}{self._target.query}"
        text = f"{method} {self._prefix}{target} HTTP/1.1\r\n{self._common}"
        if method != "GET":
            text += f"content-type: {content_type}\r\ncontent-length: "
        return text.encode("ascii")


def tunnel_request(target: Address, proxy: Address) -> bytes:
    """What opens a tunnel through a proxy (RFC 9110, section 9.3.6)."""
    allowed = f"proxy-authorization: {proxy.credentials}\r\n" if proxy.credentials is not None else ""
    return f"CONNECT {target.server} HTTP/1.1\r\nhost: {target.server}\r\n{allowed}\r\n".encode("ascii")
