"""On the path of every process that runs a page: nothing but loopback can be reached."""

import sys
from typing import Any

_LOOPBACK = ("127.", "::1", "localhost")


def _guard(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = args[1]
        host = address[0] if isinstance(address, tuple) else ""  # a unix socket's address is a path
    elif event == "socket.getaddrinfo":
        host = args[0] or ""
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    if host and not host.startswith(_LOOPBACK):
        raise ConnectionRefusedError(f"the docs run without a network: {host}")


sys.addaudithook(_guard)
