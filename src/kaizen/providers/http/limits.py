"""How a provider is reached: what its transport may use, and how long it waits."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How a provider is reached.

    Args:
        connections: the most calls in the air at once in one loop; the others wait in order. None is the
            smaller of 1,000 and half the process's limit of open files.
        connect_timeout: seconds to make a connection.
        answer_timeout: seconds to wait for an answer that is not streamed; the model writes all of it meanwhile.
            Then as long again for the rest of a body that did not come with its head.
        idle_timeout: seconds to wait for the next piece of a stream.
        max_body: the most bytes of an answer, or of one event of a stream; a stream may have eight times that in all.
        proxy: address of an HTTP proxy, or None. It may hold a password, so it is not shown.
    """

    connections: int | None = None
    connect_timeout: float = 10.0
    answer_timeout: float = 600.0
    idle_timeout: float = 60.0
    max_body: int = 16 * 1024 * 1024
    proxy: str | None = field(default=None, repr=False)

    @property
    def at_once(self) -> int:
        """The most calls at once, the default worked out."""
        if self.connections is not None:
            return self.connections
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 1000 if files == resource.RLIM_INFINITY else max(1, min(1000, files // 2))
