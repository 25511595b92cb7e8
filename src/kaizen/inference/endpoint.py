"""What the layers know of a provider: which wire it speaks, and where it is."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

Wire: TypeAlias = Literal["openai", "anthropic", "embedded", "litellm"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider's models are asked.

    Args:
        kind: the wire it speaks.
        base_url: the address its paths are added to; empty where it has none.
    """

    kind: Wire
    base_url: str = ""

    @property
    def host(self) -> str:
        """The host in the address, lower case; empty where there is none."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def local(self) -> bool:
        """Whether it is on this machine or a private network: a server somebody runs, no vendor's."""
        host = self.host
        if "." not in host and ":" not in host:
            return True  # localhost, a container's name, or no host at all
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host.endswith((".localhost", ".local", ".internal"))
        return address.is_private
